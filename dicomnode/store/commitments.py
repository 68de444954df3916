"""The rows of storage commitment that two rooms write: who asks, and who hears the answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from dicomnode.dicom.commitment import CommitmentReport, EventStatus
from dicomnode.errors import Refusal
from dicomnode.store.tables import CommitmentRow

COMMIT = "commit"
"""Kind of the job that asks one Destination about one Assignment."""


def commit_job(assignment_id: int, destination: str, since: float) -> tuple[str, dict[str, Any]]:
    """Deduplication key and payload of that job. ``since``: answers to questions before this do not count any more."""
    payload = {"assignment_id": assignment_id, "destination": destination, "waiting_since": since}
    return f"{assignment_id}:{destination}", payload


def job_of(row: CommitmentRow) -> tuple[str, dict[str, Any]]:
    """The ``commit_job`` that takes in the report of ``row``, should the one that asked have ended meanwhile."""
    return commit_job(row.assignment_id, row.destination, row.requested_at)


def take_report(
    session: Session, report: CommitmentReport, may_answer: Callable[[str], bool], now: float
) -> CommitmentRow:
    """Write ``report`` into the row of its transaction and return the row; a repeated report changes nothing.

    Instances that were not asked about are left out. ``may_answer``: does the report come from this Destination?
    Raises Refusal with Invalid Argument Value (PS3.7 10.1.1.1.8) for a transaction that is not ours or of another
    Destination: the same answer to both, so that it tells nothing of the transactions of others.
    """
    row = session.scalar(select(CommitmentRow).where(CommitmentRow.TransactionUID == report.TransactionUID))
    if row is None:
        raise Refusal(EventStatus.INVALID_ARGUMENT_VALUE, "storage commitment report of an unknown transaction")
    if not may_answer(row.destination):
        reason = "storage commitment report from another peer than the one that was asked"
        raise Refusal(EventStatus.INVALID_ARGUMENT_VALUE, reason)
    if row.state in {"requested", "expired"}:
        row.state, row.answered_at = "answered", now
        row.report = {uid: report.reasons[uid] for uid in row.instances if uid in report.reasons}
    return row
