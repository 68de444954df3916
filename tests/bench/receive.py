"""Reception: the same Instances to each receiver, one after the other, in rounds."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from dicomnode.config import Peer
from dicomnode.deliver.send import send_paths
from tests.bench.loads import Load, Objects, data_set_of, message, uids_of
from tests.bench.receivers import NAMES, NO_NAGLE, NODE, Receiver, receivers
from tests.bench.watch import Watch
from tests.raw_scu import SUCCESS, RawAssociation

CALLING = "SCANNER"
RAW_COUNT = 1000
"""Instances in the pass that measures latencies, at most."""


@dataclass(frozen=True, slots=True)
class Run:
    """One receiver, one load, one round, sent by storescu.

    ``memory_before``, ``memory_peak``: bytes of its processes, shared pages counted once; ``cpu_s``: their processor
    time. ``latencies_ms``: of each C-STORE in a second pass, by a sender on a bare socket, first byte out to response;
    that pass took ``raw_seconds`` for ``raw_instances``.
    """

    receiver: str
    load: str
    associations: int
    round: int
    instances: int
    size_bytes: int
    seconds: float
    memory_before: int
    memory_peak: int
    cpu_s: float
    latencies_ms: tuple[float, ...] = ()
    raw_instances: int = 0
    raw_seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Instances per second."""
        return self.instances / self.seconds

    @property
    def raw_rate(self) -> float:
        """Instances per second from the sender on a bare socket, which leaves the processor to the receiver."""
        return self.raw_instances / self.raw_seconds if self.raw_seconds else 0.0

    @property
    def cpu_ms(self) -> float:
        """Processor time of the receiver per Instance, in ms."""
        return self.cpu_s * 1000 / self.instances

    def latency_ms(self, share: float) -> float:
        """The latency that ``share`` of the C-STOREs did not exceed, 0 when none was measured."""
        ordered = sorted(self.latencies_ms)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure: loads with their numbers of associations, rounds, receivers (keys of ``NAMES``)."""

    cases: tuple[tuple[Load, int], ...]
    rounds: int = 3
    wanted: Collection[str] = tuple(NAMES)
    latencies: bool = True
    node_settings: str = ""


@dataclass(frozen=True, slots=True)
class Reception:
    """Everything measured, who took part in which version and setting, and who was missing."""

    sender: str
    rounds: int
    receivers: dict[str, dict[str, str]]
    missing: tuple[str, ...]
    runs: tuple[Run, ...]

    @property
    def cases(self) -> tuple[tuple[str, int], ...]:
        """Load and number of associations, in the order of measuring."""
        return tuple(dict.fromkeys((run.load, run.associations) for run in self.runs))

    def of(self, receiver: str, load: str, associations: int) -> list[Run]:
        """The runs of one receiver, by round."""
        key = (receiver, load, associations)
        return [run for run in self.runs if (run.receiver, run.load, run.associations) == key]

    def ratio(
        self, receiver: str, load: str, associations: int, of: Callable[[Run], float] = lambda r: r.rate
    ) -> float:
        """Median over the rounds of our figure by that of ``receiver`` in the same round; our rate by its rate."""
        ours, theirs = self.of(NODE, load, associations), self.of(receiver, load, associations)
        return median(of(mine) / of(other) for mine, other in zip(ours, theirs, strict=True))


def measure_reception(work: Path, plan: Plan, progress: Callable[[Run], None]) -> Reception:
    """Send every load to every receiver; ``progress`` is called with each run.

    Each run has Instances of its own; each round has receivers started afresh, and their order rotates. Raises
    RuntimeError when a receiver does not hold afterwards what was sent.
    """
    runs: list[Run] = []
    about: dict[str, dict[str, str]] = {}
    missing: list[str] = []
    loads = dict.fromkeys(load for load, _ in plan.cases)
    objects = {load.name: Objects(work / "objects" / load.name, load) for load in loads}
    tokens = iter(range(int(time.time()) % 10**8, 10**9))
    for number in range(plan.rounds):
        found, missing = receivers(work / f"round-{number}", plan.wanted, plan.node_settings)
        about |= {one.name: {"version": one.version, "setting": one.setting} for one in found}
        turn = number % len(found)
        started: list[Receiver] = []
        try:
            for one in found:
                one.start()
                started.append(one)
            for load, associations in plan.cases:
                for one in (*found[turn:], *found[:turn]):
                    run = _run(one, objects[load.name], associations, number, next(tokens))
                    if plan.latencies:
                        run = _latencies(one, objects[load.name], run, next(tokens))
                    runs.append(run)
                    progress(run)
        finally:
            for one in started:
                one.stop()
        shutil.rmtree(work / f"round-{number}")
    return Reception(_sender(), plan.rounds, about, tuple(missing), tuple(runs))


def _run(receiver: Receiver, objects: Objects, associations: int, number: int, token: int) -> Run:
    parts = objects.renew(token, associations)
    if receiver.limit is not None:
        parts = [part[: max(1, receiver.limit // associations)] for part in parts]
    instances = sum(len(part) for part in parts)
    os.sync()
    before = receiver.stored()
    with Watch(receiver.pid) as watch:
        started = time.perf_counter()
        _send(receiver, parts)
        seconds = time.perf_counter() - started
    _require(receiver, before + instances)
    return Run(
        receiver.name,
        objects.load.name,
        associations,
        number,
        instances,
        instances * objects.size,
        seconds,
        watch.before,
        watch.peak,
        watch.cpu,
    )


def _require(receiver: Receiver, instances: int) -> None:
    stored = receiver.stored()
    if stored != instances:
        raise RuntimeError(f"{receiver.name} holds {stored} of {instances} instances")


def _latencies(receiver: Receiver, objects: Objects, run: Run, token: int) -> Run:
    """Send again, new Instances, by the sender on a bare socket, and time every C-STORE."""
    count = min(run.instances, RAW_COUNT, receiver.limit or RAW_COUNT) // run.associations
    data = data_set_of(objects.template)
    os.sync()
    before = receiver.stored()
    started = time.perf_counter()
    with ThreadPoolExecutor(run.associations) as pool:
        jobs = [
            pool.submit(_store_raw, receiver, objects.load, data, token, part, count)
            for part in range(run.associations)
        ]
        times = tuple(ms for job in jobs for ms in job.result())
    seconds = time.perf_counter() - started
    _require(receiver, before + len(times))
    return replace(run, latencies_ms=times, raw_instances=len(times), raw_seconds=seconds)


def _store_raw(receiver: Receiver, load: Load, data: bytes, token: int, part: int, count: int) -> list[float]:
    times = []
    with RawAssociation(receiver.port, receiver.ae_title, CALLING, [load.context]) as association:
        request = message(data, load, association.accepted[load.context], association.max_pdu)
        for number in range(count):
            for name, uid in uids_of(token, part, part * count + number).items():
                request.put(name, uid)
            started = time.perf_counter()
            status = association.store(request)
            times.append((time.perf_counter() - started) * 1000)
            if status != SUCCESS:
                raise RuntimeError(f"{receiver.name} answered 0x{status:04X}")
        association.release()
    return times


def _sender() -> str:
    return "DCMTK storescu" if shutil.which("storescu") else "dicomnode's own SCU (storescu is not installed)"


def _send(receiver: Receiver, parts: Sequence[list[Path]]) -> None:
    """One Association for each list of files, all at once, until the last is released."""
    send = _storescu if shutil.which("storescu") else _own_scu
    with ThreadPoolExecutor(len(parts)) as pool:
        list(pool.map(lambda files: send(receiver, files), parts))


def _storescu(receiver: Receiver, files: list[Path]) -> None:
    command = ["storescu", "-aet", CALLING, "-aec", receiver.ae_title, "127.0.0.1", str(receiver.port)]
    done = subprocess.run([*command, *map(str, files)], env=NO_NAGLE, capture_output=True, text=True, timeout=900)
    if done.returncode:
        raise RuntimeError(f"storescu to {receiver.name}: {done.stderr[-500:]}")


def _own_scu(receiver: Receiver, files: list[Path]) -> None:
    peer = Peer(name="receiver", ae_title=receiver.ae_title, host="127.0.0.1", port=receiver.port)
    bad = [answer.text for answer in send_paths(files, peer, CALLING) if not answer.ok]
    if bad:
        raise RuntimeError(f"our SCU to {receiver.name}: {bad[0]}")
