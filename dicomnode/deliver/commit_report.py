"""A report of storage commitment, settled: what is committed, what is sent again, what is told to the auditors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from dicomnode.audit import append
from dicomnode.audit.events import Event
from dicomnode.deliver.commit_plan import is_hopeless
from dicomnode.deliver.ledger import subject
from dicomnode.deliver.outbox import KIND, THERE
from dicomnode.dicom.commitment import COMMITTED, Remedy, describe_reason, remedy
from dicomnode.jobs import enqueue
from dicomnode.store.tables import AssignmentRow, CommitmentRow, DeliveryRow, DerivedRow


def settle_answer(
    session: Session, assignment_id: int, row: CommitmentRow, earlier: Mapping[str, Sequence[int | None]], now: float
) -> None:
    """Write what the answered ``row`` says of each Instance; ``earlier``: its answers before.

    A committed Instance stays so: a later failure of it, from a question that crossed the answer to another one,
    does not count. What can be mended by a re-send waits again, in a ``deliver`` job of its own.
    """
    report = row.report or {}
    failed: list[dict[str, Any]] = []
    committed, again = 0, 0
    for uid, delivery in _deliveries(session, assignment_id, row):
        reason = report.get(uid)
        if reason == COMMITTED:
            delivery.committed_at = delivery.committed_at or row.answered_at
            committed += 1
        elif delivery.committed_at is None:
            action = Remedy.NONE if is_hopeless([*earlier.get(uid, ()), reason]) else remedy(reason)
            if action is Remedy.SEND_AGAIN and delivery.state in THERE:
                delivery.state, delivery.status = "waiting", None
                again += 1
            line = {"SOPInstanceUID": uid, "FailureReason": reason, "text": describe_reason(reason)}
            failed.append({**line, "action": str(action)})
    row.state = "settled"
    if again:
        _send_again(session, assignment_id, row, now)
    _audit(session, assignment_id, row, committed, failed)


def _deliveries(session: Session, assignment_id: int, row: CommitmentRow) -> list[tuple[str, DeliveryRow]]:
    query = (
        select(DerivedRow.SOPInstanceUID, DeliveryRow)
        .join(DeliveryRow, DeliveryRow.derived_id == DerivedRow.id)
        .where(DerivedRow.assignment_id == assignment_id, DeliveryRow.destination == row.destination)
        .order_by(DeliveryRow.id)
    )
    asked = set(row.instances)
    return [(uid, delivery) for uid, delivery in session.execute(query) if uid in asked]


def _send_again(session: Session, assignment_id: int, row: CommitmentRow, now: float) -> None:
    payload = {"assignment_id": assignment_id, "destination": row.destination}
    priority = session.scalar(select(AssignmentRow.priority).where(AssignmentRow.id == assignment_id)) or 0
    key = f"{assignment_id}:{row.destination}:{row.TransactionUID}"
    enqueue(session, KIND, key, payload, now, priority=priority)


def _audit(
    session: Session, assignment_id: int, row: CommitmentRow, committed: int, failed: Sequence[Mapping[str, Any]]
) -> None:
    body = {**subject(session, assignment_id), "peer": row.destination, "TransactionUID": row.TransactionUID}
    body["counts"] = {"asked": len(row.instances), "committed": committed, "failed": len(failed)}
    if committed:
        uids = [uid for uid in row.instances if (row.report or {}).get(uid) == COMMITTED]
        append(session, Event.COMMITTED, {**body, "instances": uids})
    if failed:
        append(session, Event.COMMITMENT_FAILED, {**body, "instances": list(failed)})
