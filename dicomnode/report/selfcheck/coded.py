"""Coded concepts: the Code Sequence Macro and declared private schemes (PS3.3 8.8, C.12.1.1)."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.dataset import Dataset

from dicomnode.report.patterns import value_of
from dicomnode.report.selfcheck.case import Case
from dicomnode.report.selfcheck.level import Level

_VALUES = ("CodeValue", "LongCodeValue", "URNCodeValue")
_DESIGNATOR = "CodingSchemeDesignator"
_NO_UNITS = ("1", "UCUM")

Key = tuple[str, str]


def key(item: Dataset) -> Key:
    """(value, scheme) of a Code Sequence item; ("", "") where it has none."""
    return str(value_of(item, "CodeValue") or ""), str(value_of(item, "CodingSchemeDesignator") or "")


def first(dataset: Dataset, keyword: str) -> Key:
    """(value, scheme) of the first item of the Code Sequence ``keyword``; ("", "") where there is none."""
    items = value_of(dataset, keyword) or ()
    return key(items[0]) if items else ("", "")


def code_faults(level: Level, case: Case) -> Iterator[str]:
    """Coded concepts that are incomplete, of an undeclared private scheme, or printed raw by viewers."""
    schemes = level.items.get("CodingSchemeIdentificationSequence", ())
    declared = {str(item.elements["CodingSchemeDesignator"].value) for item in schemes if _DESIGNATOR in item.elements}
    for one in level.below(case.passed["codes", frozenset(declared)]):
        for name, items in one.items.items():
            if name.endswith("CodeSequence"):
                for item in items:
                    yield from _faults(item, declared, case)


def _faults(item: Level, declared: set[str], case: Case) -> Iterator[str]:
    texts = {name: str(element.value or "") for name, element in item.values()}
    if sum(bool(texts.get(one)) for one in _VALUES) != 1:
        yield f"{item.path}CodeValue: exactly one of {', '.join(_VALUES)} (PS3.3 8.8, Type 1C)"
    scheme = texts.get(_DESIGNATOR, "")
    if not scheme and not texts.get("URNCodeValue"):
        yield f"{item.path}{_DESIGNATOR}: missing (PS3.3 8.8, Type 1C)"
    if not texts.get("CodeMeaning"):
        yield f"{item.path}CodeMeaning: missing, Type 1 (PS3.3 8.8)"
    if scheme.startswith("99") and scheme not in declared and not case.states(_DESIGNATOR, scheme):
        yield f"{item.path}{_DESIGNATOR}: private scheme without CodingSchemeIdentificationSequence item"
    if (texts.get("CodeValue"), scheme) == _NO_UNITS:
        yield f'{item.path}CodeValue: units "1" are printed raw by viewers, use an annotation such as {{score}}'
