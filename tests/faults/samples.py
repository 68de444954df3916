"""Memory, handles and threads of a node's processes, sampled while it works, and what trend they show."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import psutil


@dataclass(frozen=True, slots=True)
class Sample:
    """One process at one moment. ``progress``: instances or seconds so far; ``rss``: resident memory in bytes."""

    name: str
    pid: int
    progress: float
    rss: int
    handles: int
    threads: int


@dataclass(frozen=True, slots=True)
class Trend:
    """One process over a whole run. ``slope``: bytes of resident memory per step of progress, over the second half.

    ``least`` and ``most`` of handles and threads: over the second half.
    """

    name: str
    pid: int
    samples: int
    first_rss: int
    last_rss: int
    slope: float
    handles: tuple[int, int]
    threads: tuple[int, int]


def look(processes: Callable[[], list[psutil.Process]], progress: float) -> list[Sample]:
    """One sample of every process that is there; what a process is called is taken from its thread's name."""
    found = []
    for process in processes():
        with suppress(psutil.Error), process.oneshot():
            if process.status() != psutil.STATUS_ZOMBIE:
                memory, threads = process.memory_info().rss, process.num_threads()
                found.append(Sample(duty(process), process.pid, progress, memory, process.num_fds(), threads))
    return found


def duty(process: psutil.Process) -> str:
    """What a process of the node is, as far as its command line tells."""
    line = " ".join(process.cmdline())
    if "resource_tracker" in line:
        return "tracker"
    return "supervisor" if "serve" in line else "child"


def trends(samples: list[Sample], *, warm: float = 0.5) -> list[Trend]:
    """A Trend for each process with at least eight samples after the share ``warm`` of its own run."""
    found = []
    for pid in sorted({sample.pid for sample in samples}):
        own = [sample for sample in samples if sample.pid == pid]
        begin = own[0].progress + (own[-1].progress - own[0].progress) * warm
        late = [sample for sample in own if sample.progress >= begin]
        if len(late) < 8 or late[-1].progress <= late[0].progress:
            continue
        progress, memory = (np.array([getattr(s, key) for s in late], dtype=float) for key in ("progress", "rss"))
        slope = float(np.polyfit(progress - progress[0], memory, 1)[0])
        handles, threads = ([getattr(sample, key) for sample in late] for key in ("handles", "threads"))
        spans = (min(handles), max(handles)), (min(threads), max(threads))
        found.append(Trend(own[-1].name, pid, len(own), own[0].rss, own[-1].rss, slope, *spans))
    return found


@dataclass(slots=True)
class Sampler:
    """Looks at ``processes`` every ``every_s`` seconds until the block ends; ``progress`` says how far the work is."""

    processes: Callable[[], list[psutil.Process]]
    progress: Callable[[], float]
    every_s: float = 0.2
    samples: list[Sample] = field(default_factory=list)
    _stopped: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Sampler:
        self._thread = threading.Thread(target=self._run, daemon=True, name="sampler")
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(60)

    def _run(self) -> None:
        while not self._stopped.wait(self.every_s):
            with suppress(psutil.Error):
                self.samples += look(self.processes, self.progress())
