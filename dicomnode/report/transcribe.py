"""Copying attributes out of a source Dataset, decoded, so that they can be written in another character set."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from typing import Any, TypeVar

from pydicom import config
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as DatasetSequence
from pydicom.tag import BaseTag
from pydicom.valuerep import VR, PersonName

from dicomnode.report.patterns import held, tag_of

_NUMBERS = frozenset({"DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV"})
_DECIMAL = rb"(?![^\\ ]{17})[+-]?\d+(?:\.\d+)?"
_PLAIN = {"DS": re.compile(rb"%b(?:\\%b)* ?" % (_DECIMAL, _DECIMAL)), "IS": re.compile(rb"[+-]?\d{1,9} ?")}
"""Bytes that are read as numbers without any doubt (PS3.5 6.2), by VR: nobody has to decode them to tell."""

_TEXT = {"UI": re.compile(rb"([0-9.]+)\0?"), "IS": re.compile(rb"([1-9][0-9]{0,8}) ?")}
"""Bytes that are their own text, but for the padding, by VR."""

T = TypeVar("T")


class Legible(list[Dataset]):
    """The headers of one Series as results read them, one per plane, and what was worked out from all of them.

    It belongs to one result set: whoever makes or checks its objects shares it, so that nothing that takes a look at
    every image is done again for every object. It is not changed once it is made.
    """

    def __init__(self, headers: Iterable[Dataset]) -> None:
        super().__init__(headers)
        self._known: dict[tuple[object, ...], Any] = {}

    def once(self, key: tuple[object, ...], work: Callable[[], T]) -> T:
        """What ``work`` answers; done when ``key`` is asked for first. An ``id`` in
        ``key`` is safe when the answer holds its object."""
        if key not in self._known:
            self._known[key] = work()
        answer: T = self._known[key]
        return answer


MAX_ITEMS = 100
"""Items of a sequence that is copied into every result."""


def once(headers: Sequence[Dataset], key: tuple[object, ...], work: Callable[[], T]) -> T:
    """``Legible.once`` of ``headers``; of a plain sequence it is worked out each time."""
    return headers.once(key, work) if isinstance(headers, Legible) else work()


def legible(headers: Sequence[Dataset]) -> Legible:
    """``headers`` without those of their numbers that are none ("abc" as Series Number): nothing can be said of them.

    A header in which all numbers can be read is in the answer itself, any other one as a shallow copy.
    """
    if isinstance(headers, Legible):
        return headers
    known: dict[int, Dataset] = {}
    sound: dict[int, Any] = {}
    for header in headers:
        if id(header) not in known:
            new = [raw for raw in header.values() if id(raw) not in sound]
            unread = [raw.tag for raw in new if not _is_read(header, raw, sound)]
            known[id(header)] = _without(header, unread)
    return Legible(known[id(header)] for header in headers)


def said(header: Dataset, *keywords: str) -> tuple[object, ...]:
    """What ``header`` has in ``keywords``, as it lies there: equal for headers that say the same in the same bytes.

    Nothing is decoded. It does not tell texts apart that differ in their character set only.
    """
    return tuple(_as_it_lies(header.get_item(tag_of(keyword))) for keyword in keywords)


def text_of(header: Dataset, keyword: str) -> str:
    """The value of ``keyword`` as text, "" where it is empty or absent; plain bytes are not decoded for it."""
    raw: Any = header.get_item(tag_of(keyword))
    plain = _TEXT.get(raw.VR or "") if isinstance(raw, RawDataElement) else None
    found = plain.fullmatch(raw.value) if plain and raw.value else None
    return found[1].decode() if found else str(header.get(keyword) or "")


def distinct(headers: Iterable[Dataset], *keywords: str) -> list[Dataset]:
    """Of ``headers`` the first one for each thing that they say in ``keywords``; see ``said``. In a Series nearly all
    images say the same, and decoding it costs more than looking at it."""
    found: dict[tuple[object, ...], Dataset] = {}
    for header in headers:
        found.setdefault(said(header, *keywords), header)
    return list(found.values())


def _as_it_lies(element: Any) -> object:
    if isinstance(element, RawDataElement):
        return element.VR, element.value, element.is_implicit_VR, element.is_little_endian
    return None if element is None else str(element.value)


def _without(header: Dataset, tags: list[BaseTag]) -> Dataset:
    if not tags:
        return header
    rest = copy(header)
    for tag in tags:
        del rest[tag]
    return rest


def _is_read(header: Dataset, raw: Any, sound: dict[int, Any]) -> bool:
    """Whether the value of ``raw`` is read, when it is a number. ``raw``: an element of ``header`` as it is there,
    decoded or not. ``sound``: those that are, by their id; headers of one Series have most of theirs in common."""
    vr = raw.VR or _vr(raw.tag)
    plain = _PLAIN.get(vr) if isinstance(raw, RawDataElement) else None
    if vr in _NUMBERS and not (plain and raw.value and plain.fullmatch(raw.value)) and not _is_decoded(header, raw.tag):
        return False
    sound[id(raw)] = raw
    return True


def _is_decoded(header: Dataset, tag: BaseTag) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom quotes element values in its warnings
            value = header[tag].value
            for one in value if isinstance(value, MultiValue | list) else (value or 0,):
                float(one or 0)
    except (ValueError, TypeError, OverflowError, NotImplementedError, BytesLengthException):
        return False
    return True


def _vr(tag: BaseTag) -> str:
    return dictionary_VR(tag) if dictionary_has_tag(tag) else "UN"


def copied(source: Dataset, keywords: Iterable[str]) -> Dataset:
    """A new Dataset with those of ``keywords`` that ``source`` has; text as Unicode, values otherwise unchanged.

    Values that break their VR are copied as they are: identity is never altered. Sequences without an item, or of more
    than ``MAX_ITEMS``, which no order system writes, are left out, and in items private elements and UN, as their text
    could not be decoded.
    """
    target = Dataset()
    for keyword in keywords:
        element = held(source, keyword)
        if element is not None and (element.VR != VR.SQ or 0 < len(element.value) <= MAX_ITEMS):
            target.add(_transcribed(element))
    return target


def _transcribed(element: DataElement) -> DataElement:
    if element.VR == VR.SQ:
        value: Any = DatasetSequence([_item(item) for item in element.value or ()])
    else:
        value = _plain(element.value)
    return DataElement(element.tag, element.VR, value, validation_mode=config.IGNORE)


def _item(item: Dataset) -> Dataset:
    target = Dataset()
    for element in item:
        if element.tag.is_private or element.VR == VR.UN or element.keyword == "SpecificCharacterSet":
            continue
        if element.VR == VR.SQ and not element.value:
            continue  # an empty sequence in a request item is refused by validators (PS3.3 10.6)
        target.add(_transcribed(element))
    return target


def _plain(value: Any) -> Any:
    """Person names lose their original bytes here: pydicom would else write them back in the old encoding."""
    if isinstance(value, MultiValue):
        return [_plain(item) for item in value]
    if isinstance(value, PersonName):
        return str(value)
    return value
