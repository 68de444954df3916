"""The modules that every result shares: Patient, Study, Series, Equipment, SOP Common (PS3.3 C.7, C.12.1)."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta, timezone

from pydicom.dataset import Dataset

from dicomnode.dicom.references import SeriesReference
from dicomnode.report.anatomy import laterality
from dicomnode.report.codes import PROCESSING_EQUIPMENT, code_item
from dicomnode.report.context import MANUFACTURER, ReportContext, ResultUIDs, device_uid
from dicomnode.report.transcribe import copied, distinct, once

SERIES_NUMBERS = {
    "sc": 9001,
    "sr": 9002,
    "sr-regions": 9003,
    "sr-volume": 9004,
    "seg": 9005,
    "pm": 9006,
    "ko": 9007,
    "gsps": 9008,
    "pdf": 9009,
    "page": 9010,
    "mf-sc": 9011,
}
"""One fixed Series Number per document; while one of them is taken, all move up by 100."""

TYPE_2 = (
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyID",
)
"""Those of Patient and Study that every result has, empty where the source has none (Type 2)."""

IDENTITY = (
    *TYPE_2,
    "IssuerOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "OtherPatientIDsSequence",
    "IssuerOfAccessionNumberSequence",
    "StudyDescription",
    "TimezoneOffsetFromUTC",
    "InstitutionName",
)
"""Patient and Study of the source, as every result repeats them unchanged."""

_OFFSET = re.compile(r"([+-])(\d\d)(\d\d)\Z")


def envelope(
    document: str, headers: Sequence[Dataset], source: SeriesReference, context: ReportContext, index: int = 0
) -> Dataset:
    """A Dataset of the source's Patient and Study with an own Series and Instance, without content.

    ``document``: a key of ``SERIES_NUMBERS``; ``index``: the plane, for documents that exist once per plane.
    """
    dataset = copied(headers[0], IDENTITY)
    for keyword in TYPE_2:
        if keyword not in dataset:
            setattr(dataset, keyword, None)
    uids = ResultUIDs.of(source, context)
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.StudyInstanceUID = source.StudyInstanceUID
    dataset.SeriesInstanceUID = uids.series(document)
    dataset.SOPInstanceUID = uids.instance(document, index)
    dataset.SeriesNumber = series_number(document, headers, context)
    dataset.InstanceNumber = index + 1
    _stamp(dataset, clock(headers[0], context))
    _add_equipment(dataset, context)
    return dataset


def add_examined_part(dataset: Dataset, header: Dataset, headers: Sequence[Dataset]) -> None:
    """What of the General Series comes from the source: body part, request, and the side that ``headers`` show."""
    dataset.update(copied(header, ("BodyPartExamined", "RequestAttributesSequence")))
    side = once(headers, ("side",), lambda: laterality(headers))
    if side is not None:
        dataset.Laterality = side


def series_number(document: str, headers: Sequence[Dataset], context: ReportContext) -> int:
    """The fixed number of ``document``, moved up by hundreds, with the whole result set, clear of the Study's own."""
    own = once(headers, ("series numbers",), lambda: _series_numbers(headers))
    return SERIES_NUMBERS[document] + free_step(context.taken_series_numbers | own)


def _series_numbers(headers: Sequence[Dataset]) -> frozenset[int]:
    stated = (header.get("SeriesNumber") for header in distinct(headers, "SeriesNumber"))
    return frozenset(int(number) for number in stated if number not in (None, ""))


def free_step(taken: Collection[int]) -> int:
    """How far, in hundreds, a whole result set moves up so that none of its Series Numbers is ``taken``."""
    step = 0
    while any(number + step in taken for number in SERIES_NUMBERS.values()):
        step += 100
    return step


def series_description(what: str, header: Dataset, context: ReportContext) -> str:
    """At most 64 characters (VR LO): detector, document, source Series, and always "(RESEARCH)"."""
    tail = f"{f' gen {context.generation}' if context.generation > 1 else ''}"
    tail += f"{' incomplete' if context.incomplete else ''} (RESEARCH)"
    of = str(copied(header, ("SeriesDescription",)).get("SeriesDescription") or "").replace("\\", " ").strip()
    head = f"AI {context.detector} {what}" + (f": {of}" if of else "")
    return shortened(head, 64 - len(tail)).rstrip() + tail


def shortened(text: str, most: int) -> str:
    """The start of ``text``: at most ``most`` characters, and as many bytes in UTF-8, which is what dciodvfy counts."""
    return text.encode()[:most].decode(errors="ignore")


def clock(header: Dataset, context: ReportContext) -> datetime:
    """``analysed_at`` in the time zone of the source, where it states one (PS3.3 C.12.1, (0008,0201))."""
    stated = _OFFSET.match(str(header.get("TimezoneOffsetFromUTC") or "").strip())
    if not stated:
        return context.analysed_at
    sign = -1 if stated[1] == "-" else 1
    offset = timedelta(hours=int(stated[2]), minutes=int(stated[3]))
    return context.analysed_at.astimezone(timezone(sign * min(offset, timedelta(hours=14))))


def _stamp(dataset: Dataset, when: datetime) -> None:
    date, time = when.strftime("%Y%m%d"), when.strftime("%H%M%S.%f")
    for keyword in ("InstanceCreation", "Series", "Content"):
        setattr(dataset, f"{keyword}Date", date)
        setattr(dataset, f"{keyword}Time", time)


def date_time(when: datetime) -> str:
    """VR DT with its offset from UTC (PS3.5 6.2)."""
    return when.strftime("%Y%m%d%H%M%S.%f%z")


def software_versions(context: ReportContext) -> list[str]:
    """Software Versions (0018,1020): the node, the detector, the model (VR LO each)."""
    values = (
        f"dicomnode {context.software_version}",
        f"{context.detector} {context.detector_version}",
        f"{context.model.name} {context.model.version}",
    )
    return [value[:64] for value in values]


def _add_equipment(dataset: Dataset, context: ReportContext) -> None:
    """Enhanced General Equipment (C.7.5.2) and the Contributing Equipment item of the algorithm."""
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = context.detector[:64]
    dataset.DeviceSerialNumber = context.model.sha256[:64]
    dataset.SoftwareVersions = software_versions(context)
    item = Dataset()
    item.Manufacturer = MANUFACTURER
    item.ManufacturerModelName = context.detector[:64]
    item.DeviceSerialNumber = context.model.sha256[:64]
    item.SoftwareVersions = software_versions(context)
    item.DeviceUID = device_uid(context)
    item.ContributionDateTime = date_time(context.analysed_at)
    item.ContributionDescription = "Anomaly detection, research use only"
    item.PurposeOfReferenceCodeSequence = [code_item(PROCESSING_EQUIPMENT)]
    dataset.ContributingEquipmentSequence = [item]
