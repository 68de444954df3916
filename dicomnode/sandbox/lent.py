"""Memory that the parent lends to a child: of a size that nobody can change, and sealed before it is looked at."""

from __future__ import annotations

import fcntl
import mmap
import os


class LentMemory:
    """``size`` bytes without a name (memfd_create(2)). Raises OSError when there is no such memory."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.descriptor = os.memfd_create("dicomnode", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.descriptor, size)
            fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        except OSError:
            self.close()
            raise

    def taken_back(self) -> mmap.mmap:
        """The content as a private mapping: writing to it changes no other view, and the child cannot write any more.

        Raises OSError when the child has kept it open for writing.
        """
        fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL)
        return mmap.mmap(self.descriptor, self.size, access=mmap.ACCESS_COPY)

    def close(self) -> None:
        """Give the descriptor up; mappings stay."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
