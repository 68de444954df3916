"""The detect worker: a process of its own, with warm models. Its death hurts nobody else."""

from __future__ import annotations

import gc
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TypeVar

from dicomnode.config import Config
from dicomnode.detect.analyse import ANALYSED, VOLUME_GATE, Analysis, analyse, detect_all, load, timed, told
from dicomnode.detect.case import Case, read_case
from dicomnode.detect.leisure import at_leisure
from dicomnode.detect.outcome import give_up, store_objects, write_outcome, write_outdated, write_stand_ins
from dicomnode.detect.reader import Reader
from dicomnode.detect.together import Begun, Decoding, ready_group
from dicomnode.detect.volume_terms import LoadedVolume
from dicomnode.detect.warm import WarmDetectors
from dicomnode.detectors.contract import DetectionResult, LoadedDetector
from dicomnode.errors import DicomNodeError, LeaseLost, Permanent, Transient, place
from dicomnode.jobs import Heartbeat, Job, claim, hand_back, retry, run_until, take
from dicomnode.store.engine import Store
from dicomnode.store.spool import Spool
from dicomnode.store.stages import Took
from dicomnode.store.tables import AssignmentRow, JobRow

KINDS = ("detect",)
LEASE_S = 120.0
LIMIT_S = 1800.0
MAX_ATTEMPTS = 3
GRACE_S = 5.0
"""A node that is told to stop leaves the running analysis so long; it may be about to end."""
PLANES_AHEAD = 8
"""Calls of ``detect.batch_planes`` planes that one group may hold, so that its maps fit into memory."""
GARBAGE = (50_000, 20, 100)
"""How rarely Python looks for garbage in circles during an analysis (``gc.set_threshold``): a report has 100,000
objects that stay, and after each analysis all garbage goes."""
T = TypeVar("T")
_log = logging.getLogger(__name__)


class DetectWorker:
    """Claims ``detect`` jobs: one after the other on the CPU, several at once where the accelerator gains by it."""

    def __init__(
        self,
        store: Store,
        spool: Spool,
        config: Config,
        config_sha256: str,
        detectors: WarmDetectors,
        owner: str,
        clock: Callable[[], float] = time.time,
        reader: Reader | None = None,
    ) -> None:
        self._store, self._spool = store, spool
        self._config, self._config_sha256 = config, config_sha256
        self._detectors, self._owner, self._clock = detectors, owner, clock
        self._reader = reader or Reader(config.detect)
        self._at_once = config.detect.series_on(detectors.accelerator)
        self._held: tuple[Job, ...] = ()

    def run(
        self, stop: threading.Event, *, grace_s: float = GRACE_S, leave: Callable[[int], object] = os._exit
    ) -> None:
        """Work until ``stop`` is set. An analysis that goes on for ``grace_s`` after it is given back, undone.

        A detector cannot be stopped from inside, so the process ends by ``leave`` then, at once. What it held costs
        the job neither an attempt nor a crash.
        """
        idle = threading.Event()

        def watch() -> None:
            stop.wait()
            if not idle.wait(grace_s):
                self._give_back()
                leave(0)

        threading.Thread(target=watch, name="drain", daemon=True).start()
        self._reader.start()
        gc.collect()
        gc.freeze()  # what is there now stays: looking for garbage then costs little
        gc.set_threshold(*GARBAGE)
        run_until(stop, self.step, self._store)
        idle.set()

    def _give_back(self) -> None:
        for job in self._held:
            try:
                with self._store.write() as session:
                    hand_back(session, job, self._clock())
            except LeaseLost:
                continue  # it has just ended
            except Transient as error:
                _log.error("lease left to the supervisor", extra={"job": job.id, "error": str(error)})
                continue
            _log.info("given back, the node stops", extra={"job": job.id})

    def step(self) -> bool:
        """Do the work there is, one job or some together; returns whether there was any."""
        jobs = self._claim()
        self._held = tuple(jobs)
        limit = LIMIT_S * max(1, len(jobs))
        with ExitStack() as held:
            for job in jobs:
                held.enter_context(Heartbeat(self._store, job, self._clock, LEASE_S, limit))
            if len(jobs) > 1:
                self._together(jobs)
            elif jobs:
                self._alone(jobs[0])
        if jobs:
            gc.collect()  # Datasets lie in circles, and each holds the pixels of its Series until somebody looks
            self._reader.prepare()
        return bool(jobs)

    def _claim(self) -> list[Job]:
        """The most urgent job, and others to do with it. A job that has failed before is done alone: what it may
        break is not to cost its neighbours an attempt."""
        first = take(self._store, KINDS, self._owner, self._clock(), LEASE_S)
        jobs = [] if first is None else [first]
        while jobs and jobs[0].attempt == 1 and len(jobs) < self._at_once:
            with self._store.write() as session:
                more = claim(session, KINDS, self._owner, self._clock(), LEASE_S, JobRow.attempt == 0)
            if more is None:
                break
            jobs.append(more)
        return jobs

    def _alone(self, job: Job) -> None:
        begun = self._guarded(job, lambda: self._begun(job))
        if begun is not None:
            self._guarded(job, lambda: self._finish(begun, analyse(self._reader, *self._terms(begun))))

    def _together(self, jobs: Sequence[Job]) -> None:
        """Images are decoded side by side; Series of one detector and model that are decoded are analysed together."""
        begun = [one for job in jobs if (one := self._guarded(job, partial(self._begun, job))) is not None]
        with ThreadPoolExecutor(self._config.detect.decoders, "decode") as pool:
            waiting = [Decoding(one, pool.submit(timed, partial(load, self._reader, one.case))) for one in begun]
            while waiting:
                group = ready_group(waiting, self._config.detect.batch_planes * PLANES_AHEAD)
                waiting = [item for item in waiting if item not in group]
                self._group(group)

    def _group(self, group: Sequence[Decoding]) -> None:
        """Analyse a group; when the whole fails, each alone, so that a failure is told of the Series that made it."""
        decoded = [(item.begun, self._guarded(item.begun.job, item.decoded.result)) for item in group]
        loaded = [(one, answer[0], answer[1]) for one, answer in decoded if answer is not None]
        usable = [(one, volume, load_s) for one, volume, load_s in loaded if isinstance(volume, LoadedVolume)]
        results: list[DetectionResult] = []
        inference_s = 0.0
        try:
            if len(usable) > 1:
                volumes = [volume.volume for _, volume, _ in usable]
                results, inference_s = timed(partial(detect_all, usable[0][0].detector, volumes))
        except Exception as error:  # noqa: BLE001 - process edge: a detector may fail in any way; each is tried alone
            _log.warning("a group of series failed, each is analysed alone", extra={"error": _described(error)})
        for one, volume, load_s in loaded:
            if isinstance(volume, DetectionResult):
                analysis = Analysis(volume, one.version, gate=VOLUME_GATE, took=Took(load_s))
                self._guarded(one.job, partial(self._finish, one, analysis))
        for i, (one, volume, load_s) in enumerate(usable):
            answer = (results[i], inference_s) if results else None
            self._guarded(one.job, partial(self._tell, one, volume, answer, load_s))

    def _tell(
        self, begun: Begun, loaded: LoadedVolume, answer: tuple[DetectionResult, float] | None, load_s: float
    ) -> None:
        """``answer``: of the whole group, which took so many seconds; None: it failed, this one is tried alone."""
        result, inference_s = answer or timed(partial(begun.detector.detect, loaded.volume))
        self._finish(begun, replace(told(*self._terms(begun), loaded, result), took=Took(load_s, inference_s)))

    def _guarded(self, job: Job, work: Callable[[], T]) -> T | None:
        """What ``work`` answers, or None when the job has ended or failed."""
        try:
            return work()
        except LeaseLost:
            _log.warning("lease lost", extra={"job": job.id})
        except Permanent as error:
            self._failed(job, str(error), final=True)
        except Exception as error:  # noqa: BLE001 - process edge: an analysis may fail in any way, the job must end
            self._failed(job, _described(error), final=job.attempt >= MAX_ATTEMPTS)
        return None

    def _begun(self, job: Job) -> Begun | None:
        """The case with its detector; None when a newer generation made it idle."""
        case = self._begin(job)
        if case.outdated:
            write_outdated(self._store, job, case, self._clock())
            return None
        name = case.assignment.detector or ""
        detector, version = self._detectors.get(name, case.assignment.model), self._detectors.version_of(name)
        return Begun(job, case, detector, version, case.assignment.started_at or self._clock())

    def _terms(self, begun: Begun) -> tuple[Config, Case, LoadedDetector, str, float]:
        return self._config, begun.case, begun.detector, begun.version, begun.started_at

    def _finish(self, begun: Begun, analysis: Analysis) -> None:
        """The result first, on its way at once; then what may have to stand in for it, while it is being sent.

        The job lasts until both are there. A worker that takes it over in between finds the outcome written: it makes
        the stand-ins only.
        """
        job, case = begun.job, begun.case
        if case.assignment.outcome is None:
            self._write(begun, analysis)
            if analysis.result.outcome not in ANALYSED:
                return
        elif not _same(begun, analysis):
            raise Permanent("no stand-ins: the model gives another answer than when the result was made")
        stand_ins = at_leisure(partial(store_objects, self._spool, analysis.stand_ins))
        write_stand_ins(self._store, job, case, stand_ins, self._clock())

    def _write(self, begun: Begun, analysis: Analysis) -> None:
        stored, report_s = timed(partial(store_objects, self._spool, analysis.objects))
        analysis = replace(analysis, took=replace(analysis.took, report=report_s if stored else None))
        job, case, detector, now = begun.job, begun.case, begun.detector, self._clock()
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


def _same(begun: Begun, analysis: Analysis) -> bool:
    """Whether the analysis says what the Assignment says already."""
    row, model = begun.case.assignment, begun.detector.model
    return (row.outcome, row.weights_sha256) == (analysis.result.outcome.value, model.sha256)


def _described(error: Exception) -> str:
    """What failed and where; the text only of our own exceptions."""
    return str(error) if isinstance(error, DicomNodeError) else f"{type(error).__name__} at {place(error)}"
