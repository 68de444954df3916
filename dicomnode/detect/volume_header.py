"""Values out of headers; asking for them never raises."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import cast

from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag

from dicomnode.detect.header_plain import tag_object
from dicomnode.detect.volume_terms import MALFORMED

_CHECKS: dict[str, Callable[[str], object]] = {"DS": float, "IS": int, "CS": str, "LO": str, "SH": str, "TM": str}
_ESCAPE, _LONG = b"\x1b", 1024


@functools.cache
def _tag_of(keyword: str) -> BaseTag:
    found = tag_for_keyword(keyword)
    if found is None:
        raise ValueError(f"{keyword!r} is not a DICOM keyword")
    return tag_object(found)


def values(dataset: Dataset, keyword: str) -> tuple[object, ...]:
    """The values of an element, empty when it is absent, empty or malformed."""
    tag = _tag_of(keyword)
    raw = cast("RawDataElement | DataElement | None", dataset.get_item(tag, keep_deferred=True))
    if raw is None:
        return ()
    found = _simple(raw)
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
    """The values of a number, code or short text that is still as it was read; None where pydicom has to tell what
    they are.

    A Series of 1000 images is asked 30 such values each, which pydicom takes ten times as long for.
    """
    if not isinstance(raw, RawDataElement) or not isinstance(raw.value, bytes) or not raw.is_little_endian:
        return None
    return _plain_values(raw.VR or "", raw.value) if len(raw.value) <= _LONG else None


@functools.lru_cache(maxsize=4096)
def _plain_values(vr: str, value: bytes) -> tuple[object, ...] | None:
    """Remembered: most values are the same in all images of a Series."""
    if vr == "US":
        return (int.from_bytes(value, "little"),) if len(value) == 2 else None
    check = _CHECKS.get(vr)
    if check is None or not value.isascii() or _ESCAPE in value:
        return None
    found = tuple(part.strip(" \0") for part in value.decode("ascii").split("\\"))
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
