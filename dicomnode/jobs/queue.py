"""The life of a job between leases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.orm import Session

from dicomnode.errors import LeaseLost, Permanent
from dicomnode.jobs.leases import Job
from dicomnode.store.tables import JobRow


def enqueue(
    session: Session,
    kind: str,
    dedup_key: str,
    payload: Mapping[str, Any],
    now: float,
    *,
    priority: int = 0,
    not_before: float = 0.0,
) -> bool:
    """Add a job unless one with this kind and key exists; returns whether it was added."""
    values = {
        "kind": kind,
        "dedup_key": dedup_key,
        "payload": dict(payload),
        "state": "ready",
        "priority": priority,
        "not_before": not_before,
        "created_at": now,
        "attempt": 0,
        "crashes": 0,
        "interruptions": 0,
        "error": "",
    }
    statement = insert(JobRow).values(**values).on_conflict_do_nothing(index_elements=["kind", "dedup_key"])
    return session.execute(statement.returning(JobRow.id)).first() is not None


def finish(session: Session, job: Job, now: float) -> None:
    """The job is done; call it in the transaction that writes its results. Raises LeaseLost."""
    _leave(session, job, state="done", finished_at=now, error="")


def hold(session: Session, job: Job) -> None:
    """The job goes on after this transaction, which is for its holder alone to write. Raises LeaseLost."""
    held = select(JobRow.id).where(JobRow.id == job.id, JobRow.lease_token == job.token, JobRow.state == "leased")
    if session.scalar(held) is None:
        raise LeaseLost(f"job {job.id}")


def retry(session: Session, job: Job, reason: str, not_before: float) -> None:
    """The attempt failed; the job is ready again at ``not_before``. Raises LeaseLost."""
    _leave(session, job, state="ready", not_before=not_before, error=reason)


def hand_back(session: Session, job: Job, now: float) -> None:
    """The node goes down: the attempt never was, and counts neither as one nor as a crash. Raises LeaseLost."""
    _leave(session, job, state="ready", not_before=now, attempt=JobRow.attempt - 1)


def bury(session: Session, job: Job, reason: str, now: float) -> None:
    """Dead letter: no further attempt until an operator requeues it. Raises LeaseLost."""
    _leave(session, job, state="dead", finished_at=now, error=reason)


def requeue(session: Session, job_id: int, now: float) -> Job:
    """An operator gives a dead job a new life. Raises Permanent when there is no such dead job."""
    row = session.scalar(select(JobRow).where(JobRow.id == job_id, JobRow.state == "dead"))
    if row is None:
        raise Permanent(f"there is no dead job {job_id}")
    row.state, row.attempt, row.crashes, row.interruptions = "ready", 0, 0, 0
    row.not_before, row.finished_at = now, None
    return Job(row.id, row.kind, row.dedup_key, dict(row.payload), 0, "")


def wake(session: Session, kind: str, dedup_key: str, now: float) -> bool:
    """What a waiting job waits for has come: it is ready at ``now`` at the latest. Says whether one is alive.

    A leased job counts as alive and is left alone: its holder has to look again before it ends the attempt.
    """
    alive = update(JobRow).where(JobRow.kind == kind, JobRow.dedup_key == dedup_key)
    alive = alive.where(JobRow.state.in_(("ready", "leased")))
    values = {"not_before": func.min(JobRow.not_before, now)}
    return session.execute(alive.values(**values).returning(JobRow.id)).first() is not None


def renew(session: Session, kind: str, dedup_key: str, payload: Mapping[str, Any], now: float) -> bool:
    """Give a job that is done or dead a new life with ``payload``; returns whether there was one."""
    values = {"payload": dict(payload), "state": "ready", "not_before": now, "finished_at": None, "error": ""}
    fresh = {"attempt": 0, "crashes": 0, "interruptions": 0}
    ended = update(JobRow).where(JobRow.kind == kind, JobRow.dedup_key == dedup_key)
    ended = ended.where(JobRow.state.in_(("done", "dead")))
    return session.execute(ended.values(**values, **fresh).returning(JobRow.id)).first() is not None


def rouse(session: Session, kind: str, dedup_key: str, payload: Mapping[str, Any], now: float) -> bool:
    """``wake`` the job, or, when it has ended, ``renew`` it; returns whether there is one."""
    return wake(session, kind, dedup_key, now) or renew(session, kind, dedup_key, payload, now)


def _leave(session: Session, job: Job, **values: Any) -> None:
    held = update(JobRow).where(JobRow.id == job.id, JobRow.lease_token == job.token, JobRow.state == "leased")
    freed = {"lease_owner": None, "lease_until": None, "lease_token": None}
    if session.execute(held.values(**values, **freed).returning(JobRow.id)).first() is None:
        raise LeaseLost(f"job {job.id}")
