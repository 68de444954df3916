"""Patient, study and series as the report page names them, from source headers that may be odd."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from dicomnode.report.page_typeface import UNWRITABLE, named, tidy, writable
from dicomnode.report.transcribe import copied

_DATE_TIME = re.compile(r"[0-9]{4}(?:[0-9]{2}){0,5}(?:(?<=[0-9]{14})\.[0-9]{1,6})?(?:[+-][0-9]{4})?")
"""VR DT (PS3.5 6.2)."""
MAX_TEXT = 1024
_TIME = re.compile(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?\Z")

UNKNOWN = "not given"
USE_THE_ID = f"{UNWRITABLE}; identify by the ID"


def stated(header: Dataset, keyword: str) -> str:
    """The text of ``keyword``, "" when the source has none; several values are joined with a slash.

    A text that is longer than any VR that is drawn allows is cut.
    """
    value = copied(header, (keyword,)).get(keyword)
    if value is None:
        return ""
    values = value if isinstance(value, MultiValue | list | tuple) else [value]
    return tidy("/".join(str(one) for one in values)[:MAX_TEXT])


def patient_name(header: Dataset) -> str:
    """The alphabetic group of Patient's Name (PS3.5 6.2.1.1) as "Family, Given Middle, Prefix Suffix".

    A name without alphabetic group, or in letters that the page cannot write, is not guessed at: the page says so
    and points to the Patient ID.
    """
    groups = stated(header, "PatientName").split("=")
    parts = [part.strip() for part in groups[0].split("^")] + [""] * 5
    name = ", ".join(text for text in (parts[0], _joined(parts[1:3]), _joined(parts[3:5])) if text)
    if name:
        return name if writable(name) else USE_THE_ID
    return USE_THE_ID if any(group.strip("^ ") for group in groups[1:]) else UNKNOWN


def _joined(parts: Sequence[str]) -> str:
    return " ".join(part for part in parts if part)


def date(text: str) -> str:
    """VR DA as ISO 8601; what is no such date stays as it is."""
    return f"{text[:4]}-{text[4:6]}-{text[6:]}" if len(text) == 8 and text.isdigit() else text


def patient_facts(header: Dataset) -> tuple[tuple[str, str], ...]:
    """What a report page is identified by; an absent value is said to be absent."""
    return (
        ("Patient", patient_name(header)),
        ("Patient ID", _known(header, "PatientID")),
        ("Born", date(_known(header, "PatientBirthDate"))),
        ("Sex", _known(header, "PatientSex")),
        ("Accession no.", _known(header, "AccessionNumber")),
        ("Study date", date(_known(header, "StudyDate"))),
        ("Study", _known(header, "StudyDescription")),
        ("Institution", _known(header, "InstitutionName")),
    )


def _known(header: Dataset, keyword: str) -> str:
    text = stated(header, keyword)
    return named(text) if text else UNKNOWN


def series_facts(headers: Sequence[Dataset]) -> tuple[tuple[str, str], ...]:
    """Which Series the page is about."""
    header = headers[0]
    number = stated(header, "SeriesNumber")
    side = stated(header, "Laterality") or stated(header, "ImageLaterality")
    side = "" if side == "U" else side  # Unpaired
    return (
        ("Modality", _known(header, "Modality")),
        ("Series", (f"no. {number}, " if number else "") + (named(stated(header, "SeriesDescription")) or "no name")),
        ("Body part", " ".join((_known(header, "BodyPartExamined"), named(side))).strip()),
    )


def date_time(header: Dataset) -> str | None:
    """When the images were acquired, as VR DT: Acquisition DateTime, else Date and Time; None where unknown."""
    whole = stated(header, "AcquisitionDateTime")
    if _DATE_TIME.fullmatch(whole):
        return whole
    day, time = stated(header, "AcquisitionDate"), stated(header, "AcquisitionTime")
    if not (len(day) == 8 and day.isdigit()):
        return None
    return day + time if _TIME.match(time) else day
