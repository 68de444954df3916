"""A data set as it lies in the file: elements with their bytes, so that what stays is unchanged to the byte."""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator
from typing import NamedTuple

from pydicom.datadict import dictionary_has_tag, dictionary_VM, dictionary_VR

from dicomnode.dicom.encoding import ITEM_BEGIN, LONG_VR, UNDEFINED_LENGTH
from dicomnode.errors import Permanent

PIXEL_DATA = 0x7FE00010
_MOST_LENGTH = UNDEFINED_LENGTH - 1
_MOST_SHORT = 0xFFFF


class Span(NamedTuple):
    """A long value that stays where it is: ``length`` bytes from ``start`` of the source on.

    ``undefined``: the value has undefined length, and its closing delimiter is part of the span (PS3.5 A.4).
    """

    start: int
    length: int
    undefined: bool = False


class Items(NamedTuple):
    """The items of a sequence. ``alien``: written as Implicit VR Little Endian inside UN (PS3.5 6.2.2)."""

    items: tuple[list[Element], ...]
    alien: bool = False


class Element(NamedTuple):
    """One Data Element. ``vr``: as it is written; empty where the encoding names none."""

    tag: int
    vr: str
    value: bytes | Span | Items

    @property
    def kind(self) -> str:
        """The VR that counts: the written one, else that of PS3.6; of an ambiguous one the first."""
        return self.vr if self.vr and self.vr != "UN" else dictionary_kind(self.tag)


class Form(NamedTuple):
    """How a data set is encoded (PS3.5 7.1, annex A)."""

    implicit: bool
    big_endian: bool


ALIEN = Form(implicit=True, big_endian=False)


def dictionary_kind(tag: int) -> str:
    """The VR of PS3.6, the first one of an ambiguous tag; UN when the dictionary lacks the tag."""
    return dictionary_VR(tag)[:2] if dictionary_has_tag(tag) else "UN"


@functools.lru_cache(maxsize=4096)
def most_values(tag: int) -> int:
    """How many values PS3.6 allows at most; 0 where it does not say, or counts a row of bytes as one."""
    known = dictionary_has_tag(tag) and not dictionary_VR(tag).startswith("O")
    most = dictionary_VM(tag).rpartition("-")[2] if known else ""
    return int(most) if most.isdecimal() else 0


def written_kind(tag: int) -> str:
    """The VR to give an element that came without one in an explicit encoding."""
    return "OW" if tag == PIXEL_DATA else dictionary_kind(tag)


def text_element(tag: int, text: str, encoding: str = "ascii") -> Element:
    """An element of the dictionary's text VR, padded to even length (PS3.5 6.2). Raises UnicodeEncodeError."""
    vr = dictionary_kind(tag)
    value = text.encode(encoding)
    return Element(tag, vr, value + (b"\0" if vr == "UI" else b" ") * (len(value) % 2))


def encoded(elements: list[Element], form: Form) -> Iterator[bytes | Span]:
    """The elements in the order they stand in, as bytes and as spans of their source."""
    return iter(_item(elements, form)[0])


def _item(elements: list[Element], form: Form) -> tuple[list[bytes | Span], int]:
    pieces: list[bytes | Span] = []
    size = 0
    for element in elements:
        value = element.value
        if isinstance(value, Items):
            inner, length = _items(value, form)
            head = _head(element, length, form)
            pieces.append(head)
            pieces += inner
        elif isinstance(value, Span):
            length = value.length
            head = _head(element, UNDEFINED_LENGTH if value.undefined else length, form)
            pieces += (head, value)
        else:
            length = len(value)
            head = _head(element, length, form)
            pieces.append(head + value)
        size += len(head) + length
    return pieces, size


def _items(value: Items, form: Form) -> tuple[list[bytes | Span], int]:
    if value.alien:
        form = ALIEN
    pieces: list[bytes | Span] = []
    size = 0
    for item in value.items:
        inner, length = _item(item, form)
        if length > _MOST_LENGTH - 8 - size:
            raise Permanent("a sequence is too long")
        pieces.append(_delimiter(ITEM_BEGIN, length, form))
        pieces += inner
        size += 8 + length
    return pieces, size


def _head(element: Element, length: int, form: Form) -> bytes:
    group, number, order = element.tag >> 16, element.tag & 0xFFFF, ">" if form.big_endian else "<"
    vr = element.vr.encode("latin-1")
    if form.implicit or not vr:
        return struct.pack(order + "HHI", group, number, length)
    if vr in LONG_VR:
        return struct.pack(order + "HH2sHI", group, number, vr, 0, length)
    if length > _MOST_SHORT:  # PS3.5 6.2.2, note 6
        return struct.pack(order + "HH2sHI", group, number, b"UN", 0, length)
    return struct.pack(order + "HH2sH", group, number, vr, length)


def _delimiter(tag: int, length: int, form: Form) -> bytes:
    return struct.pack(">HHI" if form.big_endian else "<HHI", tag >> 16, tag & 0xFFFF, length)
