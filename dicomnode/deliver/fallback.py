"""What is sent in place of a kind of object that a Destination does not take, so that no result is lost."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from dicomnode.audit import append
from dicomnode.audit.events import Event
from dicomnode.config.results import NEEDS, SEND_ORDER, fallback
from dicomnode.deliver.outbox import THERE
from dicomnode.store.tables import DeliveryRow, DerivedRow

_KINDS = frozenset(SEND_ORDER)


@dataclass(frozen=True, slots=True)
class Refused:
    """The Destination takes no Instance of ``kind``, with what it said."""

    kind: str
    SOPClassUID: str
    reason: str


def step_down(
    session: Session,
    assignment_id: int,
    destination: str,
    refused: Iterable[Refused],
    accepted: Collection[str],
    facts: dict[str, Any],
) -> list[str]:
    """Let other kinds carry the result in place of those in ``refused``; for the transaction that ends an attempt.

    The rows of a refused kind become "replaced", and the Instances of its stand-in wait for the Destination, unless
    they are sent there anyway. Without a stand-in they become "failed". A kind of which Instances are there, or are in
    ``accepted``, is not refused as a whole: nothing stands in for it. What needs a kind that did not arrive is replaced
    too. Each step is audited with ``facts``. Returns, in words, what nothing can stand in for.
    """
    board = _Board(session, assignment_id, destination)
    missing = []
    news = {one.kind: one for one in refused if one.kind not in accepted and not board.has_some(one.kind)}
    for kind in sorted(news, key=SEND_ORDER.index):
        board.refuse(kind)
    for kind in sorted(news, key=SEND_ORDER.index):
        stand_in = board.stand_in(kind)
        rows = board.set_state(kind, "failed" if stand_in is None else "replaced")
        already = stand_in is not None and board.send(stand_in)
        if stand_in is None:
            missing.append(f"nothing can stand in for {kind}")
        _audit(session, news[kind], len(rows), stand_in, already_sent=already, facts=facts)
    for kind, needed in NEEDS.items():
        _replace_needy(session, board, kind, needed, facts)
    return missing


class _Board:
    """Every Derived Instance of one Assignment, and how it stands with each at one Destination."""

    def __init__(self, session: Session, assignment_id: int, destination: str) -> None:
        self._session, self._destination = session, destination
        query = select(DerivedRow).where(DerivedRow.assignment_id == assignment_id).order_by(DerivedRow.id)
        self._derived: Sequence[DerivedRow] = session.scalars(query).all()
        here = select(DeliveryRow).where(
            DeliveryRow.destination == destination, DeliveryRow.derived_id.in_([row.id for row in self._derived])
        )
        self._rows = {row.derived_id: row for row in session.scalars(here)}
        self._refused = {kind for kind in _KINDS - NEEDS.keys() if "replaced" in self.states(kind)}

    def _of(self, kind: str) -> list[DerivedRow]:
        return [row for row in self._derived if row.kind == kind]

    def states(self, kind: str) -> set[str]:
        """The states of the rows of ``kind``."""
        return {self._rows[row.id].state for row in self._of(kind) if row.id in self._rows}

    def has_some(self, kind: str) -> bool:
        """Is an Instance of ``kind`` at the Destination?"""
        return bool(self.states(kind) & THERE)

    def refuse(self, kind: str) -> None:
        """The Destination takes no ``kind``."""
        self._refused.add(kind)

    def stand_in(self, kind: str) -> str | None:
        """The best kind that was made, has not failed there, and that the Destination may take.

        It may take what it refused neither by its kind nor by its SOP Class.
        """
        made = {row.kind for row in self._derived}
        gone = {other for other in made if self.states(other) and self.states(other) <= {"failed", "replaced"}}
        classes = {row.SOPClassUID for row in self._derived if row.kind in self._refused - NEEDS.keys()}
        hopeless = {row.kind for row in self._derived if row.SOPClassUID in classes and not self.has_some(row.kind)}
        return fallback(kind, self._refused | gone | hopeless | (_KINDS - made))

    def set_state(self, kind: str, state: str) -> list[DeliveryRow]:
        """Give ``state`` to the rows of ``kind`` whose Instances are not there."""
        rows = [self._rows[row.id] for row in self._of(kind) if row.id in self._rows]
        changed = [row for row in rows if row.state not in THERE]
        for row in changed:
            row.state = state
        return changed

    def send(self, kind: str) -> bool:
        """Let every Instance of ``kind`` wait for the Destination; False unless all of them did before.

        Those that were made last: there may be a page about a failure that an operator has requeued since.
        """
        last = max(row.created_at for row in self._of(kind))
        new = [row for row in self._of(kind) if row.id not in self._rows and row.created_at == last]
        for row in new:
            self._rows[row.id] = DeliveryRow(derived_id=row.id, destination=self._destination, state="waiting")
            self._session.add(self._rows[row.id])
        return not new

    def sop_class(self, kind: str) -> str:
        """The SOP Class of ``kind``."""
        return self._of(kind)[0].SOPClassUID


def _replace_needy(session: Session, board: _Board, kind: str, needed: Iterable[str], facts: dict[str, Any]) -> None:
    """What only makes sense beside Instances that did not arrive is not sent; what stands in for those is."""
    if "waiting" not in board.states(kind):
        return
    lost = [other for other in needed if not board.states(other) or board.states(other) & {"replaced", "failed"}]
    if lost:
        stand_in = board.stand_in(kind)
        there = stand_in is not None and bool(board.states(stand_in))
        rows = board.set_state(kind, "replaced")
        why = Refused(kind, board.sop_class(kind), f"it needs {' and '.join(lost)}, which the peer has not got")
        _audit(session, why, len(rows), stand_in if there else None, already_sent=there, facts=facts)


def _audit(
    session: Session, refused: Refused, count: int, stand_in: str | None, *, already_sent: bool, facts: dict[str, Any]
) -> None:
    body = {"refused": refused.kind, "SOPClassUID": refused.SOPClassUID, "count": count, "reason": refused.reason}
    append(session, Event.FELL_BACK, {**facts, **body, "sent_instead": stand_in, "already_sent": already_sent})
