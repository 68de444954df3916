"""One block of memory whose pages are made before somebody asks for it: to make them takes longer than to fill them."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import threading

from dicomnode.sandbox.lent import lent_memory

_MIB = 1 << 20
_POPULATE_WRITE = 23
"""MADV_POPULATE_WRITE of madvise(2), since Linux 5.14: pages are made as if written to, and hold what they held."""
_PIECE = _MIB
"""So little at once, because whoever else maps memory waits meanwhile."""
_LESS_URGENT = 10


class Spare:
    """At most one block that nobody ever had, so that all in it is zero and no view of old pixels leads to it.

    ``least``: smaller blocks (bytes) are not worth it. ``most``: a larger one is prepared up to there.
    """

    def __init__(self, least: int = 16 * _MIB, most: int = 512 * _MIB) -> None:
        self._least, self._most = least, most
        self._turn, self._over = threading.Lock(), threading.Event()
        self._maker: threading.Thread | None = None
        self._memory: mmap.mmap | None = None

    def prepare(self, size: int) -> None:
        """Begin to make one of ``size`` bytes, if there is none, in a thread of low priority; returns at once.

        None is made where there is no memory; on an older kernel it is memory like any other.
        """
        with self._turn:
            if self._memory is not None or size < self._least:
                return
            try:
                self._memory = lent_memory(min(size, self._most))
            except OSError:
                return
            self._over.clear()
            maker = threading.Thread(target=self._make, args=(self._memory,), name="spare", daemon=True)
            with contextlib.suppress(RuntimeError):  # no thread to be had: the block is as good as any other
                maker.start()
                self._maker = maker

    def take(self, size: int) -> mmap.mmap | None:
        """A block of ``size`` bytes, all zero, as far as it is prepared; None without one. Raises OSError."""
        if size < self._least:
            return None
        with self._turn:
            memory = self._released()
            if memory is not None and len(memory) != size:
                memory.resize(size)
            return memory

    def drop(self) -> None:
        """Give the block back."""
        with self._turn:
            self._released()

    def wait(self) -> None:
        """Until a block that is being made is ready."""
        maker = self._maker
        if maker is not None:
            maker.join()

    def _released(self) -> mmap.mmap | None:
        """The block, with nobody at work on it."""
        if self._maker is not None:
            self._over.set()
            self._maker.join()
        memory, self._memory, self._maker = self._memory, None, None
        return memory

    def _make(self, memory: mmap.mmap) -> None:
        mine = threading.get_native_id()
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, mine, os.getpriority(os.PRIO_PROCESS, mine) + _LESS_URGENT)
        advise, size, view = ctypes.CDLL(None).madvise, len(memory), ctypes.c_char.from_buffer(memory)
        begin = ctypes.addressof(view)
        for at in range(0, size, _PIECE):
            length = min(_PIECE, size - at)
            if self._over.is_set() or advise(ctypes.c_void_p(begin + at), ctypes.c_size_t(length), _POPULATE_WRITE):
                return
