"""Work that nobody waits for, beside work that somebody does."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
LESS_URGENT = 10
"""How much nicer (``nice(2)``, which Linux counts by thread) than its caller such work is."""


def at_leisure(work: Callable[[], T]) -> T:
    """What ``work`` answers, which takes the processor only while nobody else wants it. Raises what ``work`` raises.

    In a thread of its own, with all that it starts: who has made himself nicer may not go back.
    """

    def aside() -> T:
        with contextlib.suppress(OSError):
            mine = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, mine, os.getpriority(os.PRIO_PROCESS, mine) + LESS_URGENT)
        return work()

    with ThreadPoolExecutor(1, "leisure") as pool:
        return pool.submit(aside).result()
