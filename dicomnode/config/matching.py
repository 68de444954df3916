"""Does a Series satisfy a condition? Pure; says why not."""

from __future__ import annotations

import re

from dicomnode.config.rules import Condition
from dicomnode.dicom.summary import Value


def unmet(condition: Condition, values: tuple[Value, ...]) -> str:
    """Why ``values`` (all distinct values of one keyword over a Series) fail ``condition``; empty when they hold."""
    shown = _shown(values)
    if condition.exists is not None and bool(values) != condition.exists:
        return f"{shown}, but it must {'' if condition.exists else 'not '}exist"
    if condition.equals is not None and not any(
        _equal(value, wanted) for value in values for wanted in condition.equals
    ):
        return f"{shown} is not {_shown(condition.equals)}"
    if condition.regex is not None and not _matches(condition.regex, values):
        return f"{shown} does not match /{condition.regex}/"
    bounds = _out_of_bounds(condition, values)
    if bounds:
        return bounds
    if condition.not_ is not None and not unmet(condition.not_, values):
        return f"{shown} is excluded"
    return ""


def _equal(value: Value, wanted: Value) -> bool:
    number, other = _number(value), _number(wanted)
    if number is not None and other is not None:
        return number == other
    return str(value).strip().casefold() == str(wanted).strip().casefold()


def _matches(pattern: str, values: tuple[Value, ...]) -> bool:
    return any(re.search(pattern, str(value), re.IGNORECASE) for value in values)


def _out_of_bounds(condition: Condition, values: tuple[Value, ...]) -> str:
    if condition.min is None and condition.max is None:
        return ""
    numbers = [number for value in values if (number := _number(value)) is not None]
    if not numbers:
        return f"{_shown(values)} is not a number"
    if condition.min is not None and min(numbers) < condition.min:
        return f"{min(numbers):g} is below {condition.min:g}"
    if condition.max is not None and max(numbers) > condition.max:
        return f"{max(numbers):g} is above {condition.max:g}"
    return ""


def _number(value: Value) -> float | None:
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _shown(values: tuple[Value, ...]) -> str:
    if not values:
        return "no value"
    shown = ", ".join(str(value)[:40] for value in values[:4])
    return shown + (", …" if len(values) > 4 else "")
