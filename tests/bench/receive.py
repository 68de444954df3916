"""Reception: the same Instances to each receiver, one after the other, in rounds."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil

from dicomnode.config import Peer
from dicomnode.deliver.send import send_paths
from tests.bench.objects import write_objects
from tests.bench.receivers import NO_NAGLE, Receiver, receivers

CALLING = "SCANNER"
SAMPLE_S = 0.1


@dataclass(frozen=True, slots=True)
class Run:
    """One receiver in one round. ``rss_bytes``: peak of its processes together."""

    receiver: str
    associations: int
    round: int
    instances: int
    size_bytes: int
    seconds: float
    rss_bytes: int

    @property
    def rate(self) -> float:
        """Instances per second."""
        return self.instances / self.seconds


@dataclass(frozen=True, slots=True)
class Reception:
    """Everything measured, who took part in which version and setting, and who was missing."""

    sender: str
    instances: int
    rounds: int
    associations: tuple[int, ...]
    receivers: dict[str, dict[str, str]]
    missing: tuple[str, ...]
    runs: tuple[Run, ...]

    def of(self, receiver: str, associations: int) -> list[Run]:
        """The runs of one receiver, by round."""
        return [run for run in self.runs if (run.receiver, run.associations) == (receiver, associations)]

    def ratio(self, receiver: str, associations: int) -> float:
        """Median over the rounds of our rate by the rate of ``receiver`` in the same round."""
        ours, theirs = self.of("dicomnode", associations), self.of(receiver, associations)
        return median(mine.rate / other.rate for mine, other in zip(ours, theirs, strict=True))


def measure_reception(
    work: Path,
    instances: int,
    rounds: int,
    associations: Sequence[int],
    progress: Callable[[], None],
) -> Reception:
    """Send to every receiver; ``progress`` is called after each run.

    Each round has Instances of its own, and the order of the receivers rotates. Raises RuntimeError when a receiver
    does not hold afterwards what was sent.
    """
    found, missing = receivers(work / "receivers")
    runs: list[Run] = []
    started: list[Receiver] = []
    try:
        for one in found:
            one.start()
            started.append(one)
        for number in range(rounds):
            for parallel in associations:
                turn = number % len(found)
                source = work / f"source-{number}-{parallel}"
                folders, size = write_objects(source, instances, f"{number}-{parallel}", parallel)
                for one in (*found[turn:], *found[:turn]):
                    runs.append(_run(one, folders, number, instances, size))
                    progress()
                shutil.rmtree(source)
    finally:
        for one in started:
            one.stop()
    about = {one.name: {"version": one.version, "setting": one.setting} for one in found}
    return Reception(_sender(), instances, rounds, tuple(associations), about, tuple(missing), tuple(runs))


def _run(receiver: Receiver, folders: list[Path], number: int, instances: int, size: int) -> Run:
    os.sync()
    before = receiver.stored()
    with _PeakRss(receiver.pid) as peak:
        started = time.perf_counter()
        _send(receiver, folders)
        seconds = time.perf_counter() - started
    stored = receiver.stored() - before
    if stored != instances:
        raise RuntimeError(f"{receiver.name} holds {stored} of {instances} instances")
    return Run(receiver.name, len(folders), number, instances, size, seconds, peak.rss)


def _sender() -> str:
    return "DCMTK storescu" if shutil.which("storescu") else "dicomnode's own SCU (storescu is not installed)"


def _send(receiver: Receiver, folders: list[Path]) -> None:
    """One Association for each folder, all at once, until the last is released."""
    send = _storescu if shutil.which("storescu") else _own_scu
    with ThreadPoolExecutor(len(folders)) as pool:
        list(pool.map(lambda folder: send(receiver, folder), folders))


def _storescu(receiver: Receiver, folder: Path) -> None:
    command = ["storescu", "-aet", CALLING, "-aec", receiver.ae_title, "+sd", "127.0.0.1", str(receiver.port)]
    done = subprocess.run([*command, str(folder)], env=NO_NAGLE, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise RuntimeError(f"storescu to {receiver.name}: {done.stderr[-500:]}")


def _own_scu(receiver: Receiver, folder: Path) -> None:
    peer = Peer(name="receiver", ae_title=receiver.ae_title, host="127.0.0.1", port=receiver.port)
    bad = [answer.text for answer in send_paths([folder], peer, CALLING) if not answer.ok]
    if bad:
        raise RuntimeError(f"our SCU to {receiver.name}: {bad[0]}")


class _PeakRss:
    """Samples the resident memory of a process and its children."""

    def __init__(self, pid: int) -> None:
        self._process, self.rss = psutil.Process(pid), 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _PeakRss:
        self._sample()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(SAMPLE_S):
            self._sample()

    def _sample(self) -> None:
        total = 0
        for process in (self._process, *self._process.children(recursive=True)):
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        self.rss = max(self.rss, total)
