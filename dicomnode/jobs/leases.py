"""Leases: who works on a job, and until when."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, literal_column, select, update
from sqlalchemy.orm import Session

from dicomnode.errors import LeaseLost
from dicomnode.store.tables import READY_SQL, URGENCY_SQL, JobRow

READY: ColumnElement[bool] = literal_column(READY_SQL)
"""Spelled out, as SQLite takes an index of ready jobs only for a condition that it can see."""
MAX_CRASHES = 3
MAX_INTERRUPTIONS = 50
FARTHEST_S = 2 * 86_400.0
"""No job is put off so far: one that is was put off by a clock that has been set back since."""


@dataclass(frozen=True, slots=True)
class Job:
    """A claimed job. ``token`` guards every later step; ``attempt`` counts from 1."""

    id: int
    kind: str
    dedup_key: str
    payload: dict[str, Any]
    attempt: int
    token: str


def waiting(session: Session, kinds: Collection[str], now: float) -> bool:
    """Is there a job to claim? A plain read, so that idle workers take no write lock."""
    query = select(JobRow.id).where(READY, JobRow.kind.in_(kinds), JobRow.not_before <= now).limit(1)
    return session.scalar(query) is not None


def claim(
    session: Session, kinds: Collection[str], owner: str, now: float, lease_s: float, *only: ColumnElement[bool]
) -> Job | None:
    """Take the most urgent ready job of ``kinds`` for ``lease_s`` seconds, or None. Needs a write transaction.

    The most urgent has the highest priority, one more for each ``tables.AGEING_S`` that it has waited; then the oldest.
    ``only``: further conditions on the JobRow.
    """
    found = [row for kind in kinds if (row := session.execute(_first(kind, now, *only)).first()) is not None]
    if not found:
        return None
    first = min(found, key=lambda row: (-row.urgency, row.id))
    values = {
        "state": "leased",
        "lease_owner": owner,
        "lease_until": now + lease_s,
        "lease_token": uuid.uuid4().hex,
        "attempt": JobRow.attempt + 1,
    }
    taken = update(JobRow).where(JobRow.id == first.id).values(**values).returning(JobRow)
    return _job(session.execute(taken).scalar_one())


def _first(kind: str, now: float, *only: ColumnElement[bool]) -> Select[int, float]:
    """The most urgent ready job of one kind. One question per kind, so that the index gives them in order."""
    urgency: ColumnElement[float] = literal_column(URGENCY_SQL)
    due: ColumnElement[float] = literal_column("+not_before")  # the plus keeps SQLite from sorting by another index
    ready = select(JobRow.id, urgency.label("urgency")).where(READY, JobRow.kind == kind, due <= now)
    return ready.where(*only).order_by(urgency.desc(), JobRow.id).limit(1)


def extend(session: Session, job: Job, now: float, lease_s: float) -> None:
    """Keep the lease for ``lease_s`` more seconds. Raises LeaseLost when it is no longer ours."""
    held = update(JobRow).where(JobRow.id == job.id, JobRow.lease_token == job.token, JobRow.state == "leased")
    if session.execute(held.values(lease_until=now + lease_s).returning(JobRow.id)).first() is None:
        raise LeaseLost(f"job {job.id}")


def expire(session: Session, now: float) -> list[Job]:
    """Give back every job whose lease ran out, as a crash; returns those that crashed too often and are dead now.

    A job that waits for a time that the clock will not see for days is ready now.
    """
    stranded = update(JobRow).where(JobRow.state == "ready", JobRow.not_before > now + FARTHEST_S)
    session.execute(stranded.values(not_before=now))
    late = select(JobRow).where(JobRow.state == "leased", JobRow.lease_until < now)
    return _give_back_all(session, late, now, crashed=True)


def release_owner(session: Session, owner: str, now: float, *, crashed: bool) -> list[Job]:
    """Give back what ``owner``, who is gone, held; returns those that are dead now.

    ``crashed``: the worker died at work. Otherwise the whole node went down, which is not the job's fault: neither
    the attempt nor a crash counts, only an interruption does.
    """
    held = select(JobRow).where(JobRow.state == "leased", JobRow.lease_owner == owner)
    return _give_back_all(session, held, now, crashed=crashed)


def _give_back_all(session: Session, query: Select[JobRow], now: float, *, crashed: bool) -> list[Job]:
    rows = session.scalars(query).all()
    return [job for row in rows if (job := _give_back(row, now, crashed=crashed)) is not None]


def _give_back(row: JobRow, now: float, *, crashed: bool) -> Job | None:
    if crashed:
        row.crashes += 1
    else:
        row.attempt -= 1
        row.interruptions += 1
    exhausted = row.crashes >= MAX_CRASHES or row.interruptions >= MAX_INTERRUPTIONS
    job = _job(row)
    row.lease_owner = row.lease_until = row.lease_token = None
    if not exhausted:
        row.state, row.not_before = "ready", now
        return None
    row.state, row.finished_at = "dead", now
    row.error = _exhausted(row)
    return job


def _exhausted(row: JobRow) -> str:
    """Why the job is dead, and after that what its last failed attempt said."""
    lost = f"the worker was lost {row.crashes} times" if row.crashes >= MAX_CRASHES else "interrupted too often"
    return f"{lost}; before that: {row.error}" if row.error else lost


def _job(row: JobRow) -> Job:
    return Job(row.id, row.kind, row.dedup_key, dict(row.payload), row.attempt, row.lease_token or "")
