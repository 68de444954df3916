"""What a receiver costs: memory, processor time, descriptors and threads of a process and all its children."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass
from pathlib import Path

import psutil

SAMPLE_S = 0.2


@dataclass(frozen=True, slots=True)
class Vitals:
    """A process tree now. ``pids``: its processes; memory in bytes, pages that several share counted once (PSS)."""

    pids: frozenset[int]
    memory: int
    descriptors: int
    threads: int


def vitals(pid: int) -> Vitals:
    """Look at the process ``pid`` and its children."""
    pids, memory, descriptors, threads = set(), 0, 0, 0
    for process in _tree(pid):
        with contextlib.suppress(psutil.Error, OSError):
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            memory += _pss(process.pid)
            descriptors += process.num_fds()
            threads += process.num_threads()
            pids.add(process.pid)
    return Vitals(frozenset(pids), memory, descriptors, threads)


def cpu_seconds(pid: int) -> float:
    """Processor time, user and system, of the process, its children and those children that have ended."""
    total = 0.0
    for process in _tree(pid):
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


class Watch:
    """While entered, samples the memory of a process tree. ``before``, ``peak``: bytes (PSS); ``cpu``: seconds."""

    def __init__(self, pid: int) -> None:
        self._pid, self.before, self.peak, self.cpu = pid, 0, 0, 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watch:
        self.before = self.peak = memory(self._pid)
        self.cpu = cpu_seconds(self._pid)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self.cpu = cpu_seconds(self._pid) - self.cpu
        self.peak = max(self.peak, memory(self._pid))

    def _watch(self) -> None:
        while not self._done.wait(SAMPLE_S):
            self.peak = max(self.peak, memory(self._pid))


def memory(pid: int) -> int:
    """Memory of a process tree in bytes, pages that its processes share counted once."""
    total = 0
    for process in _tree(pid):
        with contextlib.suppress(OSError):
            total += _pss(process.pid)
    return total


def _tree(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _pss(pid: int) -> int:
    """Proportional set size; a process that has ended counts nothing (proc(5), smaps_rollup)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0
