"""Alerts about strangers cost a durable write each: a flood of them must not keep honest peers waiting."""

from __future__ import annotations

import threading
import time

PER_MINUTE = 60


class Restraint:
    """Lets so many through in a minute and counts the rest."""

    def __init__(self, per_minute: int = PER_MINUTE) -> None:
        self._per_minute = per_minute
        self._lock = threading.Lock()
        self._until = 0.0
        self._let = self._held = 0

    def ask(self) -> int | None:
        """None: hold this one back. Otherwise how many were held back since the last one that went through."""
        now = time.monotonic()
        with self._lock:
            if now >= self._until:
                self._until, self._let = now + 60.0, 0
            if self._let >= self._per_minute:
                self._held += 1
                return None
            self._let += 1
            held, self._held = self._held, 0
            return held
