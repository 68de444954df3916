"""Good results of every kind to spoil, and the ways to spoil them: no file, no network, no chance."""

from __future__ import annotations

import re
from copy import deepcopy
from functools import cache
from typing import Any

from pydicom import config
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from dicomnode.dicom.references import InstanceReference
from dicomnode.report import build_results
from dicomnode.report.context import DerivedObject
from dicomnode.report.selfcheck import Evidence, faults
from tests.report_fixtures import context, findings, multiframe, no_findings, source

GONE = object()
"""As a new value: delete the attribute."""

_STEP = re.compile(r"(\w+)(?:\[(-?\d+)\])?\Z")


def request() -> Dataset:
    item = Dataset()
    item.RequestedProcedureID, item.ScheduledProcedureStepID = "RP1", "SPS1"
    return item


def issuer() -> Dataset:
    item = Dataset()
    item.LocalNamespaceEntityID = "ISSUER"
    return item


def rich() -> dict[str, object]:
    """What a source may state beside the least."""
    return {
        "RequestAttributesSequence": [request()],
        "IssuerOfAccessionNumberSequence": [issuer()],
        "IssuerOfPatientID": "SITE",
        "OtherPatientIDsSequence": [issuer()],
        "TimezoneOffsetFromUTC": "+0100",
        "PositionReferenceIndicator": "",
        "LossyImageCompression": "01",
        "LossyImageCompressionRatio": "10",
        "LossyImageCompressionMethod": "ISO_10918_1",
        "PixelSpacingCalibrationType": "GEOMETRY",
        "PixelSpacingCalibrationDescription": "by hand",
        "AcquisitionDate": "20260105",
        "AcquisitionTime": "101501",
        "RescaleSlope": "1",
        "RescaleIntercept": "-1024",
        "RescaleType": "HU",
        "BodyPartExamined": "KNEE",
        "Laterality": "L",
    }


@cache
def results(what: str) -> tuple[tuple[DerivedObject, ...], Evidence]:
    """All results of one analysis: "CT" with findings, "no findings", "DX", "CR", "MR", "frames", "chest"."""
    volume, headers = _source(what)
    found = no_findings(volume) if what == "no findings" else findings(volume, (tuple(range(len(volume.planes))),))
    evidence = Evidence([plane.source for plane in volume.planes], headers, context())
    return build_results(volume, headers, found, context()), evidence


def _source(what: str):
    if what == "frames":
        return multiframe()
    if what in ("CT", "chest"):
        changes = rich() if what == "CT" else {"BodyPartExamined": "CHEST"}
        return source("CT", 2, (512, 512), **changes)
    if what in ("DX", "CR"):
        return source(what, 2 if what == "CR" else 1)
    return source("CT" if what == "no findings" else what)


def good(document: str, what: str = "CT") -> tuple[DerivedObject, Evidence]:
    """A copy of the first object of a document ("sc", "sr-regions", ...), to be spoiled."""
    kind = "sr" if document == "sr-regions" else document
    objects, evidence = results(what)
    of_kind = [one for one in objects if one.kind == kind]
    chosen = of_kind[1 if document == "sr-regions" else 0]
    return DerivedObject(kind, deepcopy(chosen.dataset)), evidence


def faults_of(item: DerivedObject, evidence: Evidence) -> list[str]:
    return faults(item, evidence)


def spoil(dataset: Dataset, path: str, value: object) -> None:
    """Set the attribute at ``path`` ("SegmentSequence[0].TrackingUID") to ``value``, or delete it."""
    *steps, last = path.split(".")
    for step in steps:
        keyword, index = _STEP.match(step).groups()  # type: ignore[union-attr]
        dataset = dataset.file_meta if keyword == "file_meta" else dataset[keyword].value[int(index or 0)]
    if value is GONE:
        delattr(dataset, last)
    else:
        put(dataset, last, value)


def put(dataset: Dataset, keyword: str, value: Any) -> None:
    """Set an attribute without any check, as a program with a mistake would."""
    vr = dataset[keyword].VR if keyword in dataset else dictionary_VR(keyword).split(" or ")[0]
    dataset.add(DataElement(tag_for_keyword(keyword) or 0, vr, value, validation_mode=config.IGNORE))


def item_at(dataset: Dataset, *codes: str) -> Dataset:
    """The content item that one comes to by the first child with each of ``codes`` as its name."""
    for code in codes:
        dataset = next(
            item
            for item in dataset.ContentSequence
            if "ConceptNameCodeSequence" in item and item.ConceptNameCodeSequence[0].CodeValue == code
        )
    return dataset


def without(dataset: Dataset, *codes: str) -> None:
    """Delete all content items of the last code."""
    parent = item_at(dataset, *codes[:-1])
    parent["ContentSequence"].value = [
        item
        for item in parent.ContentSequence
        if "ConceptNameCodeSequence" not in item or item.ConceptNameCodeSequence[0].CodeValue != codes[-1]
    ]


def coded(value: str, scheme: str, meaning: str = "a meaning") -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def reference_to(reference: InstanceReference) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = reference.SOPClassUID, reference.SOPInstanceUID
    return item
