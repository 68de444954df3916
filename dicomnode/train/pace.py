"""Fit a method within a time: a slow one gets fewer steps, one that takes no steps is stopped."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType

from dicomnode.detectors.methods.contract import Material, Method, Run
from dicomnode.detectors.methods.fitting import CHECK_EVERY
from dicomnode.errors import ConfigError, DicomNodeError

LEAST_STEPS = 10
_MARGIN = 0.8
_GRACE = 1.5
_SILENT = 3.0
"""A method that does not tell its pace may take so many times the limit before it is stopped."""


class OutOfTime(DicomNodeError):
    """A method would take, or has taken, longer than it may."""


class _Pace:
    """Progress that foresees the end of a fit and stops one that would come too late."""

    def __init__(self, limit: float, steps: int) -> None:
        self.limit, self.steps, self.advised = limit, steps, 0
        self._began: tuple[float, float] | None = None

    def __call__(self, name: str, share: float) -> None:  # noqa: ARG002 - the seam of Progress
        now = time.perf_counter()
        if self._began is None or share <= self._began[1]:
            self._began = (now, share)
            self.advised = self.advised or min(self.steps, int(CHECK_EVERY * _MARGIN / _SILENT))
            return
        done = share - self._began[1]
        whole = (now - self._began[0]) / done * (1.0 - self._began[1])
        self.advised = int(self.steps * min(1.0, _MARGIN * self.limit / whole))
        if whole > self.limit:
            raise OutOfTime


def fit_within(
    make: Callable[[], Method], material: Material, run: Run, steps: int, limit: float | None
) -> tuple[Method, int]:
    """Fit a method from ``make`` in about ``limit`` seconds; answers it and the optimiser steps it was allowed.

    A fit whose pace foretells more is begun again with as many steps as fit in. Raises ConfigError when even that
    is not enough, or when the method does not tell its progress.
    """
    if limit is None:
        return _fitted(make(), material, replace(run, steps=steps)), steps
    pace = _Pace(limit, steps)
    try:
        with time_limit(_SILENT * limit):
            return _fitted(make(), material, replace(run, steps=steps, progress=pace)), steps
    except OutOfTime:
        if pace.advised < LEAST_STEPS:
            raise ConfigError(f"stopped: it needs more than {_SILENT * limit:g} s") from None
    try:
        with time_limit(_GRACE * limit):
            return _fitted(make(), material, replace(run, steps=pace.advised)), pace.advised
    except OutOfTime:
        raise ConfigError(f"stopped: {pace.advised} steps need more than {_GRACE * limit:g} s") from None


def _fitted(method: Method, material: Material, run: Run) -> Method:
    method.fit(material, run)
    return method


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raise OutOfTime inside the block after ``seconds``; without effect outside the main thread (signals)."""
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(_: int, __: FrameType | None) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
