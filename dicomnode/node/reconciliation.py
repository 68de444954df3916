"""Reconciliation by timer and by command: a difference becomes a security alert, each one once (trust.md A2, A7)."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from dicomnode.audit import append
from dicomnode.audit.events import Event
from dicomnode.audit.reconcile import Difference, Reconciled, Tell, reconcile
from dicomnode.audit.reconcile_files import foreign_files, missing_files
from dicomnode.store.engine import Store
from dicomnode.store.spool import Spool
from dicomnode.store.tables import AuditRow

REASON = "reconciliation found differences"
FIRST_LOOK_S = 7 * 86_400.0
"""How far back the first look of a running node goes; ``dicomnode audit reconcile`` looks at everything."""
OVERLAP_S = 3600.0
SHOWN = 20
ALERTS_ASKED = 200
_log = logging.getLogger(__name__)


def compare_all(
    store: Store, spool: Spool, since: float | None, *, files: bool, tell: Tell | None = None
) -> Reconciled:
    """Rows, log and files since ``since``; ``files``: also look for files that nobody names. Raises Transient."""
    with store.read() as session:
        found = reconcile(session, since, tell)
        beside = chain(missing_files(session, spool, since or 0.0), foreign_files(session, spool) if files else ())
        found.differences += [Difference(kind, about) for kind, about in beside]
    return found


def alert(store: Store, differences: Sequence[Difference]) -> int:
    """Record the differences that no alert has told yet, in one row; returns how many. Raises Transient."""
    with store.write() as session:
        told = _told(session)
        new = [item for item in differences if item.key not in told]
        if new:
            shown = [{"kind": item.kind, **item.about} for item in new[:SHOWN]]
            body = {"reason": REASON, "differences": len(new), "first": shown, "keys": [item.key for item in new]}
            append(session, Event.SECURITY_ALERT, body)
    return len(new)


def _told(session: Session) -> set[str]:
    query = select(AuditRow.body).where(AuditRow.kind == Event.SECURITY_ALERT)
    found: set[str] = set()
    for text in session.scalars(query.order_by(AuditRow.seq.desc()).limit(ALERTS_ASKED)):
        try:
            body: Any = json.loads(text)
        except (ValueError, TypeError, RecursionError):
            continue
        if isinstance(body, dict) and body.get("reason") == REASON:
            found.update(map(str, body.get("keys") or ()))
    return found


class ReconciliationTimer:
    """Looks at what happened since the last look. ``clock``: seconds since the epoch."""

    def __init__(self, store: Store, spool: Spool, clock: Callable[[], float]) -> None:
        self._store, self._spool, self._clock = store, spool, clock
        self._since: float | None = None

    def tick(self) -> None:
        """Look, and tell what is new. Raises Transient."""
        now = self._clock()
        since = now - FIRST_LOOK_S if self._since is None else self._since - OVERLAP_S
        found = compare_all(self._store, self._spool, since, files=False)
        if found.differences and (new := alert(self._store, found.differences)):
            _log.error(REASON, extra={"differences": new})
        self._since = now
