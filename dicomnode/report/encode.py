"""Datasets of ours in Explicit VR Little Endian (PS3.5 7.1.2), byte for byte as pydicom writes them, in less time.

Reports hold thousands of small items, for each of which pydicom opens a buffer, resolves VRs and looks up encodings.
Here plain values, which is nearly all of them, are encoded as they come; any other element is left to pydicom.
"""

from __future__ import annotations

from collections.abc import Callable
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


class NotPlain(Permanent):
    """The Dataset holds what has to be resolved first: undecoded elements, ambiguous VRs, undefined lengths."""


def encoded(dataset: Dataset, charset: str | list[str] = "ISO_IR 6") -> bytes:
    """The data set without file meta information. ``charset``: of what it is an item of. Raises NotPlain."""
    return _encoded(dataset, charset, {})


def _encoded(dataset: Dataset, charset: Any, known: dict[tuple[int, str], bytes]) -> bytes:
    """``known``: what items gave, by their id and the character set around them: many lie in hundreds of places."""
    parts: list[bytes] = []
    _write(dataset, charset, known, parts.append)
    return b"".join(parts)


def _write(dataset: Dataset, charset: Any, known: dict[tuple[int, str], bytes], out: Callable[[bytes], None]) -> None:
    elements: dict[Any, Any] = dict(dataset.items())
    stated = elements.get(0x00080005)
    if stated is not None:
        charset = stated.value
    for tag in sorted(elements):
        element = elements[tag]
        if not isinstance(element, DataElement) or len(element.VR) != 2 or not tag & 0xFFFF:
            raise NotPlain
        if element.is_undefined_length:
            raise NotPlain
        _element(element, tag, charset, known, out)


def _element(
    element: DataElement, tag: int, charset: Any, known: dict[tuple[int, str], bytes], out: Callable[[bytes], None]
) -> None:
    vr, value = str(element.VR), element.value
    if vr == "SQ":
        content = _sequence(value, charset, known)
    else:
        plain = _plain(vr, value)
        if plain is None or (len(plain) > _MOST_SHORT and vr not in _LONG):
            out(_by_pydicom(element, charset))
            return
        content = plain
    head = tag >> 16, tag & 0xFFFF, vr.encode()
    out(_LONG_HEAD.pack(*head, 0, len(content)) if vr in _LONG else _SHORT_HEAD.pack(*head, len(content)))
    out(content)


def _sequence(items: Any, charset: Any, known: dict[tuple[int, str], bytes]) -> bytes:
    parts: list[bytes] = []
    for item in items or ():
        if getattr(item, "is_undefined_length_sequence_item", False):
            raise NotPlain
        key = id(item), str(charset)
        if key not in known:
            known[key] = _encoded(item, charset, known)
        parts += (_ITEM.pack(0xFFFE, 0xE000, len(known[key])), known[key])
    return b"".join(parts)


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
