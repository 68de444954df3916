"""Element values: bytes of one Value Representation to text, int and float (PS3.5 section 6.2)."""

from __future__ import annotations

import functools
import math
import re
import struct
from collections.abc import Sequence

from pydicom.charset import CODES_TO_ENCODINGS, python_encoding

from dicomnode.dicom.summary import Value

DEFAULT_ENCODINGS = ("iso8859",)
_ENCODED_TEXT = frozenset({"SH", "LO", "ST", "LT", "UC", "UT", "PN"})
_PLAIN_TEXT = frozenset({"AE", "AS", "CS", "DA", "DT", "TM", "UI", "DS", "IS"})
_SINGLE_TEXT = frozenset({"ST", "LT", "UT", "UR"})
_BINARY = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "UV": "Q", "SV": "q", "FL": "f", "FD": "d"}
_FRAGMENTS = re.compile(rb"^[^\x1b]+|\x1b[^\x1b]*")
_TEXT_DELIMITER = re.compile(rb"[\\^=\r\n\t\f]")
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}\Z")
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\Z")
_PADDING = " \0"
REMEMBERED_BYTES = 32


def encodings_of(character_set: bytes) -> tuple[str, ...]:
    """Return the Python codecs for a Specific Character Set value (PS3.3 C.12.1.1.2).

    Unknown terms are dropped: an odd character set must not lose the header.
    """
    terms = (term.strip(_PADDING) for term in character_set.decode("iso8859").split("\\"))
    known = tuple(python_encoding[term] for term in terms if term in python_encoding)
    return known or DEFAULT_ENCODINGS


def decode_value(vr: str, raw: bytes, *, big_endian: bool, encodings: Sequence[str]) -> tuple[Value, ...]:
    """Decode one element value; empty when there is no value or ``vr`` has no scalar form.

    DS gives float and IS gives int; what does not parse, or is not finite, stays text. The slices of a Series share
    most of their values: short ones are remembered.
    """
    if len(raw) <= REMEMBERED_BYTES:
        return _remembered(vr, raw, big_endian, tuple(encodings))
    return _decode(vr, raw, big_endian=big_endian, encodings=encodings)


@functools.lru_cache(maxsize=4096)
def _remembered(vr: str, raw: bytes, big_endian: bool, encodings: tuple[str, ...]) -> tuple[Value, ...]:
    return _decode(vr, raw, big_endian=big_endian, encodings=encodings)


def _decode(vr: str, raw: bytes, *, big_endian: bool, encodings: Sequence[str]) -> tuple[Value, ...]:
    if code := _BINARY.get(vr):
        return _decode_binary(code, raw, big_endian)
    if vr in _PLAIN_TEXT:
        text = raw.decode("iso8859")
    elif vr in _ENCODED_TEXT:
        text = _decode_text(raw, encodings)
    elif vr == "UR":
        text = raw.decode("iso8859")
    else:
        return ()
    parts = [text.strip(_PADDING)] if vr in _SINGLE_TEXT else [part.strip(_PADDING) for part in text.split("\\")]
    if not any(parts):
        return ()
    if vr == "DS":
        return tuple(map(_decimal, parts))
    if vr == "PN":  # trailing empty component groups are none (6.2.1)
        return tuple(part.rstrip("= ") for part in parts)
    if vr == "IS":
        return tuple(map(_integer, parts))
    return tuple(parts)


def _decode_binary(code: str, raw: bytes, big_endian: bool) -> tuple[Value, ...]:
    width = struct.calcsize("<" + code)
    count = len(raw) // width
    order = ">" if big_endian else "<"
    values = struct.unpack_from(f"{order}{count}{code}", raw)
    return tuple(value if math.isfinite(value) else str(value) for value in values)


def _decimal(text: str) -> Value:
    if _DECIMAL.match(text):
        value = float(text)
        if math.isfinite(value):
            return value
    return text


def _integer(text: str) -> Value:
    return int(text) if _INTEGER.match(text) else text


def _decode_text(raw: bytes, encodings: Sequence[str]) -> str:
    """Decode text with code extensions (PS3.5 6.1.2.5); undecodable bytes become replacement characters."""
    if b"\x1b" not in raw:
        return raw.decode(encodings[0], "replace")
    return "".join(_decode_fragment(fragment, encodings[0]) for fragment in _FRAGMENTS.findall(raw))


def _decode_fragment(fragment: bytes, default: str) -> str:
    for width in (3, 4):
        encoding = CODES_TO_ENCODINGS.get(fragment[:width])
        if encoding is None:
            continue
        if encoding.startswith(("iso2022_jp", "iso_ir_58")):
            return fragment.decode(encoding, "replace")
        body = fragment[width:]
        delimiter = _TEXT_DELIMITER.search(body)
        end = delimiter.start() if delimiter else len(body)
        return body[:end].decode(encoding, "replace") + body[end:].decode(default, "replace")
    return fragment.decode(default, "replace")
