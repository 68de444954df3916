"""An operator gives a dead delivery a new life."""

from __future__ import annotations

import time
from collections.abc import Callable

from sqlalchemy import select
from sqlalchemy.orm import Session

from dicomnode.audit import append
from dicomnode.audit.actor import actor
from dicomnode.audit.events import Event
from dicomnode.deliver.ledger import HELD, subject
from dicomnode.deliver.outbox import KIND, deliveries
from dicomnode.errors import Permanent
from dicomnode.jobs import Job, requeue
from dicomnode.store.engine import Store
from dicomnode.store.tables import JobRow


def requeue_dead(store: Store, job_id: int, clock: Callable[[], float] = time.time) -> int:
    """Make dead ``deliver`` job ``job_id`` ready again, with its failed Instances, and audit it.

    Returns how many Instances wait again. Raises Permanent when there is no such dead delivery.
    """
    with store.write() as session:
        dead = select(JobRow.id).where(JobRow.id == job_id, JobRow.state == "dead", JobRow.kind == KIND)
        if session.scalar(dead) is None:
            raise Permanent(f"there is no dead delivery {job_id}")
        job = requeue(session, job_id, clock())
        count = requeue_delivery(session, job)
        facts = subject(session, int(job.payload["assignment_id"]))
        peer = str(job.payload["destination"])
        facts |= {"job": job_id, "kind": KIND, "peer": peer, "instances": count}
        append(session, Event.REQUEUED, {**facts, **actor()})
    return count


def requeue_delivery(session: Session, job: Job) -> int:
    """The Instances of a requeued ``deliver`` job wait again, and its age counts from now; returns how many.

    Those that others replaced too: a Destination that was mended gets the real ones.
    For the caller's write transaction, after ``jobs.requeue``.
    """
    count = 0
    for row in session.scalars(deliveries(int(job.payload["assignment_id"]), str(job.payload["destination"]))):
        if row.state in {"failed", "replaced", HELD}:
            row.state, row.status, row.attempts = "waiting", None, 0
        count += row.state == "waiting"
    job_row = session.get_one(JobRow, job.id)
    job_row.payload = {**job_row.payload, "waiting_since": job_row.not_before}
    return count
