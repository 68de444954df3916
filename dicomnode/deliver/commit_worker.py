"""Asks Destinations for storage commitment: claims ``commit`` jobs, one Association for each."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from dicomnode.audit import append
from dicomnode.audit.events import Event
from dicomnode.config import Config, Peer
from dicomnode.deliver.association import NothingAccepted, SendLimits
from dicomnode.deliver.back_off import BackOff, Lanes
from dicomnode.deliver.commit_ledger import (
    Errand,
    Question,
    end_attempt,
    errand,
    give_up,
    next_question,
    nobody_asks,
    put_off,
)
from dicomnode.deliver.commit_scu import LINGER_S, Ear, request_commitment
from dicomnode.dicom.commitment import EventStatus, read_report
from dicomnode.errors import LeaseLost, Permanent, Refusal, Transient, place
from dicomnode.jobs import Heartbeat, Job, claim, rouse, run_until
from dicomnode.store.commitments import COMMIT, job_of, take_report
from dicomnode.store.engine import Store
from dicomnode.store.tables import CommitmentRow, JobRow

LEASE_S = 120.0
_DESTINATION = func.coalesce(func.json_extract(JobRow.payload, "$.destination"), "")
_log = logging.getLogger(__name__)


class CommitWorker:
    """Asks until the Destinations have taken responsibility for every result, or it is given up visibly."""

    def __init__(
        self,
        config: Config,
        store: Store,
        owner: str,
        clock: Callable[[], float] = time.time,
        *,
        back_off: BackOff = BackOff(),  # noqa: B008 - frozen
        limits: SendLimits = SendLimits(),  # noqa: B008 - frozen
        linger_s: float = LINGER_S,
        lease_s: float = LEASE_S,
    ) -> None:
        self._config, self._store, self._owner, self._clock = config, store, owner, clock
        self._back_off, self._limits, self._linger_s, self._lease_s = back_off, limits, linger_s, lease_s
        self._lanes = Lanes(back_off)

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set."""
        run_until(stop, self.step, self._store)

    def step(self) -> bool:
        """Do one job if there is one to do now; returns whether there was. Raises Transient."""
        job = self._claim()
        if job is None:
            return False
        self._work(job)
        return True

    def _claim(self) -> Job | None:
        now = self._clock()
        closed = self._lanes.closed(now)
        with self._store.read() as session:
            if _next_job(session, closed, now) is None:
                return None
        with self._store.write() as session:
            job_id = _next_job(session, closed, now)
            return claim(session, (COMMIT,), self._owner, now, self._lease_s, JobRow.id == job_id)

    def _work(self, job: Job) -> None:
        try:
            self._commit(job)
        except LeaseLost:
            _log.warning("lease lost", extra={"job": job.id})
        except Permanent as error:
            self._give_up(job, str(error))
        except Transient as error:
            self._put_off(job, str(error))
        except Exception as error:  # noqa: BLE001 - process edge: whatever befalls one job, the others must go on
            reason = f"internal error: {type(error).__name__} at {place(error)}"
            _log.error("commitment failed", extra={"job": job.id, "error": reason})
            self._put_off(job, reason)

    def _commit(self, job: Job) -> None:
        wanted = errand(self._store, job)
        peer = self._config.peer_named(wanted.destination)
        if peer is None:
            raise Permanent(f"no peer named {wanted.destination!r} is configured")
        if not (isinstance(peer, Peer) and peer.commit):
            nobody_asks(self._store, wanted, self._clock())
            return
        question = next_question(self._store, wanted, self._back_off, self._clock(), self._lease_s)
        if question is not None:
            with Heartbeat(self._store, job, self._clock, self._lease_s):
                status, fault = self._ask(peer, question)
            self._end_attempt(wanted, question, status, fault)

    def _ask(self, peer: Peer, question: Question) -> tuple[int | None, str]:
        """(N-ACTION status, why there is none)."""
        ear = Ear(lambda event: self._hear(peer, event), lambda: self._is_answered(question))
        calling = self._config.node.ae_title
        transaction, instances = question.TransactionUID, question.instances
        try:
            status = request_commitment(peer, calling, transaction, instances, ear, self._limits, self._linger_s)
        except NothingAccepted:
            return None, "the peer does not accept Storage Commitment Push Model"
        except Transient as error:
            return None, str(error)
        return status, "" if status is not None else "no response to the storage commitment request"

    def _end_attempt(self, wanted: Errand, question: Question, status: int | None, fault: str) -> None:
        now = self._clock()
        taken = end_attempt(self._store, wanted, question, status, fault, self._back_off, now)
        if taken:
            self._lanes.reached(wanted.destination)
        else:
            self._lanes.failed(wanted.destination, now)
        facts = {"job": wanted.job.id, "peer": wanted.destination, "asked": len(question.instances)}
        _log.log(logging.INFO if taken else logging.WARNING, "commitment requested", extra={**facts, "error": fault})

    def _hear(self, peer: Peer, event: Any) -> int:
        """A report on the requesting Association: durable before it is answered."""
        try:
            report = read_report(event)
            with self._store.write() as session:
                row = take_report(session, report, lambda destination: destination == peer.name, self._clock())
                if row.state == "answered":
                    rouse(session, COMMIT, *job_of(row), self._clock())
        except Refusal as refusal:
            self._alert(peer, str(refusal), refusal.status)
            return refusal.status
        except Transient as error:
            _log.warning("report not taken", extra={"peer": peer.name, "error": str(error)})
            return EventStatus.RESOURCE_LIMITATION
        return EventStatus.SUCCESS

    def _is_answered(self, question: Question) -> bool:
        state = select(CommitmentRow.state).where(CommitmentRow.TransactionUID == question.TransactionUID)
        try:
            return bool(self._store.scalar(state) != "requested")
        except Transient:
            return False

    def _alert(self, peer: Peer, reason: str, status: int) -> None:
        _log.warning("report refused", extra={"peer": peer.name, "reason": reason})
        body = {"reason": reason, "peer": peer.name, "CallingAETitle": peer.ae_title, "status": f"0x{status:04X}"}
        try:
            with self._store.write() as session:
                append(session, Event.SECURITY_ALERT, body)
        except Transient as error:
            _log.error("not audited", extra={"error": str(error)})

    def _give_up(self, job: Job, reason: str) -> None:
        self._end(job, lambda: give_up(self._store, job, reason, self._clock()))

    def _put_off(self, job: Job, reason: str) -> None:
        self._end(job, lambda: put_off(self._store, job, reason, self._back_off, self._clock()))

    def _end(self, job: Job, end: Callable[[], None]) -> None:
        try:
            end()
        except (LeaseLost, Transient) as error:
            _log.warning("job left to its lease", extra={"job": job.id, "error": str(error)})


def _next_job(session: Session, closed: frozenset[str], now: float) -> int | None:
    query = select(JobRow.id).where(JobRow.kind == COMMIT, JobRow.state == "ready", JobRow.not_before <= now)
    query = query.where(_DESTINATION.not_in(closed)).order_by(JobRow.priority.desc(), JobRow.attempt, JobRow.id)
    return session.scalar(query.limit(1))
