"""Values out of headers; asking for them never raises."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag

from dicomnode.detect.header_plain import tag_object
from dicomnode.detect.volume_terms import MALFORMED

_CHECKS: dict[str, Callable[[str], object]] = {"DS": float, "IS": int, "CS": str}


@functools.cache
def _tag_of(keyword: str) -> BaseTag:
    found = tag_for_keyword(keyword)
    if found is None:
        raise ValueError(f"{keyword!r} is not a DICOM keyword")
    return tag_object(found)


def values(dataset: Dataset, keyword: str) -> tuple[object, ...]:
    """The values of an element, empty when it is absent, empty or malformed."""
    tag = _tag_of(keyword)
    if tag not in dataset:
        return ()
    found = _simple(dataset.get_item(tag))
    if found is not None:
        return found
    try:
        value = dataset[tag].value
    except MALFORMED:
        return ()
    if value is None or value == "":
        return ()
    return tuple(value) if isinstance(value, (MultiValue, list, tuple)) else (value,)


def _simple(raw: RawDataElement | DataElement) -> tuple[object, ...] | None:
    """The values of a number or code that is still as it was read; None where pydicom has to tell what they are.

    A Series of 1000 images is asked 30 such values each, which pydicom takes ten times as long for.
    """
    if not isinstance(raw, RawDataElement) or not isinstance(raw.value, bytes) or not raw.value.isascii():
        return None
    if raw.VR == "US":
        return (int.from_bytes(raw.value, "little"),) if len(raw.value) == 2 and raw.is_little_endian else None
    check = _CHECKS.get(raw.VR or "")
    if check is None:
        return None
    found = tuple(part.strip(" \0") for part in raw.value.decode("ascii").split("\\"))
    try:
        for part in found:
            check(part)
    except ValueError:
        return None
    return found if any(found) else ()


def text(dataset: Dataset, keyword: str) -> str:
    """The first value as text, upper case and stripped; empty when there is none."""
    found = values(dataset, keyword)
    return str(found[0]).strip().upper() if found else ""


def numbers(dataset: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """Exactly ``count`` finite numbers, or None."""
    found = values(dataset, keyword)
    if len(found) != count:
        return None
    try:
        result = tuple(float(value) for value in found)  # type: ignore[arg-type]
    except MALFORMED:
        return None
    return result if all(map(math.isfinite, result)) else None


def number(dataset: Dataset, keyword: str) -> float | None:
    """The first value as a finite number, or None."""
    found = values(dataset, keyword)[:1]
    try:
        result = float(found[0])  # type: ignore[arg-type]
    except MALFORMED:
        return None
    return result if math.isfinite(result) else None


def integer(dataset: Dataset, keyword: str) -> int | None:
    """The first value as an integer, or None (also for a number that is not whole)."""
    found = number(dataset, keyword)
    return int(found) if found is not None and found == int(found) else None


def items(dataset: Dataset, keyword: str) -> tuple[Dataset, ...]:
    """The items of a sequence, empty when it is absent or malformed."""
    try:
        sequence = dataset.get(keyword)
        return tuple(item for item in sequence or () if isinstance(item, Dataset))
    except MALFORMED:
        return ()
