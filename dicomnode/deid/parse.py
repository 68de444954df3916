"""Untrusted bytes to a tree of elements: every length is checked, nesting and number are bounded.

Values of opaque VRs that are long stay in the file; only their place is told.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from dicomnode.deid.refusal import Quarantined, Reason
from dicomnode.deid.tree import PIXEL_DATA, Element, Items, Span, dictionary_kind, written_kind
from dicomnode.dicom.encoding import ANY_VR, ITEM_BEGIN, ITEM_END, SEQUENCE_END, UNDEFINED_LENGTH
from dicomnode.dicom.header import explicit_reader, implicit_reader
from dicomnode.dicom.header_source import MalformedHeader, MemorySource

PIXEL_TAGS = frozenset({0x7FE00001, 0x7FE00002, 0x7FE00003, 0x7FE00008, 0x7FE00009, PIXEL_DATA})
"""Pixel data and what tells where their frames are (PS3.3 C.7.6.3, C.7.6.24)."""
_OPAQUE = frozenset({"OB", "OW", "OF", "OD", "OL", "OV", "UN", ""})
_ITEM = b"\xfe\xff\x00\xe0"
_Reader = Callable[[bytes | memoryview, int], tuple[int, bytes, int, int]]


@dataclass(frozen=True, slots=True)
class TreeLimits:
    """``depth``: of sequences in sequences. ``elements``: all of them, items included. ``long_bytes``: opaque values
    from this length on stay in the file. ``value_bytes``: no other value may be longer."""

    depth: int = 64
    elements: int = 1_000_000
    long_bytes: int = 65_536
    value_bytes: int = 256 << 20


class TreeParser:
    """Reads one data set from ``source``.

    A VR that the standard does not have is taken as that of PS3.6, and so is one that is missing where the encoding
    names them: what is written then is explicit throughout.
    """

    def __init__(self, source: MemorySource, *, implicit: bool, big_endian: bool, limits: TreeLimits) -> None:
        order = ">" if big_endian else "<"
        self._source, self._limits, self._budget = source, limits, limits.elements
        self._read: _Reader = implicit_reader(order) if implicit else explicit_reader(order)
        self._explicit = None if implicit else self._read
        self._order = order

    def root(self, position: int) -> list[Element]:
        """Every element from ``position`` to the end of the source. Raises Quarantined."""
        try:
            return self._elements(position, -1, self._read, 0)[0]
        except (struct.error, MalformedHeader):
            raise Quarantined(Reason.MALFORMED, "a length goes beyond the end of the data") from None

    def _elements(self, position: int, end: int, read: _Reader, depth: int) -> tuple[list[Element], int]:
        """The elements up to ``end``; -1: up to the delimiter of the item, or of the source at depth 0."""
        found: list[Element] = []
        source, names_vr = self._source, read is self._explicit
        while end < 0 or position < end:
            if not self._ready(position):
                if depth == 0:
                    return found, position
                raise Quarantined(Reason.MALFORMED, "an item is not closed")
            tag, vr, length, width = read(source.data, position - source.base)
            self._count()
            if tag == ITEM_END:
                position += 8
                if end < 0 and depth:
                    return found, position
                continue
            if tag >> 16 == 0xFFFE:
                raise Quarantined(Reason.MALFORMED, "a delimiter stands where an element should be")
            known = vr.decode("latin-1") if vr in ANY_VR or not names_vr else written_kind(tag)
            element, position = self._element(tag, known, length, position + width, read, depth)
            found.append(element)
        if position != end:
            raise Quarantined(Reason.MALFORMED, "an element goes beyond its item")
        return found, position

    def _element(self, tag: int, vr: str, length: int, position: int, read: _Reader, depth: int) -> tuple[Element, int]:
        kind = vr or dictionary_kind(tag)
        if length == UNDEFINED_LENGTH:
            if kind in ("OB", "OW") or tag == PIXEL_DATA:
                end = self._fragments(position)
                return Element(tag, vr, Span(position, end - position, undefined=True)), end
            if vr not in ("", "SQ", "UN"):
                raise Quarantined(Reason.MALFORMED, "a value of undefined length is no sequence")
            alien = kind == "UN"
            items, end = self._items(position, -1, implicit_reader("<") if alien else read, depth + 1)
            return Element(tag, vr or "SQ", Items(items, alien=alien and vr == "UN")), end
        end = position + length
        if not self._source.reaches(end):
            raise Quarantined(Reason.MALFORMED, "a length goes beyond the end of the data")
        if (length >= self._limits.long_bytes and kind in _OPAQUE) or (tag in PIXEL_TAGS and length):
            return Element(tag, vr, Span(position, length)), end
        if length > self._limits.value_bytes:
            raise Quarantined(Reason.LIMIT, "a value is too long")
        if kind == "SQ" and vr != "UN":
            return self._sequence(tag, vr, position, end, read, depth), end
        value = self._value(position, length)
        if vr == "UN" and value.startswith(_ITEM):
            return self._sequence(tag, vr, position, end, implicit_reader("<"), depth), end
        return Element(tag, vr, value), end

    def _sequence(self, tag: int, vr: str, position: int, end: int, read: _Reader, depth: int) -> Element:
        """Of defined length. One that cannot be read stays bytes: nothing of it may be kept then."""
        try:
            items, _ = self._items(position, end, read, depth + 1)
        except Quarantined as fault:
            if fault.reason is not Reason.MALFORMED:
                raise
            return Element(tag, vr, self._value(position, end - position))
        except struct.error:
            return Element(tag, vr, self._value(position, end - position))
        return Element(tag, vr, Items(items, alien=vr == "UN"))

    def _items(self, position: int, end: int, read: _Reader, depth: int) -> tuple[tuple[list[Element], ...], int]:
        if depth > self._limits.depth:
            raise Quarantined(Reason.TOO_DEEP)
        items: list[list[Element]] = []
        order = "<" if read is not self._read else self._order
        while end < 0 or position < end:
            if not self._ready(position):
                raise Quarantined(Reason.MALFORMED, "a sequence is not closed")
            tag, length = self._delimiter(position, order)
            self._count()
            position += 8
            if tag == SEQUENCE_END:
                if end < 0:
                    return tuple(items), position
                continue
            if tag != ITEM_BEGIN or (length != UNDEFINED_LENGTH and end >= 0 and position + length > end):
                raise Quarantined(Reason.MALFORMED, "a sequence holds something else than items")
            until = -1 if length == UNDEFINED_LENGTH else position + length
            item, position = self._elements(position, until, read, depth)
            items.append(item)
        return tuple(items), position

    def _fragments(self, position: int) -> int:
        """The end of encapsulated values, delimiter included (PS3.5 A.4)."""
        while self._ready(position):
            tag, length = self._delimiter(position, self._order)
            self._count()
            position += 8
            if tag == SEQUENCE_END:
                return position
            if tag != ITEM_BEGIN or length == UNDEFINED_LENGTH:
                break
            position += length
        raise Quarantined(Reason.MALFORMED, "encapsulated values are not closed")

    def _delimiter(self, position: int, order: str) -> tuple[int, int]:
        group, number, length = struct.unpack_from(order + "HHI", self._source.data, position - self._source.base)
        return group << 16 | number, length

    def _value(self, position: int, length: int) -> bytes:
        source = self._source
        start = position - source.base
        if start < 0 or start + length > len(source.data):
            source.move(position, length)
            start = 0
        value = bytes(source.data[start : start + length])
        if len(value) != length:
            raise Quarantined(Reason.MALFORMED, "a length goes beyond the end of the data")
        return value

    def _ready(self, position: int) -> bool:
        """Bring the head of an element into the window. False at the end; zeros after the last element are none."""
        source = self._source
        start = position - source.base
        if start >= 0 and start + 12 <= len(source.data):
            return True
        source.move(position)
        rest = source.data[position - source.base :]
        return len(rest) >= 8 or any(rest)

    def _count(self) -> None:
        self._budget -= 1
        if self._budget < 0:
            raise Quarantined(Reason.LIMIT, "too many elements")
