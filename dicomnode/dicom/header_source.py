"""Where header bytes come from: memory, a file read in windows, or a deflated stream with a cap."""

from __future__ import annotations

import io
import os
import zlib

from dicomnode.errors import Permanent

CHUNK_BYTES = 16384


class MalformedHeader(Permanent):
    """A DICOM header that cannot be read: truncated, nonsense, or beyond the limits. Holds no values."""


class MemorySource:
    """Bytes in memory. ``data`` holds the bytes from offset ``base`` on."""

    def __init__(self, data: bytes | memoryview) -> None:
        self.data: bytes | memoryview = data
        self.base = 0

    def move(self, position: int, size: int = CHUNK_BYTES) -> None:
        """Make ``data`` hold ``size`` bytes from ``position`` on, or all there are."""

    def reaches(self, end: int) -> bool:
        """Say whether there are at least ``end`` bytes."""
        return end <= self.base + len(self.data)


class FileSource(MemorySource):
    """An open regular file, read in windows of ``CHUNK_BYTES``; long values are passed over by seeking."""

    def __init__(self, stream: io.FileIO) -> None:
        super().__init__(b"")
        self._stream = stream
        self._size = os.fstat(stream.fileno()).st_size
        self.move(0)

    def move(self, position: int, size: int = CHUNK_BYTES) -> None:
        self._stream.seek(position)
        self.data = self._stream.read(max(size, CHUNK_BYTES))
        self.base = position

    def reaches(self, end: int) -> bool:
        return end <= self._size


class InflatingSource(MemorySource):
    """Deflated Explicit VR Little Endian (PS3.5 A.5), inflated only as far as it is read, ``limit`` bytes at most.

    It is read forwards: what lies more than ``KEPT_BYTES`` behind is forgotten, so that memory stays flat whatever the
    stream inflates to. Raises MalformedHeader when the stream is damaged or more than ``limit`` bytes would be needed.
    """

    KEPT_BYTES = 4 * CHUNK_BYTES

    def __init__(self, packed: MemorySource, offset: int, limit: int) -> None:
        super().__init__(b"")
        self._packed = packed
        self._offset = offset
        self._limit = limit
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        self._plain = bytearray()
        self._forgotten = 0
        self._exhausted = False
        self.move(0)

    def move(self, position: int, size: int = CHUNK_BYTES) -> None:
        end = position + max(size, CHUNK_BYTES)
        self._grow(end, position)
        self.data = bytes(self._plain[position - self._forgotten : end - self._forgotten])
        self.base = position

    def reaches(self, end: int) -> bool:
        if end > self._limit:
            raise MalformedHeader("the deflated data set inflates beyond its limit")
        self._grow(end, end - self.KEPT_BYTES)
        return end <= self._forgotten + len(self._plain)

    def _grow(self, size: int, needed_from: int) -> None:
        size = min(size, self._limit)
        try:
            while self._forgotten + len(self._plain) < size and not self._exhausted:
                pending = self._inflate.unconsumed_tail or self._next_packed()
                inflated = self._inflate.decompress(pending, CHUNK_BYTES)
                self._plain += inflated
                self._exhausted = self._inflate.eof or not (pending or inflated)
                self._forget(needed_from)
        except zlib.error as error:
            raise MalformedHeader("the deflated data set is damaged") from error

    def _forget(self, before: int) -> None:
        surplus = min(before - self._forgotten, len(self._plain))
        if surplus >= self.KEPT_BYTES:
            del self._plain[:surplus]
            self._forgotten += surplus

    def _next_packed(self) -> bytes:
        start = self._offset - self._packed.base
        if not 0 <= start < len(self._packed.data):
            self._packed.move(self._offset)
            start = self._offset - self._packed.base
        chunk = bytes(self._packed.data[start : start + CHUNK_BYTES])
        self._offset += len(chunk)
        return chunk
