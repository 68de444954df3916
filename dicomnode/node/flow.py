"""The light work around detection: ``count`` and ``route`` jobs before it, ``status`` jobs where it had no result,
``retention`` jobs long after it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

from dicomnode.assemble import count_at_sender
from dicomnode.audit import append
from dicomnode.audit.events import Event
from dicomnode.config import Config
from dicomnode.detect.reader import Reader
from dicomnode.detect.status import send_status
from dicomnode.detect.status_job import STATUS_JOB
from dicomnode.detectors.contract import Detector
from dicomnode.errors import DicomNodeError, LeaseLost, Permanent, place
from dicomnode.jobs import Job, bury, retry, run_until, take
from dicomnode.node.retention import RETENTION_JOB, keep_space
from dicomnode.node.unrouted import subject_of
from dicomnode.route import route_series
from dicomnode.store.engine import Store
from dicomnode.store.spool import Spool

KINDS = ("count", "route", STATUS_JOB, RETENTION_JOB)
LEASE_S = 60.0
MAX_ATTEMPTS = 5
_log = logging.getLogger(__name__)


class FlowWorker:
    """Claims ``count``, ``route``, ``status`` and ``retention`` jobs one after the other."""

    def __init__(
        self,
        store: Store,
        spool: Spool,
        config: Config,
        detectors: Mapping[str, Detector],
        owner: str,
        clock: Callable[[], float] = time.time,
        reader: Reader | None = None,
    ) -> None:
        self._store, self._spool, self._config = store, spool, config
        self._reader = reader or Reader(config.detect)
        self._detectors, self._owner, self._clock = detectors, owner, clock

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set."""
        run_until(stop, self.step, self._store)

    def step(self) -> bool:
        """Do one job if there is one; returns whether there was."""
        job = take(self._store, KINDS, self._owner, self._clock(), LEASE_S)
        if job is None:
            return False
        try:
            self._do(job)
        except LeaseLost:
            _log.warning("lease lost", extra={"job": job.id})
        except DicomNodeError as error:
            self._failed(job, str(error), final=isinstance(error, Permanent))
        except Exception as error:  # noqa: BLE001 - process edge: whatever a plugin or a peer does, the job must end
            self._failed(job, f"{type(error).__name__} at {place(error)}", final=False)
        return True

    def _do(self, job: Job) -> None:
        if job.kind == "route":
            route_series(self._store, self._config, self._detectors, job, self._clock())
        elif job.kind == STATUS_JOB:
            send_status(self._store, self._spool, self._config, self._detectors, self._reader, job, self._clock())
        elif job.kind == RETENTION_JOB:
            keep_space(self._store, self._spool, self._config, job, self._clock)
        else:
            count_at_sender(self._store, self._config, job, clock=self._clock)

    def _failed(self, job: Job, reason: str, *, final: bool) -> None:
        _log.error("job failed", extra={"job": job.id, "kind": job.kind, "attempt": job.attempt, "error": reason})
        now = self._clock()
        try:
            with self._store.write() as session:
                if final or job.attempt >= MAX_ATTEMPTS:
                    bury(session, job, reason, now)
                    facts = subject_of(session, job, reason, now)
                    append(session, Event.DEAD_LETTER, {**facts, "job": job.id, "kind": job.kind, "reason": reason})
                else:
                    retry(session, job, reason, now + 2.0**job.attempt)
        except LeaseLost:
            _log.warning("lease lost", extra={"job": job.id})
