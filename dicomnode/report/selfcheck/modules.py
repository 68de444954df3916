"""IOD conformance: mandatory modules, Types 1 and 2, nothing that belongs to no module (PS3.3 A, PS3.5 7.4)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from pydicom.dataset import Dataset

from dicomnode.report.selfcheck.case import Case
from dicomnode.report.selfcheck.level import Level
from dicomnode.report.selfcheck.tables import Attribute, Attributes, iods, merged

CONTENT_TREE = frozenset({"ContentSequence"})
"""Judged by value type and template elsewhere: the tables mix the attributes of all value types."""

_ITEM_ROOT = frozenset({"ValueType", "ConceptNameCodeSequence", "ContinuityOfContent", "ContentTemplateSequence"})
_FUNCTIONAL_GROUPS = frozenset({"SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"})
_EXTENSIONS = {"PixelMeasuresSequence": frozenset({"ImagerPixelSpacing", "PixelAspectRatio"})}
"""Standard attributes that we add where the IOD has none (Standard Extended SOP Class, PS3.2 3.11.3): the pixels of a
projection have no spacing in the patient, and viewers want the group."""

_DEMANDED = frozenset({"1", "2"})
_DOCUMENT_CONTENT = "sr-document-content"


def module_faults(level: Level, _: Case) -> Iterator[str]:
    """What the modules of the dataset's IOD demand and refuse."""
    class_of = level.elements.get("SOPClassUID")
    iod = iods().get(str(class_of.value) if class_of else "")
    if class_of is None or iod is None:
        yield "SOPClassUID: not a class of our results (PS3.4 B.5)"
        return
    present = frozenset(
        iod.owner[name]
        for name, element in level.elements.items()
        if name in iod.owner and (name not in level.items or element.value)
    )
    attributes = _judged_by(str(class_of.value), present)
    yield from _level_faults(level, attributes)


@cache
def _judged_by(sop_class: str, present: frozenset[str]) -> Attributes:
    """Of the SR Document Content Module only what the root item, a container, has (PS3.3 C.17.3)."""
    attributes = merged(sop_class, present)
    content = next((one for one in iods()[sop_class].modules if one.key == _DOCUMENT_CONTENT), None)
    if content is None:
        return attributes
    only_content = content.attributes.keys() - _ITEM_ROOT
    kept = {keyword: one for keyword, one in attributes.items() if keyword not in only_content}
    return kept | {"ContentSequence": Attribute("1")}


def _level_faults(level: Level, attributes: Attributes, extended: frozenset[str] = frozenset()) -> Iterator[str]:
    for name in level.elements:
        attribute = attributes.get(name)
        if attribute is None and name not in extended:
            yield f"{level.path}{name}: belongs to no module of this IOD here (PS3.3 Annex A)"
        elif attribute and name in level.items and name not in CONTENT_TREE:
            inside = _optional(attribute.items) if name in _FUNCTIONAL_GROUPS else attribute.items
            for item in level.items[name]:
                yield from _level_faults(item, inside, _EXTENSIONS.get(name, frozenset()))
    for keyword, attribute in attributes.items():
        if attribute.type in _DEMANDED:
            yield from _type_faults(level, keyword, attribute.type)


def _optional(attributes: Attributes) -> Attributes:
    """Which functional groups there must be is not in the tables."""
    return {keyword: Attribute("3", one.items) for keyword, one in attributes.items()}


def _type_faults(level: Level, keyword: str, of_type: str) -> Iterator[str]:
    element = level.elements.get(keyword)
    if element is None:
        yield f"{level.path}{keyword}: missing, Type {of_type} (PS3.5 7.4)"
    elif of_type == "1" and is_empty(element.value):
        yield f"{level.path}{keyword}: empty, Type 1 (PS3.5 7.4.1)"


def is_empty(value: Any) -> bool:
    """Zero length (PS3.5 7.4): no value, no item, or nothing but separators. An item, even an empty one, counts."""
    if value is None or isinstance(value, Dataset):
        return value is None
    if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
        return isinstance(value, (str, bytes)) and not value
    return all(is_empty(one) for one in value)
