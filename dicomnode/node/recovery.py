"""What a start finds: processes of an earlier run that did not stop, and the leases they still hold."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable

from sqlalchemy import select
from sqlalchemy.orm import Session

from dicomnode.audit import append
from dicomnode.audit.events import Event
from dicomnode.config import Config
from dicomnode.deid.errands import REMOTE_JOB
from dicomnode.deliver.outbox import KIND as DELIVERY
from dicomnode.deliver.outbox import deliveries
from dicomnode.detect.outcome import write_failure
from dicomnode.detectors.contract import Outcome
from dicomnode.jobs import Job, release_owner
from dicomnode.node.remote import end
from dicomnode.node.unrouted import subject_of
from dicomnode.store.engine import Store
from dicomnode.store.processes import runs
from dicomnode.store.spool import Spool
from dicomnode.store.tables import JobRow, ProcessRow

_log = logging.getLogger(__name__)


def recover(store: Store, spool: Spool, config: Config, roles: Collection[str], now: float) -> int:
    """Free what earlier processes of ``roles`` held; returns how many of them had not stopped.

    The caller holds the locks of ``roles``, so none of those processes can be alive.
    """
    with store.write() as session:
        query = select(ProcessRow).where(ProcessRow.role.in_(roles), ProcessRow.stopped_at.is_(None))
        gone = session.scalars(query).all()
        for row in gone:
            row.stopped_at = now
            record_dead(session, spool, config, release_owner(session, row.owner, now, crashed=False), now)
        if gone:
            append(session, Event.NODE_RECOVERED, {"processes": [row.owner for row in gone]})
        return len(gone)


def child_started(store: Store, owner: str, role: str, pid: int, now: float, *, replaces: str = "") -> None:
    """Record a process of the node, and that it ``replaces`` one that crashed."""
    with store.write() as session:
        session.add(ProcessRow(owner=owner, role=role, pid=pid, started_at=now, heartbeat_at=now))
        crashed = session.get(ProcessRow, replaces)
        if crashed is not None:
            crashed.stopped_at = now


def child_stopped(store: Store, spool: Spool, config: Config, owner: str, now: float, *, crashed: bool) -> None:
    """Record the end of a process and free what it held.

    A process that ``crashed`` is shown as silent until its replacement has started.
    """
    with store.write() as session:
        row = session.get(ProcessRow, owner)
        if row is not None and crashed:
            row.heartbeat_at = 0.0
        elif row is not None:
            row.stopped_at = now
        record_dead(session, spool, config, release_owner(session, owner, now, crashed=crashed), now)


def record_dead(session: Session, spool: Spool, config: Config, dead: Iterable[Job], now: float) -> None:
    """Jobs that ran out of lives: their subjects have failed, visibly."""
    for job in dead:
        reason = session.scalar(select(JobRow.error).where(JobRow.id == job.id)) or "the worker was lost"
        _log.error("job given up", extra={"job": job.id, "kind": job.kind, "error": reason})
        if job.kind == "detect":
            write_failure(session, spool, config, job, reason, now)
            continue
        if job.kind == DELIVERY:
            _fail_deliveries(session, job)
        if job.kind == REMOTE_JOB:
            end(session, config, job, Outcome.FAILED, reason, now)
        facts = subject_of(session, job, reason, now)
        append(session, Event.DEAD_LETTER, {**facts, "job": job.id, "kind": job.kind, "reason": reason})


def beat(store: Store, now: float) -> None:
    """This node's processes are alive."""
    with store.write() as session:
        query = select(ProcessRow).where(ProcessRow.stopped_at.is_(None), ProcessRow.heartbeat_at > 0)
        for row in session.scalars(query):
            if runs(row.pid):
                row.heartbeat_at = now


def _fail_deliveries(session: Session, job: Job) -> None:
    for row in session.scalars(deliveries(int(job.payload["assignment_id"]), str(job.payload["destination"]))):
        if row.state == "waiting":
            row.state = "failed"
