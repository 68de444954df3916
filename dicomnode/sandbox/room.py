"""Where a sandboxed function puts arrays: memory that the parent owns and lends."""

from __future__ import annotations

import mmap
import os
import socket

from dicomnode.sandbox.wire import Garbled, Kind, send


class Block:
    """Lent memory of ``size`` bytes, all zero at first. Only a window of it is mapped, while something is written."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor, self.size = descriptor, size

    def write(self, offset: int, values: bytes | memoryview) -> None:
        """Copy contiguous ``values`` to ``offset`` (bytes). Raises ValueError when they do not fit."""
        content = memoryview(values).cast("B")
        if not 0 <= offset <= self.size - len(content):
            raise ValueError("outside the block")
        if not len(content):
            return
        start = offset - offset % mmap.ALLOCATIONGRANULARITY
        with mmap.mmap(self._descriptor, offset - start + len(content), offset=start) as window:
            window[offset - start :] = content

    def close(self) -> None:
        os.close(self._descriptor)


class Room:
    """What a sandboxed function gets beside its request."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._blocks: list[Block] = []

    def block(self, size: int) -> Block:
        """Ask the parent for ``size`` bytes; it ends this process when that is more than it lends."""
        send(self._link, Kind.WANT, str(size).encode())
        head, descriptors, _, _ = socket.recv_fds(self._link, 5, 1)
        if len(descriptors) != 1 or head != Kind.WANT.value + bytes(4):
            raise Garbled
        self._blocks.append(Block(descriptors[0], size))
        return self._blocks[-1]

    def close(self) -> None:
        """Give every block back: the parent seals them before it looks at them."""
        for block in self._blocks:
            block.close()
        self._blocks.clear()
