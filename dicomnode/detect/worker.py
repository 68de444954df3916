"""The detect worker: a process of its own, with warm models. Its death hurts nobody else."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from dicomnode.config import Config
from dicomnode.detect.analyse import analyse
from dicomnode.detect.case import Case, read_case
from dicomnode.detect.outcome import give_up, store_objects, write_outcome, write_outdated
from dicomnode.detect.warm import WarmDetectors
from dicomnode.errors import DicomNodeError, LeaseLost, Permanent, place
from dicomnode.jobs import Heartbeat, Job, retry, run_until, take
from dicomnode.store.engine import Store
from dicomnode.store.spool import Spool
from dicomnode.store.tables import AssignmentRow

KINDS = ("detect",)
LEASE_S = 120.0
LIMIT_S = 1800.0
MAX_ATTEMPTS = 3
_log = logging.getLogger(__name__)


class DetectWorker:
    """Claims ``detect`` jobs one after the other."""

    def __init__(
        self,
        store: Store,
        spool: Spool,
        config: Config,
        config_sha256: str,
        detectors: WarmDetectors,
        owner: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._spool = store, spool
        self._config, self._config_sha256 = config, config_sha256
        self._detectors, self._owner, self._clock = detectors, owner, clock

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set; the running analysis is finished first."""
        run_until(stop, self.step)

    def step(self) -> bool:
        """Do one job if there is one; returns whether there was."""
        job = take(self._store, KINDS, self._owner, self._clock(), LEASE_S)
        if job is None:
            return False
        with Heartbeat(self._store, job, self._clock, LEASE_S, LIMIT_S):
            self._guarded(job)
        return True

    def _guarded(self, job: Job) -> None:
        try:
            self._do(job)
        except LeaseLost:
            _log.warning("lease lost", extra={"job": job.id})
        except Permanent as error:
            self._failed(job, str(error), final=True)
        except Exception as error:  # noqa: BLE001 - process edge: an analysis may fail in any way, the job must end
            self._failed(job, _described(error), final=job.attempt >= MAX_ATTEMPTS)

    def _do(self, job: Job) -> None:
        case = self._begin(job)
        if case.outdated:
            write_outdated(self._store, job, case, self._clock())
            return
        name = case.assignment.detector or ""
        detector, version = self._detectors.get(name, case.assignment.model), self._detectors.version_of(name)
        analysis = analyse(self._config, case, detector, version, case.assignment.started_at or self._clock())
        stored = store_objects(self._spool, analysis.objects)
        now = self._clock()
        write_outcome(self._store, self._config, self._config_sha256, job, case, detector, analysis, stored, now)
        _log.info("analysed", extra={"assignment": case.assignment.id, "outcome": analysis.result.outcome.value})

    def _begin(self, job: Job) -> Case:
        """Read the case; the first attempt's start is kept for all attempts."""
        with self._store.write() as session:
            row = session.get(AssignmentRow, int(job.payload["assignment_id"]))
            if row is not None and row.started_at is None:
                row.started_at = self._clock()
                session.flush()
            return read_case(session, self._spool, int(job.payload["assignment_id"]))

    def _failed(self, job: Job, reason: str, *, final: bool) -> None:
        now = self._clock()
        _log.error("analysis failed", extra={"job": job.id, "attempt": job.attempt, "error": reason})
        try:
            if final:
                give_up(self._store, self._spool, self._config, job, reason, now)
                return
            with self._store.write() as session:
                retry(session, job, reason, now + 2.0**job.attempt)
        except LeaseLost:
            _log.warning("lease lost", extra={"job": job.id})


def _described(error: Exception) -> str:
    """What failed and where; the text only of our own exceptions."""
    return str(error) if isinstance(error, DicomNodeError) else f"{type(error).__name__} at {place(error)}"
