"""Ports for servers that are started later, or again, beside other tests that do the same."""

from __future__ import annotations

import os
import random
import socket
from contextlib import suppress

FIRST, LAST = 10_000, 32_000
"""Below those that Linux hands out to whoever asks for any port (32768 on): a server that is down keeps its own."""

_given: set[int] = set()


def free_port() -> int:
    """A loopback port that nobody listens on now, and that no other test of this run gets. Raises OSError."""
    chance, own = random.SystemRandom(), _own()
    for _ in range(1000):
        port = chance.choice(own)
        if port in _given:
            continue
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            _given.add(port)
            return port
    raise OSError("no free port found")


def _own() -> range:
    """The ports of this process of pytest-xdist: a server that starts later finds its port as it was promised."""
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    return range(FIRST + number % workers, LAST, workers)
