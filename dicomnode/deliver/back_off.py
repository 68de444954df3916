"""When to try again: exponential back-off with full jitter, per job and per Destination."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class BackOff:
    """Times in seconds. There is no limit on attempts, only ``give_up_after_s`` on the age of what waits."""

    base_s: float = 2.0
    cap_s: float = 300.0
    give_up_after_s: float = 7 * DAY_S

    def delay(self, failures: int, draw: float) -> float:
        """Seconds to wait after ``failures`` (>= 1) in a row; ``draw`` is uniform in [0, 1) ("full jitter")."""
        exponent = min(max(failures, 1) - 1, 30)
        return draw * min(self.cap_s, self.base_s * 2.0**exponent)


class Lanes:
    """One lane per Destination: one job at a time, and none for a while after a failure.

    So a Destination that is down costs one attempt per back-off whatever waits for it, and never delays another one.
    Kept in memory: losing it costs one attempt.
    """

    def __init__(self, back_off: BackOff) -> None:
        self._back_off = back_off
        self._lock = threading.Lock()
        self._busy: set[str] = set()
        self._held: dict[str, tuple[int, float, float]] = {}

    def closed(self, now: float) -> frozenset[str]:
        """Destinations that take no job at ``now``. A clock that was set back holds none of them longer."""
        with self._lock:
            return frozenset(self._busy) | {
                name for name, (_, since, until) in self._held.items() if since <= now < until
            }

    def enter(self, destination: str) -> None:
        """A job of this Destination begins."""
        with self._lock:
            self._busy.add(destination)

    def leave(self, destination: str) -> None:
        """It ended."""
        with self._lock:
            self._busy.discard(destination)

    def reached(self, destination: str) -> None:
        """The Destination answered: nothing holds its lane."""
        with self._lock:
            self._held.pop(destination, None)

    def failed(self, destination: str, now: float, at_least_s: float = 0.0) -> None:
        """The Destination could not take anything: hold its lane, for ``at_least_s`` seconds."""
        with self._lock:
            failures = self._held.get(destination, (0, 0.0, 0.0))[0] + 1
            hold_s = max(self._back_off.delay(failures, random.random()), at_least_s)
            self._held[destination] = (failures, now, now + hold_s)
