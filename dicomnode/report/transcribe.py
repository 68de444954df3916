"""Copying attributes out of a source Dataset, decoded, so that they can be written in another character set."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from copy import copy
from typing import Any

from pydicom import config
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as DatasetSequence
from pydicom.tag import BaseTag
from pydicom.valuerep import VR, PersonName

_NUMBERS = frozenset({"DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV"})


def legible(headers: Sequence[Dataset]) -> list[Dataset]:
    """``headers`` without those of their numbers that are none ("abc" as Series Number): nothing can be said of them.

    A header in which all numbers can be read is in the answer itself, any other one as a shallow copy.
    """
    known: dict[int, Dataset] = {}
    for header in headers:
        if id(header) not in known:
            known[id(header)] = _without(header, [tag for tag in header.keys() if not _is_read(header, tag)])  # noqa: SIM118
    return [known[id(header)] for header in headers]


def _without(header: Dataset, tags: list[BaseTag]) -> Dataset:
    if not tags:
        return header
    rest = copy(header)
    for tag in tags:
        del rest[tag]
    return rest


def _is_read(header: Dataset, tag: BaseTag) -> bool:
    raw: Any = header.get_item(tag)
    if str(raw.VR or _vr(tag)) not in _NUMBERS:
        return True
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

    Values that break their VR are copied as they are: identity is never altered. Sequences without an item are left
    out, and in items private elements and UN, as their text could not be decoded.
    """
    target = Dataset()
    for keyword in keywords:
        if keyword in source and (source[keyword].VR != VR.SQ or source[keyword].value):
            target.add(_transcribed(source[keyword]))
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
