"""Memory that the parent lends for what a child writes: the parent's own, which no child ever sees."""

from __future__ import annotations

import mmap


def lent_memory(size: int) -> mmap.mmap:
    """``size`` bytes, all zero, private to this process; given back with the last view of it.

    In pages of the usual size: to ask for large ones takes ten times as long where memory is in pieces. Raises
    OSError when there is no such memory.
    """
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
