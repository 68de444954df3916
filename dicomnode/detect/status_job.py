"""The ``status`` job: a Destination is owed a page about a Series that has no result."""

from __future__ import annotations

from sqlalchemy import ColumnElement, exists, func, select
from sqlalchemy.orm import Session

from dicomnode.config import Config
from dicomnode.jobs import enqueue, renew
from dicomnode.store.tables import AssignmentRow, DerivedRow, JobRow

STATUS_JOB = "status"


def wanting(config: Config, assignment: AssignmentRow) -> tuple[str, ...]:
    """The Destinations of ``assignment`` that get a status page for its outcome."""
    return tuple(name for name in assignment.send_to if assignment.outcome in config.results.status_for(name))


def announce(session: Session, config: Config, assignment: AssignmentRow, now: float) -> None:
    """Add the job when a Destination wants the page; call it in the transaction that writes the outcome.

    An outcome is announced until a page is made, however often an operator requeues its ``detect`` job, and then no
    more.
    """
    if not wanting(config, assignment):
        return
    payload = {"assignment_id": assignment.id, "outcome": assignment.outcome}
    key = f"{assignment.id}:{assignment.outcome}"
    if not enqueue(session, STATUS_JOB, key, payload, now, priority=assignment.priority) and not _made(
        session, assignment
    ):
        renew(session, STATUS_JOB, key, payload, now)


def page_to_come() -> ColumnElement[bool]:
    """That the page of an AssignmentRow is still to be made."""
    named = func.json_extract(JobRow.payload, "$.assignment_id")
    return exists().where(JobRow.kind == STATUS_JOB, named == AssignmentRow.id, JobRow.state.in_(("ready", "leased")))


def page_before(session: Session, assignment: AssignmentRow) -> bool:
    """Whether a page was made for another outcome of the same Assignment, before an operator requeued it."""
    keys = [f"{assignment.id}:{outcome}" for outcome in ("not analysed", "failed") if outcome != assignment.outcome]
    announced = exists().where(JobRow.kind == STATUS_JOB, JobRow.dedup_key.in_(keys), JobRow.state == "done")
    return bool(session.scalar(select(announced))) and _made(session, assignment)


def _made(session: Session, assignment: AssignmentRow) -> bool:
    return bool(session.scalar(select(exists().where(DerivedRow.assignment_id == assignment.id))))
