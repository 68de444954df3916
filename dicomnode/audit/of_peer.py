"""The newest rows of a peer, among millions that an index of peers would make every C-STORE dearer for.

The rows of single images are in no index of peers. An Association ends with one "instances transferred" per Study,
which is: it leads to the Study, and each of its rows lies before it. So these are walked from the newest on until
no older one can have led to a newer row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from dicomnode.audit.query import AuditFilter, about, body_value, by_peer, span, utc
from dicomnode.store.audit_sql import ONE_PER_IMAGE, PEER_INDEXES
from dicomnode.store.tables import AssociationRow, AuditRow, InstanceRow, SeriesRow, StudyRow

MOST = 5000
"""Rows asked for beyond which looking at every row is no slower."""
_LONGEST_PAGE = 128


def newest_of_peer(session: Session, wanted: AuditFilter) -> list[int] | None:
    """``seq`` of the newest ``wanted.limit`` rows of a peer; None when looking at every row does as well."""
    limit = wanted.limit
    if limit is None or limit > MOST:
        return None
    within, rest = _within(session, wanted), wanted.conditions("peer")
    found: set[int] = set()
    for index in PEER_INDEXES:
        query = by_peer(wanted.peers, index).where(*within.conditions(), *rest)
        found.update(session.scalars(query.order_by(AuditRow.seq.desc()).limit(limit)))
    if wanted.event is not None and not set(wanted.kinds) & set(ONE_PER_IMAGE):
        return sorted(found)[-limit:]
    conditions = (AuditRow.kind.concat("").in_(ONE_PER_IMAGE), *wanted.conditions())
    found.update(_rows(session, _of_open(session, wanted), conditions))
    page, before = 1, within.ended_before
    while True:
        ends = _ends(session, wanted, before, page + 1)
        found.update(_rows(session, [study for _, study in ends[:page]], conditions))
        if len(ends) <= page or ends[page].seq < within.first:
            return sorted(found)[-limit:]
        if sum(seq > ends[page].seq for seq in found) >= limit:
            return sorted(found)[-limit:]
        before, page = ends[page].seq + 1, min(page * 2, _LONGEST_PAGE)


@dataclass(frozen=True, slots=True)
class _Within:
    """Where the rows of a time lie. ``ended_before``: ends of transfers from this row on began too late."""

    first: int = 0
    last: int | None = None
    ended_before: int | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """Bounds of ``seq`` that an index of peers can use."""
        found = [AuditRow.seq >= self.first] if self.first else []
        return found if self.last is None else [*found, AuditRow.seq <= self.last]


def _within(session: Session, wanted: AuditFilter) -> _Within:
    """Bounds where they are cheap to know: where not too many rows are of the times asked for."""
    rows = span(session, wanted.since, wanted.until)
    if rows is None or wanted.until is None:
        return _Within(rows[0] if rows else 0)
    until = datetime.fromisoformat(utc(wanted.until)).timestamp()
    ended = session.scalar(select(func.max(AssociationRow.ended_at)).where(AssociationRow.opened_at < until))
    late = datetime.fromtimestamp(max(ended or 0.0, until) + 1.0, UTC)
    ends = span(session, wanted.since, late.isoformat())
    return _Within(rows[0], rows[1], ends[1] + 1 if ends else None)


class _End(NamedTuple):
    """The end of the transfer of one Study."""

    seq: int
    study: str


def _ends(session: Session, wanted: AuditFilter, before: int | None, count: int) -> list[_End]:
    """Ends of transfers, newest first."""
    query = by_peer(wanted.peers, "ix_audit_sender").add_columns(body_value("StudyInstanceUID").label("study"))
    if before is not None:
        query = query.where(AuditRow.seq < before)
    rows = session.execute(query.order_by(AuditRow.seq.desc()).limit(count))
    return [_End(row.seq, row.study or "") for row in rows]


def _rows(session: Session, studies: Iterable[str], conditions: Sequence[ColumnElement[bool]]) -> list[int]:
    """The rows of single images of these Studies."""
    of_studies = [about("StudyInstanceUID", study) for study in dict.fromkeys(studies) if study]
    if not of_studies:
        return []
    return list(session.scalars(select(AuditRow.seq).where(or_(*of_studies), *conditions)))


def _of_open(session: Session, wanted: AuditFilter) -> list[str]:
    """The Studies of Associations of the peer that are open: they have no end yet."""
    named = or_(AssociationRow.peer.in_(wanted.peers), AssociationRow.CallingAETitle.in_(wanted.peers))
    ids = list(session.scalars(select(AssociationRow.id).where(AssociationRow.ended == "open", named)))
    if not ids:
        return []
    sent = select(InstanceRow.series_id).where(InstanceRow.association_id.in_(ids))
    touched = select(SeriesRow.id).where(SeriesRow.association_id.in_(ids))
    series = or_(SeriesRow.id.in_(sent), SeriesRow.id.in_(touched))
    query = select(StudyRow.StudyInstanceUID).join(SeriesRow, SeriesRow.study_id == StudyRow.id).where(series)
    return list(session.scalars(query.distinct()))
