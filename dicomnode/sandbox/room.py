"""Where a sandboxed function puts arrays: blocks of memory that the parent has, filled over the link."""

from __future__ import annotations

import socket
import threading

from dicomnode.sandbox.wire import PLACE, Kind, send

_PIECE = 4 << 20


class Block:
    """``size`` bytes in the parent, all zero at first. Several threads may write."""

    def __init__(self, room: Room, number: int, size: int) -> None:
        self._room, self._number, self.size = room, number, size

    def write(self, offset: int, values: bytes | memoryview) -> None:
        """Copy contiguous ``values`` to ``offset`` (bytes). Raises ValueError when they do not fit."""
        content = memoryview(values).cast("B")
        if not 0 <= offset <= self.size - len(content):
            raise ValueError("outside the block")
        for start in range(0, len(content), _PIECE):
            place = PLACE.pack(self._number, offset + start)
            self._room.send(Kind.WRITE, place, content[start : start + _PIECE])


class Room:
    """What a sandboxed function gets beside its request."""

    def __init__(self, link: socket.socket) -> None:
        self._link, self._turn, self._blocks = link, threading.Lock(), 0

    def block(self, size: int) -> Block:
        """Ask the parent for ``size`` bytes; it ends this process when that is more than it lends."""
        with self._turn:
            send(self._link, Kind.WANT, str(size).encode())
            self._blocks += 1
            return Block(self, self._blocks - 1, size)

    def send(self, kind: Kind, *content: bytes | memoryview) -> None:
        """One message to the parent, whole, whoever else sends."""
        with self._turn:
            send(self._link, kind, *content)
