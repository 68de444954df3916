"""Ports for servers that are started later, or again, beside other tests that do the same."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

FIRST, LAST = 10_000, 32_000
"""Below those that Linux hands out to whoever asks for any port (32768 on): a server that is down keeps its own."""


def free_port() -> int:
    """A loopback port that nobody listens on now. Raises OSError when there is none."""
    chance = random.SystemRandom()
    for _ in range(1000):
        port = chance.randrange(FIRST, LAST)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no free port found")
