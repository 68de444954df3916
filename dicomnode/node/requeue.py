"""An operator gives a dead letter a new life."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from dicomnode.audit import append
from dicomnode.audit.actor import actor
from dicomnode.audit.events import Event
from dicomnode.deid.errands import REMOTE_JOB
from dicomnode.deliver.commit_ledger import forget_answers
from dicomnode.deliver.ledger import subject
from dicomnode.deliver.requeue import requeue_dead
from dicomnode.detect.status_job import STATUS_JOB
from dicomnode.jobs import Job, requeue
from dicomnode.node.remote import ask_again
from dicomnode.node.unrouted import routing_again
from dicomnode.store.commitments import COMMIT
from dicomnode.store.engine import Store
from dicomnode.store.tables import AssignmentRow, JobRow


def requeue_dead_job(store: Store, job_id: int, now: float) -> None:
    """Make dead job ``job_id`` ready again, with its subject. Raises Permanent when there is no such dead job."""
    kind = store.scalar(select(JobRow.kind).where(JobRow.id == job_id, JobRow.state == "dead"))
    if kind == "deliver":
        requeue_dead(store, job_id, lambda: now)
        return
    with store.write() as session:
        job = requeue(session, job_id, now)
        if kind == "detect" and not _has_result(session, job):
            row = session.get_one(AssignmentRow, int(job.payload["assignment_id"]))
            row.outcome, row.gate, row.finished_at, row.reason = None, None, None, "requeued by hand"
        elif kind == "route":
            routing_again(session, job)
        elif kind == REMOTE_JOB:
            ask_again(session, job, now)
        facts = forget_answers(session, job) if kind == COMMIT else {}
        if kind in {"detect", STATUS_JOB, REMOTE_JOB}:
            facts = subject(session, int(job.payload["assignment_id"]))
        append(session, Event.REQUEUED, {**facts, "job": job_id, "kind": job.kind, **actor()})


def _has_result(session: Session, job: Job) -> bool:
    """A ``detect`` job that died after its result was sent: only what may stand in for it is to be made."""
    return session.get_one(AssignmentRow, int(job.payload["assignment_id"])).outcome in ("findings", "no findings")
