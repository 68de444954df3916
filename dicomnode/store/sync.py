"""syncfs(2): all that was written to a file system becomes durable at once, for a fraction of a sync per file.

So that there is little left to do at that moment, sync_file_range(2) begins the writing of each file when the disk has
nothing more urgent to do.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
from pathlib import Path

TELLS_OF_FAILURE = (5, 8)
"""Before this Linux, syncfs(2) says nothing of a write that failed."""
_LIBC = ctypes.CDLL(None, use_errno=True)
_SYNCFS = getattr(_LIBC, "syncfs", None)
_SYNC_FILE_RANGE = getattr(_LIBC, "sync_file_range", None)
_WRITE = 2


def begin_to_write(descriptor: int) -> None:
    """Begin to write a file's pages to the disk, without waiting; that they are durable then, nobody says."""
    if _SYNC_FILE_RANGE is not None:
        _SYNC_FILE_RANGE(descriptor, ctypes.c_longlong(0), ctypes.c_longlong(0), ctypes.c_uint(_WRITE))


class FileSystemSync:
    """Syncs the file system of ``folder``. It holds a descriptor, so that no failure since it was made is missed."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Raises OSError when there is no such folder."""
        self._descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._syncfs = _SYNCFS if tells_of_failure() else None

    def sync(self, most_bytes: int) -> None:
        """Return when all is durable. Raises OSError when it may not be, or when this system has no such call.

        Where more than ``most_bytes`` wait to be written, others have much under way, and the call would wait for
        that too: then it is not made, and this raises OSError as well.
        """
        if self._syncfs is None or unwritten_bytes() > most_bytes:
            raise OSError(errno.EAGAIN, "no syncfs here or now")
        if self._syncfs(self._descriptor):
            raise OSError(ctypes.get_errno(), "syncfs failed")

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._descriptor)


def unwritten_bytes(meminfo: Path = Path("/proc/meminfo")) -> int:
    """How much of all that was written on this machine is not on its disks yet (proc(5)); 0 where nobody tells."""
    try:
        said = meminfo.read_text(encoding="ascii")
    except OSError:
        return 0
    return 1024 * sum(int(number) for number in re.findall(r"^(?:Dirty|Writeback): *(\d+) kB$", said, re.MULTILINE))


def tells_of_failure(release: str = os.uname().release) -> bool:
    """Whether the kernel ``release`` answers syncfs(2) honestly."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return found is not None and (int(found[1]), int(found[2])) >= TELLS_OF_FAILURE
