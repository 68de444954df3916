"""What goes into the vault about one object before it leaves: what its pseudonyms stand for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from dicomnode.deid.engine import Applied
from dicomnode.deid.pseudonyms import PADDING, Pseudonyms
from dicomnode.deid.refusal import Quarantined, Reason
from dicomnode.deid.vault import Entry
from dicomnode.dicom.header import read_header
from dicomnode.dicom.header_source import MalformedHeader
from dicomnode.errors import Transient

_IDENTIFIERS = ("StudyInstanceUID", "PatientID", "IssuerOfPatientID", "AccessionNumber", "StudyID")
_DATES = (
    "StudyDate",
    "SeriesDate",
    "AcquisitionDate",
    "ContentDate",
    "AcquisitionDateTime",
    "InstanceCreationDate",
    "PerformedProcedureStepStartDate",
    "PerformedProcedureStepEndDate",
    "DateOfSecondaryCapture",
    "DateOfLastCalibration",
    "RadiopharmaceuticalStartDateTime",
    "PatientBirthDate",
    "PresentationCreationDate",
)
"""Of the top level: those that results repeat."""
_DAY = re.compile(r"\d{8}")
_UID = re.compile(r"[0-9.]{1,64}")

Header = Mapping[str, tuple[object, ...]]


def header_for_way_back(path: Path) -> Header:
    """What ``way_back`` needs of the original. Raises Quarantined when it cannot be read, OSError."""
    try:
        return read_header(path, {*_IDENTIFIERS, *_DATES})
    except MalformedHeader:
        raise Quarantined(Reason.MALFORMED, "its header cannot be read for the vault") from None


def way_back(header: Header, applied: Applied, pseudonyms: Pseudonyms, *, shifts_dates: bool) -> list[Entry]:
    """The rows about one object. ``header``: of the original; ``applied``: what was made of it.

    Every UID is computed here again: what a child process says of them is not believed. The Study has a row also
    when its UID was not mapped: a result is known by its Study and its patient. Where dates were shifted, those of the
    Study have a row each, so that a result's own dates can be told from them. Raises Transient as ``require_same_key``.
    """
    require_same_key(applied, pseudonyms)
    found = {keyword: _first(header, keyword) for keyword in _IDENTIFIERS}
    patient, issuer = found["PatientID"], found["IssuerOfPatientID"]
    pseudonym = pseudonyms.patient_id(patient, issuer)
    study = {"StudyInstanceUID": found["StudyInstanceUID"], "PatientID": patient, "patient": applied.patient}
    entries = [
        Entry("study", applied.study, study),
        Entry("patient", pseudonym, {"value": patient, "IssuerOfPatientID": issuer}),
    ]
    entries += [Entry("uid", mapped_uid(old, pseudonyms), {"value": old.strip(PADDING)}) for old in applied.uids]
    for kind, keyword, make in (
        ("accession", "AccessionNumber", pseudonyms.accession),
        ("study-id", "StudyID", pseudonyms.study_id),
    ):
        if found[keyword]:
            entries.append(Entry(kind, make(found[keyword]), {"value": found[keyword]}))  # type: ignore[arg-type]
    if shifts_dates:
        shift = pseudonyms.day_shift(patient, issuer)
        days = sorted({day_in(str(value)) for keyword in _DATES for value in header.get(keyword, ())} - {""})
        entries += [Entry("date", f"{applied.study}/{shifted(day, -shift)}", {"value": day}) for day in days]
    return entries


def require_same_key(applied: Applied, pseudonyms: Pseudonyms) -> None:
    """Raise Transient when another key made ``applied``: the key file was rotated while this process ran."""
    if any(mapped_uid(old, pseudonyms) != new for old, new in applied.uids.items()):
        raise Transient("the key of the project has changed: restart the node")


def mapped_uid(old: str, pseudonyms: Pseudonyms) -> str:
    """As the walk maps it: what is no UID must not become one that a true UID has."""
    return pseudonyms.uid(old if _UID.fullmatch(old) else f"no UID: {old}")


def _first(header: Header, keyword: str) -> str:
    return str(next(iter(header.get(keyword, ())), "")).strip(PADDING)


def elements(dataset: Dataset) -> Iterator[DataElement]:
    """Every element that is no sequence, at any depth."""
    waiting = [dataset]
    while waiting:
        for element in waiting.pop():
            if element.VR == "SQ":
                waiting.extend(element.value or ())
            else:
                yield element


def values(element: DataElement) -> list[str]:
    """The values of a text element, one or several."""
    found = element.value
    return [str(one) for one in (found if isinstance(found, MultiValue | list) else [found or ""])]


def day_in(value: str) -> str:
    """The day at the beginning of a DA or DT value, or an empty text."""
    found = _DAY.match(value.strip())
    return found[0] if found and shifted(found[0], 0) else ""


def shifted(day: str, days: int) -> str:
    """``day`` (YYYYMMDD) moved by ``days``; empty when the calendar has no such day."""
    try:
        return (datetime.strptime(day, "%Y%m%d") + timedelta(days)).strftime("%Y%m%d")  # noqa: DTZ007 - a day
    except (ValueError, OverflowError):
        return ""
