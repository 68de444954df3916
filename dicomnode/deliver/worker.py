"""Sends results: claims ``deliver`` jobs, several Destinations at a time, each by its channel."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Any

from dicomnode.config import Config, Destination, Peer
from dicomnode.deid.leaving import Gate
from dicomnode.deliver.association import SendLimits
from dicomnode.deliver.back_off import BackOff, Lanes
from dicomnode.deliver.channels import send_to
from dicomnode.deliver.disguise import disguised
from dicomnode.deliver.leaving import outgoing
from dicomnode.deliver.ledger import Attempt, Result, bury_malformed, settle
from dicomnode.deliver.outbox import KIND, Consignment, Parcel, load, next_job, outbound
from dicomnode.deliver.sending import OutboundFile, SentStatus
from dicomnode.dicom.status import Disposition
from dicomnode.errors import LeaseLost, Permanent, Transient, place
from dicomnode.jobs import Heartbeat, Job, claim, waiting
from dicomnode.store.changes import Changes
from dicomnode.store.engine import Store
from dicomnode.store.spool import Spool
from dicomnode.store.tables import JobRow

IDLE_S = 0.5
LEASE_S = 120.0
PARALLEL = 4

_log = logging.getLogger(__name__)


class Deliverer:
    """Sends what waits in the database to its Destinations until each Instance is stored or given up visibly."""

    def __init__(
        self,
        config: Config,
        store: Store,
        spool: Spool,
        owner: str,
        clock: Callable[[], float] = time.time,
        *,
        back_off: BackOff = BackOff(),  # noqa: B008 - frozen
        limits: SendLimits = SendLimits(),  # noqa: B008 - frozen
        parallel: int = PARALLEL,
        lease_s: float = LEASE_S,
        gate: Gate | None = None,
    ) -> None:
        """``gate``: what is sent to a peer with ``deid`` goes through it; without one, such a peer gets nothing."""
        self._config, self._store, self._spool, self._gate = config, store, spool, gate
        self._owner, self._clock = owner, clock
        self._back_off, self._limits, self._parallel, self._lease_s = back_off, limits, parallel, lease_s
        self._lanes = Lanes(back_off)

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set, on up to ``parallel`` Destinations at once; the running C-STOREs end first."""
        free, changes = threading.Semaphore(self._parallel), Changes(self._store)

        def done(_: object) -> None:
            free.release()
            changes.poke()

        with closing(changes), ThreadPoolExecutor(self._parallel, thread_name_prefix="deliver") as pool:
            while not stop.is_set():
                if not free.acquire(timeout=IDLE_S):
                    continue
                changes.look()
                claimed = self._claim_or_none()
                if claimed is None:
                    free.release()
                    changes.wait(stop, IDLE_S)
                else:
                    pool.submit(self._work, *claimed, stop).add_done_callback(done)

    def step(self) -> bool:
        """Do one job if there is one to do now; returns whether there was."""
        claimed = self._claim()
        if claimed is None:
            return False
        self._work(*claimed, threading.Event())
        return True

    def _claim_or_none(self) -> tuple[Job, str] | None:
        try:
            return self._claim()
        except Transient as error:
            _log.warning("database not available", extra={"error": str(error)})
            return None

    def _claim(self) -> tuple[Job, str] | None:
        now = self._clock()
        closed = self._lanes.closed(now)
        with self._store.read() as session:
            if not waiting(session, (KIND,), now) or next_job(session, closed, now) is None:
                return None
        with self._store.write() as session:
            found = next_job(session, closed, now)
            if found is None:
                return None
            job = claim(session, (KIND,), self._owner, now, self._lease_s, JobRow.id == found[0])
        if job is None:
            return None
        self._lanes.enter(found[1])
        return job, found[1]

    def _work(self, job: Job, destination: str, stop: threading.Event) -> None:
        try:
            self._deliver(job, stop)
        except LeaseLost:
            _log.warning("lease lost", extra={"job": job.id})
        except Permanent as error:
            self._bury_malformed(job, str(error))
        except Transient as error:
            self._try_later(job, str(error))
        except Exception as error:  # noqa: BLE001 - process edge: whatever befalls one job, the others must go on
            reason = f"internal error: {type(error).__name__} at {place(error)}"
            _log.error("delivery failed", extra={"job": job.id, "error": reason})
            self._try_later(job, reason)
        finally:
            self._lanes.leave(destination)

    def _deliver(self, job: Job, stop: threading.Event) -> None:
        with self._store.read() as session:
            consignment = load(session, job)
        peer = self._config.peer_named(consignment.destination)
        if peer is None:
            attempt = _all(
                consignment, Disposition.PERMANENT, f"no peer named {consignment.destination!r} is configured"
            )
        else:
            with Heartbeat(self._store, job, self._clock, self._lease_s) as heart:
                attempt = self._send(consignment, peer, stop, heart)
        self._settle(attempt)

    def _settle(self, attempt: Attempt) -> None:
        now, destination = self._clock(), attempt.consignment.destination
        if attempt.reached:
            self._lanes.reached(destination)
        elif attempt.passing:
            self._lanes.failed(destination, now, attempt.retry_after_s)
        ending = settle(self._store, attempt, self._back_off, now)
        accepted = sum(result.accepted for result in attempt.results)
        facts = {"job": attempt.consignment.job.id, "peer": destination, "ending": ending}
        _log.log(
            logging.INFO if ending == "done" else logging.WARNING,
            "delivery attempted",
            extra={**facts, "accepted": accepted, "tried": len(attempt.results), "error": attempt.reason},
        )

    def _send(self, consignment: Consignment, peer: Destination, stop: threading.Event, heart: Heartbeat) -> Attempt:
        with ExitStack() as held:
            files, results = self._files(consignment)
            facts: Mapping[str, Any] = {}
            if peer.deid is not None:
                folder = held.enter_context(outgoing(self._spool))
                files, kept, facts = disguised(self._gate, peer.deid, files, folder)
                results += kept
            by_path = {file.path: parcel for parcel, file in files}
            answers = send_to(peer, self._config.node.ae_title, [file for _, file in files], self._limits)
            for sent in held.enter_context(closing(answers)) if files else ():
                parcel = by_path[sent.file.path]
                results.append(_result(parcel, sent))
                if heart.lost.is_set():
                    raise LeaseLost(f"job {consignment.job.id}")
                if stop.is_set():
                    break
        stopped = len(results) < len(consignment.parcels)
        commit = isinstance(peer, Peer) and peer.commit
        return Attempt(consignment, tuple(results), stopped, commit=commit, deid=facts)

    def _files(self, consignment: Consignment) -> tuple[list[tuple[Parcel, OutboundFile]], list[Result]]:
        """The files to send, and a failure for each Parcel that has none."""
        files: list[tuple[Parcel, OutboundFile]] = []
        failures: list[Result] = []
        for parcel in consignment.parcels:
            try:
                files.append((parcel, outbound(self._spool, parcel)))
            except Permanent as error:
                failures.append(Result(parcel, Disposition.PERMANENT, None, str(error), tried=False))
        return files, failures

    def _try_later(self, job: Job, reason: str) -> None:
        """The fault was on our side, before or after the sending."""
        try:
            with self._store.read() as session:
                consignment = load(session, job)
            attempt = _all(consignment, Disposition.TRANSIENT, reason)
            settle(self._store, attempt, self._back_off, self._clock())
        except (LeaseLost, Transient) as error:
            _log.warning("job left to its lease", extra={"job": job.id, "error": str(error)})

    def _bury_malformed(self, job: Job, reason: str) -> None:
        try:
            bury_malformed(self._store, job, reason, self._clock())
        except (LeaseLost, Transient) as error:
            _log.warning("job left to its lease", extra={"job": job.id, "error": str(error)})


def _result(parcel: Parcel, sent: SentStatus) -> Result:
    facts = (sent.disposition, sent.status, sent.reason, sent.tried, sent.refused, sent.retry_after_s)
    return Result(parcel, *facts)


def _all(consignment: Consignment, disposition: Disposition, reason: str) -> Attempt:
    """The attempt that ended for every Parcel alike, before a C-STORE."""
    results = (Result(parcel, disposition, None, reason, tried=False) for parcel in consignment.parcels)
    return Attempt(consignment, tuple(results))
