"""Do the rows of the log, the rows of the node and the files agree? (trust.md A2, A7). Reads only, in one snapshot.

No output without its row, no inference row without output or reason, nothing received, delivered or decided that the
log does not tell, and every transfer that began ended with the counts that its rows add up to. Study by study, so that
memory stays bounded whatever the log holds.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from dicomnode.audit.anchor import anchors
from dicomnode.audit.events import Event
from dicomnode.audit.query import AuditFilter, find
from dicomnode.audit.reconcile_study import StudyRows, study_differences
from dicomnode.audit.reconcile_transfers import Transfers, transfer_differences
from dicomnode.store.tables import SeriesRow, StudyRow

Tell = Callable[[int, int], None]
"""Called with the Studies that were looked at and their number."""


@dataclass(frozen=True, slots=True)
class Difference:
    """``kind``: what does not agree. ``about``: identifiers and counts, nothing else."""

    kind: str
    about: dict[str, Any]

    @property
    def key(self) -> str:
        """The same for the same difference, in every run."""
        return hashlib.sha256(repr((self.kind, sorted(self.about.items(), key=str))).encode()).hexdigest()[:16]


@dataclass(slots=True)
class Reconciled:
    """``peers``: of each peer how many transfers began and ended, and what the log counts of them."""

    differences: list[Difference] = field(default_factory=list)
    studies: int = 0
    peers: dict[str, Counter[str]] = field(default_factory=dict)


def reconcile(session: Session, since: float | None = None, tell: Tell | None = None) -> Reconciled:
    """Compare everything since ``since`` (seconds since the epoch; None: all that was not archived)."""
    since = _lower_bound(session, since)
    found = Reconciled()
    transfers = Transfers()
    for row in find(
        session, AuditFilter(event=(Event.BEGIN_TRANSFERRING, Event.INSTANCES_TRANSFERRED), since=_ts(since))
    ):
        transfers.take(row)
    uids = sorted({*_studies(session, since), *transfers.studies})
    for number, uid in enumerate(uids, 1):
        rows = StudyRows.of(find(session, AuditFilter(study=uid)))
        transfers.count(uid, rows.received)
        found.differences += [Difference(kind, about) for kind, about in study_differences(session, uid, rows, since)]
        if tell:
            tell(number, len(uids))
    found.differences += [Difference(kind, about) for kind, about in transfer_differences(session, transfers, since)]
    found.studies, found.peers = len(uids), transfers.peers()
    return found


def _lower_bound(session: Session, since: float | None) -> float:
    """Nothing can be said of what came before the first row, where rows were archived."""
    first = session.scalar(text("SELECT ts FROM audit ORDER BY seq LIMIT 1")) if anchors(session) else None
    archived = datetime.fromisoformat(first).timestamp() if first else 0.0
    return max(since or 0.0, archived)


def _ts(since: float) -> str:
    return datetime.fromtimestamp(since, UTC).isoformat(timespec="microseconds")


def _studies(session: Session, since: float) -> Iterator[str]:
    query = select(StudyRow.StudyInstanceUID).join(SeriesRow, SeriesRow.study_id == StudyRow.id)
    yield from session.scalars(query.where(SeriesRow.last_received_at >= since).distinct())
