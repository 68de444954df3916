"""The layout of the intake journal, and the memory that a record is laid out in.

A record begins at a multiple of 4096 bytes, so that writing one never touches a block of another: magic, length of
the path, length of the content, CRC-32 of these and of the path; then the path, then the content.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

BLOCK = 4096
MAX_PATH_BYTES = 400
_FIELDS = struct.Struct(">8sII")
_CHECK = struct.Struct(">I")
_MAGIC = b"DNINTAKE"


@dataclass(frozen=True, slots=True)
class Record:
    """The copy of one spool file: its ``path`` in the spool, where its record begins, its ``size`` in bytes."""

    path: str
    offset: int
    size: int

    @property
    def content_offset(self) -> int:
        """Where the content begins."""
        return self.offset + _head_bytes(self.path)


class RecordMemory:
    """Page-aligned memory for one record after the other: what the kernel needs to write it without a copy."""

    def __init__(self, size: int) -> None:
        """Room for records of up to ``size`` bytes, heads included; rounded up to whole blocks."""
        self._bytes = memoryview(mmap.mmap(-1, -(-size // BLOCK) * BLOCK))

    def content(self, path: str) -> memoryview:
        """Where the content of the file ``path`` goes: behind the head of its record, to the end of the memory."""
        return self._bytes[_head_bytes(path) :]

    def block(self, record: Record) -> memoryview:
        """The whole record, its head written before the content. What fills its last block means nothing."""
        head = encode_head(record)
        self._bytes[: len(head)] = head
        return self._bytes[: span(record.path, record.size)]


def span(path: str, size: int) -> int:
    """Bytes that the record of a file takes."""
    return -(-(_head_bytes(path) + size) // BLOCK) * BLOCK


def encode_head(record: Record) -> bytes:
    """What stands before the content."""
    name = record.path.encode("ascii")
    fields = _FIELDS.pack(_MAGIC, len(name), record.size)
    return fields + _CHECK.pack(zlib.crc32(fields + name)) + name


def records(descriptor: int) -> Iterator[Record]:
    """The records of a segment from its beginning, up to the first place where none begins.

    Behind the newest there may be some of an earlier lap; their files are durable, reading them again does no harm.
    """
    offset, end = 0, os.fstat(descriptor).st_size
    while offset + BLOCK <= end:
        record = _decode_head(os.pread(descriptor, BLOCK, offset), offset)
        if record is None:
            return
        yield record
        offset += span(record.path, record.size)


def _head_bytes(path: str) -> int:
    return _FIELDS.size + _CHECK.size + len(path)


def _decode_head(data: bytes, offset: int) -> Record | None:
    magic, length, size = _FIELDS.unpack_from(data)
    start = _FIELDS.size + _CHECK.size
    if magic != _MAGIC or length > MAX_PATH_BYTES:
        return None
    name = data[start : start + length]
    if _CHECK.unpack_from(data, _FIELDS.size)[0] != zlib.crc32(data[: _FIELDS.size] + name):
        return None
    return Record(name.decode("ascii", "replace"), offset, size)
