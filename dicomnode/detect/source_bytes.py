"""The bytes of a received file: its transfer syntax, the header in plain form, its pixel data. In the child only."""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

from pydicom import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from dicomnode.detect.header_plain import PlainLimits, dataset_of
from dicomnode.detect.header_walk import BEYOND, HeaderWalk, MoreNeeded, PixelPlace, Walked
from dicomnode.detect.volume_terms import Limits, NotAnalysable
from dicomnode.dicom.encoding import ANY_VR, LONG_VR
from dicomnode.errors import Transient

_PREAMBLE, _FIRST_READ, _MOST_HEADER, _CHUNK = 128, 1 << 16, 1 << 26, 1 << 18
_TRANSFER_SYNTAX, _BIG_ENDIAN_GROUP = 0x0010, 0x0400
_EXTENDED = (0x7FE00001, 0x7FE00002)


class SourceBytes:
    """The Data Set of a file as bytes from 0 on, inflated where it is deflated (PS3.5 A.5). Close it, or use ``with``.

    ``syntax``: Transfer Syntax UID as the file states it, empty where it does not.
    Raises NotAnalysable for a file that is too large or no Part 10 file (PS3.10 7.1), Transient when the disk fails.
    """

    def __init__(self, path: Path, limits: Limits) -> None:
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise _failed(error) from error
        try:
            self._open(limits)
        except BaseException:
            self.close()
            raise

    def _open(self, limits: Limits) -> None:
        size = os.fstat(self._file).st_size
        if size > limits.max_file_bytes:
            raise NotAnalysable(f"a file is larger than {limits.max_file_bytes} bytes")
        begin = self._pread(_FIRST_READ, 0)
        self.syntax, self._start = _file_meta(begin)
        self.implicit, self.big_endian = _encoding(self.syntax, begin[self._start : self._start + 6])
        self._inflated: bytes | None = None
        self._begin, self.size = begin[self._start :], max(0, size - self._start)
        if self.syntax == DeflatedExplicitVRLittleEndian:
            self._inflated = self._inflate(min(limits.max_file_bytes, limits.max_inflated_bytes))
            self.size = len(self._inflated)

    def read(self, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset`` on, fewer where the Data Set ends. Raises Transient when the disk fails."""
        if self._inflated is not None:
            return self._inflated[offset : offset + size]
        if offset + size <= len(self._begin):
            return self._begin[offset : offset + size]
        return self._pread(max(0, min(size, self.size - offset)), self._start + offset)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> SourceBytes:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _pread(self, size: int, offset: int) -> bytes:
        try:
            content = os.pread(self._file, size, offset)
            while len(content) < size and (more := os.pread(self._file, size - len(content), offset + len(content))):
                content += more
        except OSError as error:
            raise _failed(error) from error
        return content

    def _inflate(self, most: int) -> bytes:
        """Bounded: never more than ``most`` bytes, and a piece, are in memory."""
        inflater, out, at = zlib.decompressobj(-zlib.MAX_WBITS), bytearray(), self._start
        try:
            while not inflater.eof:
                packed = inflater.unconsumed_tail or self._pread(_CHUNK, at)
                at += 0 if inflater.unconsumed_tail else len(packed)
                piece = inflater.decompress(packed, _CHUNK)
                if not packed and not piece:
                    raise NotAnalysable("a deflated file is cut off")
                out += piece
                if len(out) > most:
                    raise NotAnalysable(f"a deflated file holds more than {most} bytes")
        except zlib.error as error:
            raise NotAnalysable("a deflated file is damaged") from error
        return bytes(out)


@dataclass(frozen=True, slots=True, eq=False)
class SourceHeader:
    """What a file says before its pixels: in plain form for the parent, and as a Dataset to ask.

    ``offsets``: Extended Offset Table and its Lengths (PS3.3 C.7.6.3.1.8), None without.
    """

    path: Path
    syntax: str
    plain: bytes
    dataset: Dataset
    pixels: PixelPlace | None
    offsets: tuple[bytes, bytes] | None


def read_source(path: Path, limits: Limits, budget: PlainLimits) -> SourceHeader:
    """Read the header of a file. ``budget`` is counted down by what it takes.

    Raises NotAnalysable for a file that is too large, broken or beyond the limits, Transient when the disk fails.
    """
    with SourceBytes(path, limits) as content:
        walked = _walk(content, budget)
    offsets = [walked.offsets[tag] for tag in _EXTENDED if tag in walked.offsets]
    pair = (offsets[0], offsets[1]) if len(offsets) == len(_EXTENDED) else None
    dataset = dataset_of(walked.plain, content.syntax, replace(budget, elements=1 << 30, items=1 << 30))
    return SourceHeader(path, content.syntax, walked.plain, dataset, walked.pixels, pair)


def _walk(content: SourceBytes, budget: PlainLimits) -> Walked:
    """Read as much of the Data Set as its header needs, 64 KiB first."""
    window = _FIRST_READ
    while True:
        data = content.read(0, window)
        own = replace(budget)
        walk = HeaderWalk(
            data,
            implicit=content.implicit,
            big_endian=content.big_endian,
            whole=len(data) >= content.size,
            limits=own,
        )
        try:
            walked = walk.run()
        except MoreNeeded as error:
            if window >= _MOST_HEADER:
                raise NotAnalysable(f"a header is larger than {_MOST_HEADER} bytes") from error
            window *= 8
            continue
        budget.elements, budget.items = own.elements, own.items
        return walked


def _file_meta(begin: bytes) -> tuple[str, int]:
    """Transfer Syntax UID, empty where there is none, and where the Data Set begins (PS3.10 7.1)."""
    if begin[_PREAMBLE : _PREAMBLE + 4] != b"DICM":
        raise NotAnalysable("a file is not readable DICOM (it has no DICOM prefix)")
    at, syntax = _PREAMBLE + 4, ""
    while begin[at : at + 2] == b"\x02\x00" and at + 12 <= len(begin):
        number, vr, length = struct.unpack_from("<H2sH", begin, at + 2)
        width = 8
        if vr in LONG_VR:
            length, width = struct.unpack_from("<I", begin, at + 8)[0], 12
        elif vr not in ANY_VR:
            length = struct.unpack_from("<I", begin, at + 4)[0]
        at += width + length
        if at > len(begin):
            raise NotAnalysable(BEYOND)
        if number == _TRANSFER_SYNTAX:
            syntax = begin[at - length : at].rstrip(b"\0 ").decode("ascii", "replace")
    return syntax, at


def _encoding(syntax: str, first: bytes) -> tuple[bool, bool]:
    """Whether the Data Set is declared to have no VRs, and to be big endian; by its first element without a syntax."""
    if syntax:
        return syntax == ImplicitVRLittleEndian, syntax == ExplicitVRBigEndian
    if first[4:6] not in ANY_VR:
        return True, False
    return False, int.from_bytes(first[:2], "little") >= _BIG_ENDIAN_GROUP


def _failed(error: OSError) -> Transient:
    return Transient(f"a source file cannot be read: {type(error).__name__}")
