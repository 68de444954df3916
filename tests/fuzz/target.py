"""What is fuzzed: a target makes inputs and judges how the code under test takes them."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.mutate import Mutator

CPU_S = 5.0
MEMORY_BYTES = 160 * 2**20


class Finding(AssertionError):
    """The code under test broke its promise. ``trail``: the inputs that may have done it, the last one last."""

    def __init__(self, text: str, trail: Sequence[bytes] = ()) -> None:
        super().__init__(text)
        self.trail = list(trail)


class Target:
    """Inputs are mutants of ``seeds``; ``words`` are tokens of their language.

    A subclass says what it promises in ``check``: whatever it raises is a finding.
    """

    name = ""
    words: Sequence[bytes] = ()
    pure = True

    def seeds(self) -> Sequence[bytes]:
        """Valid inputs."""
        raise NotImplementedError

    def check(self, data: bytes) -> None:
        """Give ``data`` to the code under test."""
        raise NotImplementedError

    @contextmanager
    def running(self, folder: Path) -> Iterator[None]:
        """What has to run while inputs are checked; ``folder`` is empty. Judges at the end what the inputs left."""
        yield

    def input_number(self, seed: int, number: int) -> bytes:
        """The same bytes for the same seed and number, always. Number 0 and up to the count of seeds are valid."""
        valid = self.valid
        if number < len(valid):
            return valid[number]
        return self.draw(Random(f"{seed}/{self.name}/{number}"))

    def draw(self, random: Random) -> bytes:
        """One mutant."""
        return Mutator(random, self.words, self.valid).mutant(random.choice(self.valid))

    @property
    def valid(self) -> Sequence[bytes]:
        """The seeds, made once."""
        if "_valid" not in vars(self):
            self._valid = tuple(self.seeds())
        return self._valid


def _peak_kib(*, anew: bool = False) -> int:
    """The most memory that this process had, or, ``anew``, has from now on.

    The peak of a process is for its whole life: what it had before would hide what an input takes. Where the system
    lets nobody begin anew (proc(5), clear_refs), that is so.
    """
    if anew:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    return int(status.partition("VmHWM:")[2].split(maxsplit=1)[0])


@contextmanager
def bounded(cpu_s: float = CPU_S, memory: int = MEMORY_BYTES) -> Iterator[None]:
    """Raise Finding when the block takes more CPU time, or more memory at its peak than the process had before.

    CPU time and not the clock, so that a busy machine is no finding. For the main thread.
    """

    def too_long(*_: Any) -> None:
        raise Finding(f"hang: more than {cpu_s:g} s of CPU time")

    before = _peak_kib(anew=True)
    previous = signal.signal(signal.SIGPROF, too_long)
    signal.setitimer(signal.ITIMER_PROF, cpu_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)
    grown = (_peak_kib() - before) * 1024
    if grown > memory:
        raise Finding(f"memory: one input took {grown // 2**20} MiB")
