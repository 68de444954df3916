"""Dates and ages under Retain Longitudinal Temporal Information (PS3.15 E.3.6, trust D12 and D18)."""

from __future__ import annotations

import re
from datetime import date, timedelta

_DATE = re.compile(r"[0-9]{8}")
_DATE_TIME = re.compile(r"([0-9]{8})((?:[0-9]{2}){0,3}(?:\.[0-9]{1,6})?(?:[+-][0-9]{4})?)")
_YEARS = re.compile(r"([0-9]{3})Y")
_TIME = re.compile(r"[0-9]{2}(?:[0-9]{2}(?:[0-9]{2}(?:\.[0-9]{1,6})?)?)?")
DATE_KINDS = frozenset({"DA", "DT", "TM"})
MOST_YEARS = 89


def shifted_date(text: str, days: int) -> str | None:
    """DA ``text`` so many days earlier; None when it is no date, a range or before the year 1."""
    if not _DATE.fullmatch(text):
        return None
    try:
        earlier = date(int(text[:4]), int(text[4:6]), int(text[6:])) - timedelta(days=days)
    except (ValueError, OverflowError):
        return None
    return f"{earlier.year:04d}{earlier.month:02d}{earlier.day:02d}"


def shifted_date_time(text: str, days: int) -> str | None:
    """DT ``text`` so many days earlier, time, fraction and zone as they are; None when there is no full date."""
    found = _DATE_TIME.fullmatch(text)
    earlier = shifted_date(found[1], days) if found else None
    return None if found is None or earlier is None else earlier + found[2]


def shifted(kind: str, text: str, days: int) -> str | None:
    """Each value of DA, DT or TM ``text``, empty ones included; times stay. None when one of them does not parse."""
    shift = {"DA": shifted_date, "DT": shifted_date_time, "TM": _same_time}[kind]
    values = [shift(value.strip(" \0"), days) if value.strip(" \0") else "" for value in text.split("\\")]
    return None if None in values else "\\".join(value or "" for value in values)


def _same_time(text: str, days: int) -> str | None:  # noqa: ARG001 - as the others
    return text if _TIME.fullmatch(text) else None


def capped_age(text: str) -> str:
    """AS ``text``; over 89 years becomes 090Y: so few are older that the age alone would tell who it is."""
    found = _YEARS.fullmatch(text.strip(" \0"))
    return f"{MOST_YEARS + 1:03d}Y" if found and int(found[1]) > MOST_YEARS else text
