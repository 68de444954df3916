"""Several targets at once, each in a process of its own: a reader that dies or hangs in C is a finding too."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from tests.fuzz.engine import TARGETS, Outcome, keep_inputs, run

SILENT_S = 120.0
START_S = 900.0
_SPAWN = multiprocessing.get_context("spawn")
Told = Callable[[str, int], None]


@dataclass
class _Running:
    process: Any
    outcomes: Connection
    number: Any
    last: int
    moved: float


def run_all(
    names: Sequence[str], seed: int, seconds: float, jobs: int, failures: Path, told: Told = lambda *_: None
) -> list[Outcome]:
    """Each target for ``seconds``, ``jobs`` at a time. ``told``: name and inputs so far, about twice a second."""
    pending, running, finished = list(names), dict[str, _Running](), list[Outcome]()
    while pending or running:
        while pending and len(running) < jobs:
            name = pending.pop(0)
            running[name] = _start(name, seed, seconds, failures)
        wait([one.outcomes for one in running.values()], timeout=0.5)
        for name, one in list(running.items()):
            outcome = _look(name, one, seed, failures)
            told(name, one.number.value)
            if outcome is not None:
                finished.append(outcome)
                del running[name]
    return finished


def _start(name: str, seed: int, seconds: float, failures: Path) -> _Running:
    outcomes, sender = _SPAWN.Pipe(duplex=False)
    number = _SPAWN.Value("q", 0)
    process = _SPAWN.Process(target=_child, args=(name, seed, seconds, failures, sender, number), name=f"fuzz-{name}")
    process.start()
    sender.close()
    return _Running(process, outcomes, number, -1, time.monotonic())


def _child(name: str, seed: int, seconds: float, failures: Path, sender: Connection, number: Any) -> None:
    def count(inputs: int) -> None:
        number.value = inputs

    sender.send(run(TARGETS[name](), seed, seconds, failures, count))


def _look(name: str, one: _Running, seed: int, failures: Path) -> Outcome | None:
    if one.outcomes.poll():
        try:
            outcome: Outcome = one.outcomes.recv()
        except EOFError:
            one.process.join(10)
            return _dead(name, one, seed, failures, _how(one.process.exitcode))
        one.process.join()
        return outcome
    if one.number.value != one.last:
        one.last, one.moved = one.number.value, time.monotonic()
    limit = SILENT_S if one.last > 0 else START_S
    if time.monotonic() - one.moved > limit:
        one.process.kill()
        one.process.join()
        return _dead(name, one, seed, failures, f"hang: no answer for {limit:g} s")
    return None


def _how(status: int | None) -> str:
    return f"died of {signal.Signals(-status).name}" if status is not None and status < 0 else f"ended with {status}"


def _dead(name: str, one: _Running, seed: int, failures: Path, how: str) -> Outcome:
    number = one.number.value
    outcome = Outcome(name, seed, number)
    culprit = TARGETS[name]().input_number(seed, number)
    outcome.failures.append(keep_inputs(outcome, f"the process: {how}", "", [culprit], failures))
    return outcome
