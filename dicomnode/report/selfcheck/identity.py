"""Rules for every object: whose it is, what it is called, when it was made, by whom."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, RLELossless
from pydicom.valuerep import VR

from dicomnode.report.anatomy import UNPAIRED, body_part
from dicomnode.report.context import MANUFACTURER
from dicomnode.report.envelope import IDENTITY, TYPE_2
from dicomnode.report.patterns import held, value_of
from dicomnode.report.selfcheck import tables
from dicomnode.report.selfcheck.case import DOCUMENTS, Case, as_text
from dicomnode.report.selfcheck.coded import first
from dicomnode.report.selfcheck.level import Level
from dicomnode.report.transcribe import copied

CLASSES = {
    "sc": tables.SECONDARY_CAPTURE,
    "page": tables.SECONDARY_CAPTURE,
    "mf-sc": tables.MULTI_FRAME_SECONDARY_CAPTURE,
    "seg": tables.SEGMENTATION,
    "pm": tables.PARAMETRIC_MAP,
    "gsps": tables.PRESENTATION_STATE,
    "ko": tables.KEY_OBJECTS,
    "sr": tables.COMPREHENSIVE_3D_SR,
    "sr-volume": tables.COMPREHENSIVE_3D_SR,
    "pdf": tables.ENCAPSULATED_PDF,
}
"""The SOP class of each kind of result."""

MODALITIES = {
    **dict.fromkeys(("sc", "page", "mf-sc", "pm"), "OT"),
    "seg": "SEG",
    "gsps": "PR",
    "ko": "KO",
    **dict.fromkeys(("sr", "sr-volume"), "SR"),
    "pdf": "DOC",
}
"""Modality (0008,0060) of each kind of result."""

IMAGES = frozenset({"sc", "page", "mf-sc", "seg", "pm"})
_REQUESTED_DOCUMENTS = frozenset({"sr", "sr-volume", "ko"})
_OWN_TIMES = frozenset(
    f"{what}{part}"
    for what in ("InstanceCreation", "Series", "Content", "PresentationCreation")
    for part in ("Date", "Time")
) | {"ContributionDateTime", "DateOfSecondaryCapture", "TimeOfSecondaryCapture", "ObservationDateTime"}
_TIMES = frozenset({VR.DA, VR.TM, VR.DT})
STUDY_TIMES = frozenset({"StudyDate", "StudyTime", "PatientBirthDate"})
"""Those of Patient and Study, which are compared with the source elsewhere."""


def identity_faults(kind: str, dataset: Dataset, case: Case) -> Iterator[str]:
    """Patient, Study, own Series, kind, description, character set, dates, equipment, file meta."""
    if str(value_of(dataset, "SOPClassUID")) != CLASSES.get(kind):
        yield "SOPClassUID: not the class of this kind of result"
    if str(value_of(dataset, "Modality")) != MODALITIES.get(kind):
        yield "Modality: not that of this kind of result"
    if value_of(dataset, "SpecificCharacterSet") != "ISO_IR 192":
        yield "SpecificCharacterSet: results are written in ISO_IR 192"
    yield from _patient_and_study(dataset, case)
    yield from _requests(kind, dataset, case)
    yield from _series(kind, dataset, case)
    yield from _laterality(kind, dataset, case)
    yield from _equipment(dataset, case)
    yield from _file_meta(dataset)


def _patient_and_study(dataset: Dataset, case: Case) -> Iterator[str]:
    if str(value_of(dataset, "StudyInstanceUID")) != case.series.StudyInstanceUID:
        yield "StudyInstanceUID: not the Study of the source"
    for keyword in IDENTITY:
        own, stated = held(dataset, keyword), held(case.identity, keyword)
        if stated is None:
            if own is None and keyword in TYPE_2:
                continue
            if own is not None and as_text(own.value):
                yield f"{keyword}: the source does not state it"
        elif own is None or own.value != stated.value:
            yield f"{keyword}: differs from the source, identity is never altered"


def _requests(kind: str, dataset: Dataset, case: Case) -> Iterator[str]:
    name = "RequestAttributesSequence"
    stated = copied(case.source_of(dataset), (name,)).get(name) or ()
    if kind in IMAGES and stated and value_of(dataset, name) not in (stated, copied(case.header, (name,)).get(name)):
        yield f"{name}: the source's requests are missing or altered"
    told = value_of(dataset, "ReferencedRequestSequence") or ()
    if kind in _REQUESTED_DOCUMENTS and stated and len(told) != len(stated):
        yield "ReferencedRequestSequence: the source's requests are missing (PS3.3 C.17.2, Type 1C)"
    for n, item in enumerate(value_of(dataset, name) or (), 1):
        if "ReferencedStudySequence" in item and not item.ReferencedStudySequence:
            yield f"{name}[{n}].ReferencedStudySequence: empty, which validators refuse"


def _series(kind: str, dataset: Dataset, case: Case) -> Iterator[str]:
    document, allowed = case.document_of(str(value_of(dataset, "SeriesInstanceUID"))), DOCUMENTS.get(kind, (kind,))
    if document is None or document not in allowed:
        yield "SeriesInstanceUID: not the own, derived one of this document"
    elif str(value_of(dataset, "SeriesNumber")) != str(case.numbers[document]):
        yield "SeriesNumber: not the fixed one of this document, clear of the Study's own"
    if not any(case.has_instance(name, str(value_of(dataset, "SOPInstanceUID"))) for name in allowed):
        yield "SOPInstanceUID: not derived from source, weights and kind"
    description = str(value_of(dataset, "SeriesDescription") or "")
    if not description.endswith("(RESEARCH)") or len(description) > 64:
        yield 'SeriesDescription: at most 64 characters, the last of them "(RESEARCH)"'


def _laterality(kind: str, dataset: Dataset, case: Case) -> Iterator[str]:
    """Type 2C of images (PS3.3 C.7.3.1); other documents have no side."""
    if kind not in IMAGES:
        if kind != "gsps" and "Laterality" in dataset:
            yield "Laterality: does not belong in a document"
    elif kind == "seg":
        if "Laterality" in dataset:
            yield "Laterality: a segmentation states its side with the anatomic region (validators refuse it here)"
    elif body_part(dataset) in UNPAIRED:
        if "Laterality" in dataset:
            yield "Laterality: BodyPartExamined exists once, it must be absent (PS3.3 C.7.3.1)"
    elif "Laterality" not in dataset and not _states_side(dataset):
        yield "Laterality: missing for a paired or unknown body part, Type 2C (PS3.3 C.7.3.1)"
    elif case.side is not None and str(value_of(dataset, "Laterality") or "") not in ("", case.side):
        yield "Laterality: not the side that the source states"


def time_fault(level: Level, name: str, element: DataElement, case: Case) -> str:
    """Nothing is stamped with now: every date and time is the start of the analysis, or copied from the source.

    ``element``: called ``name``, of ``level``. The answer is "" for a sound one.
    """
    if element.VR not in _TIMES or not element.value or (not level.path and name in STUDY_TIMES):
        return ""
    text = str(element.value)
    copied_one = name not in _OWN_TIMES and (case.states(name, text) or _joined(name, text, case))
    sound = copied_one or text in case.stamps[str(element.VR)]
    return "" if sound else "is neither the start of the analysis nor of the source"


def _joined(name: str, text: str, case: Case) -> bool:
    """An Acquisition DateTime may be put together from the source's date and time."""
    whole = name == "AcquisitionDateTime"
    return whole and case.states("AcquisitionDate", text[:8]) and case.states("AcquisitionTime", text[8:])


def _states_side(dataset: Dataset) -> bool:
    groups = [
        item
        for keyword in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
        for item in value_of(dataset, keyword) or ()
    ]
    return "ImageLaterality" in dataset or any("FrameAnatomySequence" in item for item in groups)


def _equipment(dataset: Dataset, case: Case) -> Iterator[str]:
    """IHE AIR: an item per algorithm, whose Device UID changes with the weights."""
    name = "ContributingEquipmentSequence"
    items = [
        (n, item)
        for n, item in enumerate(value_of(dataset, name) or (), 1)
        if first(item, "PurposeOfReferenceCodeSequence") == ("109102", "DCM")
    ]
    if not items:
        yield f"{name}: no item for the algorithm, purpose (109102, DCM)"
    for n, item in items:
        for keyword in ("Manufacturer", "ManufacturerModelName", "SoftwareVersions", "DeviceUID"):
            if not value_of(item, keyword):
                yield f"{name}[{n}].{keyword}: missing (IHE AIR)"
        if str(value_of(item, "DeviceUID")) != case.device:
            yield f"{name}[{n}].DeviceUID: not derived from the detector and its weights"
    if value_of(dataset, "Manufacturer") != MANUFACTURER:
        yield "Manufacturer: not ours; the source did not make this object (PS3.3 C.7.5.1)"
    if case.context.model.sha256[:64] != str(value_of(dataset, "DeviceSerialNumber") or ""):
        yield "DeviceSerialNumber: not the weights' SHA-256"


def _file_meta(dataset: Dataset) -> Iterator[str]:
    meta: Any = getattr(dataset, "file_meta", None) or Dataset()
    for keyword, own in (("MediaStorageSOPClassUID", "SOPClassUID"), ("MediaStorageSOPInstanceUID", "SOPInstanceUID")):
        if value_of(meta, keyword) != value_of(dataset, own):
            yield f"{keyword}: differs from {own} (PS3.10 7.1)"
    if value_of(meta, "TransferSyntaxUID") not in (ExplicitVRLittleEndian, RLELossless):
        yield "TransferSyntaxUID: results are written as Explicit VR Little Endian or RLE"
