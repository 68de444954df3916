"""What can be sent of a file: read with plain byte arithmetic, so that no parser stands between file and receiver."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, replace

from dicomnode.dicom.sop_classes import CT_IMAGE
from tests.raw_scu import EXPLICIT, IMPLICIT, Context

META_LIMIT = 1 << 20
HEADER_LIMIT = 1 << 22
BIG_ENDIAN = "1.2.840.10008.1.2.2"
_LONG = {b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"UN", b"UT", b"UC", b"UR", b"SV", b"UV"}
_UID = re.compile(r"[0-9]+(\.[0-9]+)+")
_IDENTITY = ((0x0020, 0x000D), (0x0020, 0x000E), (0x0008, 0x0018))


@dataclass(frozen=True, slots=True)
class Attempt:
    """One C-STORE to try: ``data`` as it stands in the file. ``assumed``: SOP Class or syntax is a guess of ours."""

    context: Context
    instance: str
    data: bytes
    assumed: bool


def attempts(content: bytes, number: int) -> list[Attempt]:
    """How a file can be put to a receiver: as its meta information says, else as CT in both plain syntaxes.

    ``number`` makes the SOP Instance UID where the file names none.
    """
    named = _named(content)
    return [named] if named is not None else assumed(content, number)


def assumed(content: bytes, number: int) -> list[Attempt]:
    """The bytes as a CT Image, Explicit and Implicit VR Little Endian, with the UID that they seem to name."""
    meta = _walk_meta(content)
    data = content[meta[1] :] if meta is not None else content
    found = []
    for syntax in (EXPLICIT, IMPLICIT):
        instance = _value(data, 0x0008, 0x0018, syntax) or f"2.25.77{number}"
        sop_class = _value(data, 0x0008, 0x0016, syntax) or CT_IMAGE
        found.append(Attempt(Context(sop_class, syntax), instance, data, assumed=True))
    return found


def series_of(attempt: Attempt) -> str:
    """The Series Instance UID that the bytes seem to name, empty when there is none."""
    return _value(attempt.data, 0x0020, 0x000E, attempt.context.transfer_syntax)


def self_named(attempt: Attempt) -> list[Attempt]:
    """The same bytes under the SOP Class and Instance UID that they hold; nothing where they hold none, or the same."""
    syntax = attempt.context.transfer_syntax
    sop_class = _value(attempt.data, 0x0008, 0x0016, syntax) or attempt.context.sop_class
    instance = _value(attempt.data, 0x0008, 0x0018, syntax) or attempt.instance
    other = replace(attempt, context=Context(sop_class, syntax), instance=instance)
    return [] if other == attempt else [other]


def distinct(attempt: Attempt, number: int) -> Attempt:
    """The same bytes with Study, Series and SOP Instance UID overwritten by others of the same length.

    Files of a corpus share their UIDs; each is to be a series of its own, or only the first would be analysed. What
    is deflated, or has no such UID, or one too short to be told apart, stays as it is.
    """
    data, instance = attempt.data, attempt.instance
    for place, (group, element) in enumerate(_IDENTITY):
        old = _value(data, group, element, attempt.context.transfer_syntax)
        new = _another(old, number * len(_IDENTITY) + place) if old else ""
        if new:
            data = data.replace(old.encode("ascii"), new.encode("ascii"))
            instance = instance.replace(old, new)
    return replace(attempt, data=data, instance=instance)


def _another(uid: str, number: int) -> str:
    digits = f"9{number:07d}"
    changed = uid[: -len(digits)] + digits
    valid = all(part == "0" or not part.startswith("0") for part in changed.split("."))
    return changed if len(uid) >= len(digits) + 4 and valid and _UID.fullmatch(changed) else ""


def _named(content: bytes) -> Attempt | None:
    meta = _walk_meta(content)
    if meta is None:
        return None
    values, end = meta
    sop_class, instance, syntax = (_uid(values.get(element, b"")) for element in (0x0002, 0x0003, 0x0010))
    if not (sop_class and instance and syntax):
        return None
    return Attempt(Context(sop_class, syntax), instance, content[end:], assumed=False)


def _walk_meta(content: bytes) -> tuple[dict[int, bytes], int] | None:
    """Group 0002 by element, and where the data set begins (PS3.10 7.1); None when there is no such thing."""
    if content[128:132] != b"DICM":
        return None
    values, at = {}, 132
    while content[at : at + 2] == b"\x02\x00" and at < META_LIMIT:
        element, vr = struct.unpack_from("<H2s", content[at + 2 : at + 6].ljust(4, b"\0"))
        head, shape = (12, "<I") if vr in _LONG else (8, "<H")
        raw = content[at + (8 if head == 12 else 6) : at + head]
        if len(raw) < struct.calcsize(shape):
            return None
        length = struct.unpack(shape, raw)[0]
        if at + head + length > min(len(content), META_LIMIT):
            return None
        values[element] = content[at + head : at + head + length]
        at += head + length
    return values, at


def _uid(value: bytes) -> str:
    text = value.rstrip(b"\0 ").decode("latin-1")
    return text if _UID.fullmatch(text) and len(text) <= 64 else ""


def _value(data: bytes, group: int, element: int, syntax: str) -> str:
    """A UID near the beginning of a data set, by its tag's bytes; empty when there is none.

    What does not look like ``syntax`` is taken as Explicit, then as Implicit VR Little Endian: files lie.
    """
    order = ">" if syntax == BIG_ENDIAN else "<"
    tag = struct.pack(f"{order}HH", group, element)
    forms = ((tag + b"UI", f"{order}H"), (tag, f"{order}I"))
    for mark, shape in reversed(forms) if syntax == IMPLICIT else forms:
        at = data.find(mark, 0, HEADER_LIMIT)
        start = at + len(mark) + struct.calcsize(shape)
        if at < 0 or start > len(data):
            continue
        length = struct.unpack_from(shape, data, at + len(mark))[0]
        found = _uid(data[start : start + length]) if length <= 64 else ""
        if found:
            return found
    return ""
