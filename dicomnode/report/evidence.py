"""References from a result to its sources, requests and predecessors (PS3.3 C.17.2)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydicom.dataset import Dataset

from dicomnode.detectors.contract import Plane
from dicomnode.dicom.references import InstanceReference
from dicomnode.report.patterns import element, like
from dicomnode.report.transcribe import copied, once

_REQUEST_TYPE_2 = (
    "AccessionNumber",
    "PlacerOrderNumberImagingServiceRequest",
    "FillerOrderNumberImagingServiceRequest",
    "RequestedProcedureID",
    "RequestedProcedureDescription",
)
_REQUEST = (
    *_REQUEST_TYPE_2,
    "IssuerOfAccessionNumberSequence",
    "OrderPlacerIdentifierSequence",
    "OrderFillerIdentifierSequence",
    "RequestedProcedureCodeSequence",
    "ReasonForTheRequestedProcedure",
    "ReasonForRequestedProcedureCodeSequence",
)


def sources(planes: Iterable[Plane]) -> tuple[InstanceReference, ...]:
    """The source Instances, each once, in the order of the planes."""
    return tuple(dict.fromkeys(plane.source for plane in planes))


def instance_item(reference: InstanceReference, frames: Sequence[int] = (), headers: Sequence[Dataset] = ()) -> Dataset:
    """An item that refers to an Instance, or to some of its frames (PS3.3 10.3, 10.8).

    ``headers``: of the result set. Its objects refer to each source in many places: all hold the same item then, so
    nobody may change it.
    """
    return once(headers, ("instance item", reference, *frames), lambda: _instance_item(reference, frames))


def _instance_item(reference: InstanceReference, frames: Sequence[int]) -> Dataset:
    item = like(
        None,
        element("ReferencedSOPClassUID", "UI", reference.SOPClassUID),
        element("ReferencedSOPInstanceUID", "UI", reference.SOPInstanceUID),
    )
    if frames:
        item.ReferencedFrameNumber = list(frames)
    return item


def referenced_series(references: Iterable[InstanceReference], headers: Sequence[Dataset]) -> list[Dataset]:
    """Referenced Series Sequence of the Common Instance Reference Module (PS3.3 C.12.2); see ``instance_item``."""
    series: dict[str, list[Dataset]] = {}
    for reference in references:
        series.setdefault(reference.SeriesInstanceUID, []).append(instance_item(reference, (), headers))
    items = []
    for uid, instances in series.items():
        item = Dataset()
        item.SeriesInstanceUID = uid
        item.ReferencedInstanceSequence = instances
        items.append(item)
    return items


def hierarchy(references: Iterable[InstanceReference], headers: Sequence[Dataset]) -> list[Dataset]:
    """Hierarchical SOP Instance Reference Macro items (PS3.3 C.17.2.1): Study, Series, Instance.

    ``headers``: see ``instance_item``.
    """
    studies: dict[str, dict[str, list[Dataset]]] = {}
    for reference in references:
        own = studies.setdefault(reference.StudyInstanceUID, {}).setdefault(reference.SeriesInstanceUID, [])
        own.append(instance_item(reference, (), headers))
    return [_study_item(study, series) for study, series in studies.items()]


def _study_item(study_uid: str, series: dict[str, list[Dataset]]) -> Dataset:
    study = Dataset()
    study.StudyInstanceUID = study_uid
    study.ReferencedSeriesSequence = []
    for series_uid, instances in series.items():
        item = Dataset()
        item.SeriesInstanceUID = series_uid
        item.ReferencedSOPSequence = instances
        study.ReferencedSeriesSequence.append(item)
    return study


def requests(header: Dataset, study_uid: str) -> list[Dataset]:
    """Referenced Request Sequence (0040,A370) from the source's Request Attributes Sequence; [] when it has none.

    What the only item does not say, the source's own attributes may: accession number, procedure code, description.
    """
    outer = copied(header, (*_REQUEST, "ProcedureCodeSequence", "RequestAttributesSequence"))
    items: Sequence[Dataset] = outer.get("RequestAttributesSequence") or ()
    return [_request(item, outer if len(items) == 1 else Dataset(), study_uid) for item in items]


def _request(item: Dataset, outer: Dataset, study_uid: str) -> Dataset:
    request = copied(outer, _REQUEST)
    request.update(copied(item, _REQUEST))
    request.StudyInstanceUID = str(item.get("StudyInstanceUID") or study_uid)
    request.ReferencedStudySequence = copied(item, ("ReferencedStudySequence",)).get("ReferencedStudySequence") or []
    if not request.get("RequestedProcedureCodeSequence"):
        request.RequestedProcedureCodeSequence = outer.get("ProcedureCodeSequence") or []
    for keyword in _REQUEST_TYPE_2:
        if keyword not in request:
            setattr(request, keyword, None)
    return request
