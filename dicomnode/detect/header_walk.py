"""From the bytes of a received Data Set to the plain form of its header: without recursion, in bounded time.

Reads what PS3.5 section 7 allows and the usual sins against it: another VR encoding than declared, implicit items in
explicit data sets, UN for a known sequence. Runs in the child process only.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np

from dicomnode.detect.header_plain import (
    ELEMENT,
    ITEM,
    NO_VR,
    SEQUENCE_VR,
    UNKNOWN_VR,
    PlainLimits,
    vr_by_dictionary,
)
from dicomnode.detect.volume_terms import NotAnalysable
from dicomnode.dicom.encoding import ITEM_BEGIN, ITEM_END, LONG_VR, SEQUENCE_END, SHORT_VR, UNDEFINED_LENGTH
from dicomnode.errors import Transient

_PIXEL_DATA = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
_OFFSETS = frozenset({0x7FE00001, 0x7FE00002})
_WORD = {b"AT": 2, b"OW": 2, b"SS": 2, b"US": 2, b"FL": 4, b"OF": 4, b"OL": 4, b"SL": 4, b"UL": 4} | {
    b"FD": 8, b"OD": 8, b"OV": 8, b"SV": 8, b"UV": 8
}  # fmt: skip
_MOST_VALUE = 1 << 20
TOO_DEEP = "a header nests sequences too deep"
TOO_MANY = "a header has too many elements or items"
BEYOND = "a length in a header goes beyond the end of the file"


class MoreNeeded(Transient):
    """The header does not end within the bytes that were given, and the file has more."""


@dataclass(frozen=True, slots=True)
class PixelPlace:
    """Where Pixel Data begin in the bytes of the Data Set. ``length``: None when they are encapsulated."""

    tag: int
    vr: bytes
    offset: int
    length: int | None


@dataclass(slots=True)
class Walked:
    """``plain``: the header. ``pixels``: None without Pixel Data. ``offsets``: Extended Offset Table and Lengths."""

    plain: bytes = b""
    pixels: PixelPlace | None = None
    offsets: dict[int, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class _Open:
    """A Data Set, sequence or item that is being read; ``end``: None when a delimiter ends it.

    ``out``: its elements or items in plain form; ``tag``: of a sequence; ``kept``: whether the parent wants it.
    """

    sequence: bool
    end: int | None
    implicit: bool
    tag: int = 0
    kept: bool = True
    out: bytearray = field(default_factory=bytearray)


class HeaderWalk:
    """One pass over the elements of one Data Set."""

    def __init__(self, data: bytes, *, implicit: bool, big_endian: bool, whole: bool, limits: PlainLimits) -> None:
        """``data``: begins with the first element; ``whole``: it is all there is. ``limits`` are counted down."""
        self._data, self._whole, self._limits = data, whole, limits
        order = ">" if big_endian else "<"
        self._big_endian = big_endian
        self._explicit_head = struct.Struct(order + "HH2sH").unpack_from
        self._implicit_head = struct.Struct(order + "HHI").unpack_from
        self._long = struct.Struct(order + "I").unpack_from
        self._at = 0
        self._result = Walked()
        self._open = [_Open(sequence=False, end=None, implicit=self._is_implicit(implicit, top=True))]

    def run(self) -> Walked:
        """The header. Raises NotAnalysable for nonsense and broken limits, MoreNeeded."""
        while self._open:
            top = self._open[-1]
            if top.end is not None and self._at >= top.end:
                self._close()
            elif top.sequence:
                self._item()
            elif not (self._ordinary(top) or self._element()):
                break
        if len(self._open) > 1:
            raise NotAnalysable("a sequence in a header is not closed")
        if self._open:
            self._result.plain = bytes(self._open[0].out)
        return self._result

    def _ordinary(self, top: _Open) -> bool:
        """Pass over elements with a length of two bytes, the bulk of any header, in one go; whether there were any."""
        if top.implicit or self._big_endian:
            return False
        data, head, out, begin = self._data, self._explicit_head, top.out, self._at
        at, last = begin, len(data) - 8 if top.end is None else min(len(data) - 8, top.end - 1)
        while at <= last:
            group, number, vr, length = head(data, at)
            stop = at + 8 + length
            if vr not in SHORT_VR or group >= 0x5000 or stop > len(data) or self._limits.elements <= 0:
                break
            self._limits.elements -= 1
            if top.kept and not group & 1 and group >= 0x0008 and number:
                out += ELEMENT.pack(group, number, vr, length)
                out += data[at + 8 : stop]
            at = stop
        self._at = at
        return at > begin

    def _element(self) -> bool:
        """Read one element of the innermost Data Set; False when the outermost ends."""
        top, data = self._open[-1], self._data
        if self._at + 8 > len(data):
            return self._at_end()
        group, number, vr, length, width = self._head(top)
        tag = group << 16 | number
        if tag == ITEM_END:
            self._at += 8
            if len(self._open) == 1:
                return False
            self._close()
            return True
        if len(self._open) == 1 and tag in _PIXEL_DATA:
            place = None if length == UNDEFINED_LENGTH else length
            self._result.pixels = PixelPlace(tag, vr, self._at + width, place)
            return False
        self._count_element()
        self._at += width
        if vr in (NO_VR, UNKNOWN_VR):
            vr = self._resolved(tag, vr, length)
        if vr == SEQUENCE_VR:
            self._begin_sequence(tag, length)
        elif length == UNDEFINED_LENGTH:
            self._pass_undefined()
        else:
            self._value(top, tag, vr, length)
        return True

    def _head(self, top: _Open) -> tuple[int, int, bytes, int, int]:
        """Group, element, VR, length and width of the head of the element at hand."""
        data, at = self._data, self._at
        if not top.implicit:
            group, number, vr, length = self._explicit_head(data, at)
            if vr in SHORT_VR:
                return group, number, vr, length, 8
            if vr in LONG_VR:
                if at + 12 > len(data):
                    raise self._too_short()
                return group, number, vr, self._long(data, at + 8)[0], 12
            if b"AA" <= vr <= b"ZZ":
                return group, number, UNKNOWN_VR, length, 8
        group, number, length = self._implicit_head(data, at)
        return group, number, NO_VR, length, 8

    def _resolved(self, tag: int, vr: bytes, length: int) -> bytes:
        """SQ for what the dictionary or its first tag tells to be one, else ``vr``."""
        if vr_by_dictionary(tag) == "SQ" or (vr == UNKNOWN_VR and length == UNDEFINED_LENGTH):
            return SEQUENCE_VR
        if length == UNDEFINED_LENGTH:
            if self._at + 8 > len(self._data):
                raise self._too_short()
            group, number, _ = self._implicit_head(self._data, self._at)
            return SEQUENCE_VR if group << 16 | number in (ITEM_BEGIN, SEQUENCE_END) else vr
        return vr

    def _begin_sequence(self, tag: int, length: int) -> None:
        top = self._open[-1]
        kept = top.kept and _wanted(tag)
        if length != UNDEFINED_LENGTH:
            self._require(length)
            if not kept:
                self._at += length
                return
        if len(self._open) > 2 * self._limits.depth:
            raise NotAnalysable(TOO_DEEP)
        end = None if length == UNDEFINED_LENGTH else self._at + length
        self._open.append(_Open(sequence=True, end=end, implicit=top.implicit, tag=tag, kept=kept))

    def _item(self) -> None:
        """Begin the next item of the innermost sequence, or end it."""
        top = self._open[-1]
        if self._at + 8 > len(self._data):
            if not self._whole:
                raise MoreNeeded
            self._spoiled()
            return
        group, number, length = self._implicit_head(self._data, self._at)
        tag = group << 16 | number
        self._at += 8
        if tag == SEQUENCE_END:
            self._close()
        elif tag != ITEM_BEGIN:
            self._spoiled()
        else:
            self._limits.items -= 1
            if self._limits.items < 0:
                raise NotAnalysable(TOO_MANY)
            if length != UNDEFINED_LENGTH:
                self._require(length)
            end = None if length == UNDEFINED_LENGTH else self._at + length
            implicit = self._is_implicit(top.implicit, top=False)
            self._open.append(_Open(sequence=False, end=end, implicit=implicit, kept=top.kept))

    def _close(self) -> None:
        """End the innermost sequence or item: it becomes part of what it lies in."""
        done = self._open.pop()
        if not self._open or not done.kept:
            return
        out = self._open[-1].out
        if done.sequence:
            out += ELEMENT.pack(done.tag >> 16, done.tag & 0xFFFF, SEQUENCE_VR, len(done.out))
        else:
            out += ITEM.pack(len(done.out))
        out += done.out

    def _spoiled(self) -> None:
        """Nonsense in a sequence: the outermost one of known length is passed over. Raises NotAnalysable."""
        for index, one in enumerate(self._open):
            if one.sequence and one.end is not None:
                self._at = one.end
                del self._open[index:]
                return
        raise NotAnalysable("a sequence in a header is damaged")

    def _value(self, top: _Open, tag: int, vr: bytes, length: int) -> None:
        self._require(length)
        start, self._at = self._at, self._at + length
        if tag in _OFFSETS and len(self._open) == 1:
            self._result.offsets[tag] = self._data[start : self._at]
        if not top.kept or not _wanted(tag) or length > _MOST_VALUE:
            return
        value = self._data[start : self._at]
        if self._big_endian and (size := _WORD.get(vr)) and length and length % size == 0:
            value = np.frombuffer(value, f">u{size}").astype(f"<u{size}").tobytes()
        top.out += ELEMENT.pack(tag >> 16, tag & 0xFFFF, vr, length)
        top.out += value

    def _pass_undefined(self) -> None:
        """A value of undefined length that is no sequence: nothing in a header needs it."""
        end = self._data.find(b"\xfe\xff\xdd\xe0" if not self._big_endian else b"\xff\xfe\xe0\xdd", self._at)
        if end < 0 or end + 8 > len(self._data):
            raise self._too_short()
        self._at = end + 8

    def _count_element(self) -> None:
        self._limits.elements -= 1
        if self._limits.elements < 0:
            raise NotAnalysable(TOO_MANY)

    def _require(self, length: int) -> None:
        if self._at + length > len(self._data):
            raise self._too_short()

    def _too_short(self) -> Exception:
        return NotAnalysable(BEYOND) if self._whole else MoreNeeded()

    def _at_end(self) -> bool:
        """Fewer bytes than an element needs are left: trailing padding, or the file was cut."""
        if not self._whole:
            raise MoreNeeded
        if len(self._open) > 1:
            self._spoiled()
            return True
        return False

    def _is_implicit(self, declared: bool, *, top: bool) -> bool:
        """Whether the elements from here on have no VR. Items of implicit data sets stay so."""
        vr = self._data[self._at + 4 : self._at + 6]
        if len(vr) < 2 or (declared and not top):
            return declared
        return not (0x40 < vr[0] < 0x5B and 0x40 < vr[1] < 0x5B)


def _wanted(tag: int) -> bool:
    """Public elements of a header; no group lengths, curves, overlays and pixels."""
    group = tag >> 16
    if group & 1 or tag & 0xFFFF == 0 or not 0x0008 <= group < 0x7FE0:
        return False
    return group & 0xFF00 not in (0x5000, 0x6000)
