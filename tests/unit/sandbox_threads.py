"""Functions of a sandboxed module that has a thread already when the child is bound, as libraries may have."""

from __future__ import annotations

import queue
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from dicomnode.sandbox import Room

_asked: queue.SimpleQueue[None] = queue.SimpleQueue()
_said: queue.SimpleQueue[str] = queue.SimpleQueue()


def _speak() -> None:
    while True:
        _asked.get()
        try:
            socket.socketpair()
        except PermissionError:
            _said.put("refused")
        else:
            _said.put("got")


threading.Thread(target=_speak, daemon=True).start()


def early_thread(request: Any, room: Room) -> str:
    """What the thread that was there first got when it asked for a socket."""
    _asked.put(None)
    return _said.get(timeout=60)


def many_blocks(request: int, room: Room) -> str:
    """Threads that ask for memory while others fill theirs, each block with a number of its own."""

    def fill(number: int) -> None:
        room.block(request).write(0, bytes([number]) * request)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(fill, range(1, 9)))
    return "done"
