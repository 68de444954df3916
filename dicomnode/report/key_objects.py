"""Key Object Selection Document: the source images on which a finding lies (PS3.3 A.35.4, PS3.16 TID 2010)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from highdicom.sr import ContainerContentItem, RelationshipTypeValues, TextContentItem
from pydicom.dataset import Dataset
from pydicom.uid import KeyObjectSelectionDocumentStorage

from dicomnode.detectors.contract import DetectionResult, Volume
from dicomnode.dicom.references import InstanceReference
from dicomnode.report import codes
from dicomnode.report.context import ReportContext
from dicomnode.report.envelope import envelope, series_description
from dicomnode.report.evidence import hierarchy, instance_item, requests
from dicomnode.report.legend import notices
from dicomnode.report.observer import device_observer
from dicomnode.report.scores import score_texts


def key_objects(
    volume: Volume, headers: Sequence[Dataset], result: DetectionResult, context: ReportContext
) -> Iterator[Dataset]:
    """One document that flags every source image with a finding once, the most suspicious first.

    A multi-frame image is flagged with the frames concerned. Nothing is flagged, and no document made, without
    findings: an empty selection is not allowed, and would look like an answer.
    """
    flagged = flagged_images(volume, result)
    if not flagged:
        return
    dataset = envelope("ko", headers, volume.planes[0].source.series, context)
    dataset.SOPClassUID = KeyObjectSelectionDocumentStorage
    dataset.Modality = "KO"
    dataset.SeriesDescription = series_description("key images", headers[0], context)
    dataset.ReferencedPerformedProcedureStepSequence = []
    dataset.CurrentRequestedProcedureEvidenceSequence = hierarchy(flagged, headers)
    if requested := requests(headers[0], volume.planes[0].source.StudyInstanceUID):
        dataset.ReferencedRequestSequence = requested
    _add_content(dataset, flagged, description_text(volume, result, context), context)
    yield dataset


def flagged_images(volume: Volume, result: DetectionResult) -> dict[InstanceReference, list[int]]:
    """Source images with regions, the one with the greatest region score first, each with its frames in order."""
    frames: dict[InstanceReference, set[int]] = {}
    regions = [region for finding in result.findings for region in finding.regions]
    for region in sorted(regions, key=lambda one: (-one.score, one.plane)):
        plane = volume.planes[region.plane]
        frames.setdefault(plane.source, set()).update(() if plane.frame is None else (plane.frame,))
    return {source: sorted(numbers) for source, numbers in frames.items()}


def description_text(volume: Volume, result: DetectionResult, context: ReportContext) -> str:
    """Key Object Description: outcome, score and threshold, who says so, how many images; and that it is research.

    Raises ValueError for a result without score or calibration.
    """
    if result.score is None or result.calibration is None:
        raise ValueError("a result without score has no key images")
    score, threshold = score_texts(result.score, result.calibration.threshold)
    model = context.model
    n = len({region.plane for finding in result.findings for region in finding.regions})
    facts = (
        context.banner,
        f"Outcome: {result.outcome}, series score {score} at threshold {threshold} ({result.calibration.unit})",
        f"{n} of {len(volume.planes)} images have regions; the most suspicious come first",
        f"Detector {context.detector} {context.detector_version}",
        f"Model {model.name} {model.version}, weights sha256 {model.sha256[:8]}",
        *notices(result, context),
    )
    return ". ".join(facts) + "."


def _add_content(
    dataset: Dataset, flagged: dict[InstanceReference, list[int]], text: str, context: ReportContext
) -> None:
    """The content tree of TID 2010: observer, description, images."""
    root = ContainerContentItem(codes.OF_INTEREST, is_content_continuous=False, template_id="2010")
    for element in root:
        if element.keyword != "RelationshipType":
            dataset.add(element)
    description = TextContentItem(codes.KEY_OBJECT_DESCRIPTION, text, RelationshipTypeValues.CONTAINS)
    images = (_image(*one) for one in flagged.items())
    dataset.ContentSequence = [*device_observer(context), description, *images]


def _image(source: InstanceReference, frames: list[int]) -> Dataset:
    """An IMAGE item, which has no concept name in this template."""
    item = Dataset()
    item.RelationshipType = "CONTAINS"
    item.ValueType = "IMAGE"
    item.ReferencedSOPSequence = [instance_item(source, frames)]
    return item
