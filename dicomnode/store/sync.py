"""syncfs(2): all that was written to a file system becomes durable at once, for a fraction of a sync per file."""

from __future__ import annotations

import ctypes
import os
import re

TELLS_OF_FAILURE = (5, 8)
"""Before this Linux, syncfs(2) says nothing of a write that failed."""


class FileSystemSync:
    """Syncs the file system of ``folder``. It holds a descriptor, so that no failure since it was made is missed."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Raises OSError when there is no such folder."""
        self._descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None) if tells_of_failure() else None

    def sync(self) -> None:
        """Return when all is durable. Raises OSError when it may not be, or when this system has no such call."""
        if self._syncfs is None:
            raise OSError("no syncfs that tells of failures")
        if self._syncfs(self._descriptor):
            raise OSError(ctypes.get_errno(), "syncfs failed")

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._descriptor)


def tells_of_failure(release: str = os.uname().release) -> bool:
    """Whether the kernel ``release`` answers syncfs(2) honestly."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return found is not None and (int(found[1]), int(found[2])) >= TELLS_OF_FAILURE
