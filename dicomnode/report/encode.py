"""Datasets of ours in Explicit VR Little Endian (PS3.5 7.1.2), byte for byte as pydicom writes them, in less time.

Reports hold thousands of small items, for each of which pydicom opens a buffer, resolves VRs and looks up encodings.
Here plain values, which is nearly all of them, are encoded as they come; any other element is left to pydicom.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from struct import Struct
from typing import Any

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element

from dicomnode.errors import Permanent

_TEXT = frozenset({"CS", "LO", "LT", "SH", "ST", "UC", "UT", "AE", "AS", "DA", "TM", "DT", "UR", "UI"})
_NUMBER = frozenset({"DS", "IS"})
_BYTES = frozenset({"OB", "OW", "OF", "OD", "OL", "OV", "UN"})
_LONG = _BYTES | {"SQ", "UC", "UR", "UT", "SV", "UV"}
"""VRs with a length field of 32 bits (PS3.5 table 7.1-1)."""

_BINARY = {"US": Struct("<H"), "UL": Struct("<L"), "SS": Struct("<h"), "SL": Struct("<l")} | {
    "FL": Struct("<f"),
    "FD": Struct("<d"),
}
_SHORT_HEAD, _LONG_HEAD, _ITEM = Struct("<HH2sH"), Struct("<HH2sHL"), Struct("<HHL")
_MOST_SHORT = 0xFFFF
_SHORT = 1024
"""Bytes of the longest value that is kept; pixels are not."""

_CHARSET = 0x00080005


class NotPlain(Permanent):
    """The Dataset holds what has to be resolved first: undecoded elements, ambiguous VRs, undefined lengths."""


def encoded(dataset: Dataset, charset: str = "ISO_IR 6") -> bytes:
    """The data set without file meta information. ``charset``: of what it is an item of. Raises NotPlain."""
    return Encoder().encoded(dataset, charset)


class Encoder:
    """Encodes the objects of one result set: what lies in several of their places is encoded once.

    It keeps what it was given, but for long values, so that an ``id`` names one thing only; nobody may change an
    object's items while others of the set are still to come.
    """

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}

    def encoded(self, dataset: Dataset, charset: str = "ISO_IR 6") -> bytes:
        """The data set without file meta information. ``charset``: of what it is an item of. Raises NotPlain."""
        return b"".join(self.parts(dataset, charset))

    def parts(self, dataset: Dataset, charset: str = "ISO_IR 6") -> list[bytes]:
        """``encoded`` in pieces: none of them is a copy of a long value. Raises NotPlain."""
        parts: list[bytes] = []
        self._write(dataset, charset, parts.append)
        return parts

    def _write(self, dataset: Dataset, charset: Any, out: Callable[[bytes], None]) -> None:
        elements: list[tuple[int, Any]] = sorted([(int(tag), element) for tag, element in dataset.items()], key=_tag)
        for tag, element in elements:
            if tag == _CHARSET:
                charset = element.value
        known = self._known.setdefault(str(charset), _Known())
        for tag, element in elements:
            found = known.elements.get(id(element))
            if found is not None:
                out(found[1])
                continue
            if not isinstance(element, DataElement) or len(element.VR) != 2 or not tag & 0xFFFF:
                raise NotPlain
            if element.is_undefined_length:
                raise NotPlain
            head, content = self._element(element, tag, charset, known)
            if len(content) <= _SHORT:
                known.elements[id(element)] = element, head + content
            out(head)
            out(content)

    def _element(self, element: DataElement, tag: int, charset: Any, known: _Known) -> tuple[bytes, bytes]:
        """Its head and its content; where pydicom has to say how it is written, both are in the second."""
        vr, value = str(element.VR), element.value
        if vr == "SQ":
            content = self._sequence(value, charset, known)
        else:
            plain = _plain(vr, value)
            if plain is None or (len(plain) > _MOST_SHORT and vr not in _LONG):
                return b"", _by_pydicom(element, charset)
            content = plain
        head = tag >> 16, tag & 0xFFFF, vr.encode()
        if vr in _LONG:
            return _LONG_HEAD.pack(*head, 0, len(content)), content
        return _SHORT_HEAD.pack(*head, len(content)), content

    def _sequence(self, items: Any, charset: Any, known: _Known) -> bytes:
        parts: list[bytes] = []
        for item in items or ():
            found = known.items.get(id(item))
            if found is None:
                if getattr(item, "is_undefined_length_sequence_item", False):
                    raise NotPlain
                inside: list[bytes] = []
                self._write(item, charset, inside.append)
                content = b"".join(inside)
                found = known.items[id(item)] = item, _ITEM.pack(0xFFFE, 0xE000, len(content)) + content
            parts.append(found[1])
        return b"".join(parts)


@dataclass(slots=True)
class _Known:
    """What was encoded in one character set, by its id: items with their heads, and elements."""

    items: dict[int, tuple[Dataset, bytes]] = field(default_factory=dict)
    elements: dict[int, tuple[DataElement, bytes]] = field(default_factory=dict)


def _tag(element: tuple[int, Any]) -> int:
    return element[0]


def _plain(vr: str, value: Any) -> bytes | None:
    """The value padded to an even length, None where pydicom has to say how it is written."""
    if value is None or value == "":
        return b""
    if vr in _TEXT:
        return _text(vr, value)
    if vr in _NUMBER:
        return _numbers(value)
    if vr in _BYTES:
        return value + b"\0" * (len(value) % 2) if isinstance(value, bytes) else None
    if vr in _BINARY and isinstance(value, (int, float)):
        return _BINARY[vr].pack(value)
    return None


def _text(vr: str, value: Any) -> bytes | None:
    if not isinstance(value, str) or not value.isascii():
        return None
    return _even(value.encode("ascii"), b"\0" if vr == "UI" else b" ")


def _numbers(value: Any) -> bytes | None:
    values = value if hasattr(value, "append") else [value]
    if not all(isinstance(one, (int, float, str)) or hasattr(one, "original_string") for one in values):
        return None
    texts = (one.original_string if hasattr(one, "original_string") else str(one) for one in values)
    return _even("\\".join(texts).encode("latin-1"), b" ")


def _even(content: bytes, padding: bytes) -> bytes:
    return content + padding if len(content) % 2 else content


def _by_pydicom(element: DataElement, charset: Any) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_data_element(buffer, element, charset)
    return buffer.getvalue()
