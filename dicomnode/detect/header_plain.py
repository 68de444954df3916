"""The plain form of a header: what a child that has read a file says of it, and what the parent makes a Dataset of.

One element is tag (two words), VR (two letters, zeros where the dictionary decides), length and value, little endian
throughout. A sequence holds, per item, its length and its elements; no length is undefined. So the parent needs no
parser of DICOM, and the work of reading is bounded by ``PlainLimits`` whatever the child sends.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import MutableSequence
from dataclasses import dataclass, field
from typing import cast

from pydicom import Dataset
from pydicom.charset import convert_encodings, default_encoding
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement, empty_value_for_VR
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.values import convert_string

from dicomnode.dicom.encoding import ANY_VR
from dicomnode.errors import Permanent

ELEMENT, ITEM = struct.Struct("<HH2sI"), struct.Struct("<I")
NO_VR, SEQUENCE_VR, UNKNOWN_VR = b"\0\0", b"SQ", b"UN"
_CHARACTER_SET, _SYNTAX = 0x00080005, BaseTag(0x00020010)
_LONG, _MOST_ALIKE = 128, 20_000
_Encoding = str | MutableSequence[str]


class NotPlain(Permanent):
    """Bytes that are no header in plain form, or more than the limits allow."""


@dataclass(slots=True)
class PlainLimits:
    """What is left to use for headers: ``elements`` and ``items``, counted down; ``depth`` of sequences.

    ``alike``: elements of the headers so far by their bytes. The headers of one Series differ in a dozen of their
    elements, so that most of a header is found here; raw elements cannot change.
    """

    elements: int = 4_000_000
    items: int = 400_000
    depth: int = 64
    alike: dict[bytes, RawDataElement] = field(default_factory=dict)


@functools.lru_cache(maxsize=8192)
def vr_by_dictionary(tag: int) -> str:
    """The VR that PS3.6 gives ``tag``, "UN" where it gives none."""
    try:
        return dictionary_VR(tag)
    except KeyError:
        return "UN"


@functools.lru_cache(maxsize=8192)
def tag_object(tag: int) -> BaseTag:
    """One object per tag: dictionaries find it by identity, without BaseTag's slow comparison."""
    return BaseTag(tag)


def dataset_of(plain: bytes | memoryview, transfer_syntax: str, limits: PlainLimits) -> Dataset:
    """The header as a Dataset whose values are converted when they are asked for, with ``file_meta``.

    Raises NotPlain.
    """
    try:
        dataset = _dataset(memoryview(plain), 0, len(plain), limits, default_encoding, 0)
    except struct.error as error:
        raise NotPlain from error
    dataset.file_meta = FileMetaDataset(_file_meta(transfer_syntax))
    return dataset


def _file_meta(transfer_syntax: str) -> dict[BaseTag, RawDataElement | DataElement]:
    if not transfer_syntax:
        return {}
    value = transfer_syntax.encode("ascii", "replace")
    return {_SYNTAX: RawDataElement(_SYNTAX, "UI", len(value), value, 0, is_implicit_VR=False, is_little_endian=True)}


def _dataset(data: memoryview, at: int, end: int, limits: PlainLimits, encoding: _Encoding, depth: int) -> Dataset:
    elements: dict[BaseTag, RawDataElement | DataElement] = {}
    own, alike, head = encoding, limits.alike, ELEMENT.size
    while at < end:
        group, number, vr, length = ELEMENT.unpack_from(data, at)
        begin, at = at, at + head
        limits.elements -= 1
        if length > end - at or limits.elements < 0:
            raise NotPlain
        if vr == SEQUENCE_VR:
            tag = tag_object(group << 16 | number)
            items = _items(data, at, at + length, limits, own, depth + 1)
            elements[tag] = DataElement(tag, "SQ", items)
        else:
            content = bytes(data[begin : at + length])
            element = alike.get(content)
            if element is None:
                element = _raw(tag_object(group << 16 | number), vr, content[head:])
                if length <= _LONG and len(alike) < _MOST_ALIKE:
                    alike[content] = element
            elements[element.tag] = element
            if number == _CHARACTER_SET & 0xFFFF and group == _CHARACTER_SET >> 16:
                own = convert_encodings(convert_string(element.value or b"", True))  # noqa: FBT003 - pydicom's
        at += length
    dataset = Dataset(elements, parent_encoding=encoding)
    dataset.set_original_encoding(False, True, own)  # noqa: FBT003 - pydicom's: explicit VR, little endian
    return dataset


def _items(data: memoryview, at: int, end: int, limits: PlainLimits, encoding: _Encoding, depth: int) -> Sequence:
    if depth > limits.depth:
        raise NotPlain
    found = []
    while at < end:
        (length,) = ITEM.unpack_from(data, at)
        at += ITEM.size
        limits.items -= 1
        if length > end - at or limits.items < 0:
            raise NotPlain
        found.append(_dataset(data, at, at + length, limits, encoding, depth))
        at += length
    return Sequence(found)


def _raw(tag: BaseTag, vr: bytes, value: bytes) -> RawDataElement:
    """Refuses what pydicom would take for an encoded sequence and parse by itself."""
    if vr in (NO_VR, UNKNOWN_VR):
        if value and vr_by_dictionary(tag) == "SQ":
            raise NotPlain
    elif vr not in ANY_VR:
        raise NotPlain
    known = None if vr == NO_VR else vr.decode()
    content = value or cast("bytes | None", empty_value_for_VR(known, raw=True))
    return RawDataElement(tag, known, len(value), content, 0, is_implicit_VR=known is None, is_little_endian=True)
