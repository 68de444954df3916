"""Copying attributes out of a source Dataset, decoded, so that they can be written in another character set."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydicom import config
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as DatasetSequence
from pydicom.valuerep import VR, PersonName


def copied(source: Dataset, keywords: Iterable[str]) -> Dataset:
    """A new Dataset with those of ``keywords`` that ``source`` has; text as Unicode, values otherwise unchanged.

    Values that break their VR are copied as they are: identity is never altered. Private elements and UN are
    left out of sequence items, as their text could not be decoded.
    """
    target = Dataset()
    for keyword in keywords:
        if keyword in source:
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
