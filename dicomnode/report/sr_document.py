"""Comprehensive 3D SR documents (PS3.3 A.35.13): the envelope around a content tree, one Series per document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage

from dicomnode.detectors.contract import DetectionResult, Volume
from dicomnode.dicom.references import InstanceReference
from dicomnode.report import codes
from dicomnode.report.context import ReportContext
from dicomnode.report.envelope import envelope, series_description
from dicomnode.report.evidence import hierarchy, requests, sources
from dicomnode.report.legend import INCOMPLETE
from dicomnode.report.segmentation import segment_references
from dicomnode.report.sr_content import regions_report, series_report
from dicomnode.report.sr_volume import volume_report


def documents(
    volume: Volume, headers: Sequence[Dataset], result: DetectionResult, context: ReportContext
) -> Iterator[Dataset]:
    """The documents of kind "sr": the root and, when there are findings, the regions."""
    yield root_document(volume, headers, result, context)
    if result.findings:
        yield regions_document(volume, headers, result, context)


def volume_documents(
    volume: Volume, headers: Sequence[Dataset], result: DetectionResult, context: ReportContext
) -> Iterator[Dataset]:
    """The document of kind "sr-volume": one TID 1411 group per segment; only where findings are segmented."""
    segments = segment_references(volume, result, context)
    if any(segments):
        yield volume_document(volume, headers, result, context)


def root_document(
    volume: Volume, headers: Sequence[Dataset], result: DetectionResult, context: ReportContext
) -> Dataset:
    """The SR that stands for the whole analysis: outcome, score, threshold, all source images."""
    content = series_report(volume, headers, result, context)
    return _document("sr", "result", content, volume, headers, context)


def regions_document(
    volume: Volume, headers: Sequence[Dataset], result: DetectionResult, context: ReportContext
) -> Dataset:
    """The SR with one planar region per finding. Separate, because validators mix up TID 1501 and TID 1410 groups."""
    content = regions_report(volume, headers, result, context)
    return _document("sr-regions", "regions", content, volume, headers, context)


def volume_document(
    volume: Volume, headers: Sequence[Dataset], result: DetectionResult, context: ReportContext
) -> Dataset:
    """The SR that refers to the Segmentation. Separate: PixelMed takes TID 1411 for all groups of such a document."""
    segments = segment_references(volume, result, context)
    content = volume_report(volume, headers, result, context, segments)
    evidence = tuple(segment.instance for references in segments for segment in references)
    return _document("sr-volume", "volumes", content, volume, headers, context, evidence)


def _document(
    document: str,
    what: str,
    content: Dataset,
    volume: Volume,
    headers: Sequence[Dataset],
    context: ReportContext,
    evidence: tuple[InstanceReference, ...] = (),
) -> Dataset:
    """``evidence``: what the content refers to beside the source images (PS3.3 C.17.2.3)."""
    source = volume.planes[0].source.series
    dataset = envelope(document, headers, source, context)
    dataset.SOPClassUID = Comprehensive3DSRStorage
    dataset.Modality = "SR"
    dataset.SeriesDescription = series_description(what, headers[0], context)
    dataset.ReferencedPerformedProcedureStepSequence = []
    dataset.PerformedProcedureCodeSequence = []
    dataset.CodingSchemeIdentificationSequence = [codes.coding_scheme_identification()]
    _add_state(dataset, context)
    dataset.CurrentRequestedProcedureEvidenceSequence = hierarchy(
        (*sources(volume.planes), *dict.fromkeys(evidence)), headers
    )
    if requested := requests(headers[0], source.StudyInstanceUID):
        dataset.ReferencedRequestSequence = requested
    if context.supersedes:
        dataset.PredecessorDocumentsSequence = hierarchy(context.supersedes, headers)
    for element in content:
        if element.keyword != "RelationshipType":
            dataset.add(element)
    return dataset


def _add_state(dataset: Dataset, context: ReportContext) -> None:
    """Preliminary and verified by nobody (PS3.3 C.17.2); partial when the Series was."""
    dataset.CompletionFlag = "PARTIAL" if context.incomplete else "COMPLETE"
    if context.incomplete:
        dataset.CompletionFlagDescription = INCOMPLETE
    dataset.VerificationFlag = "UNVERIFIED"
    dataset.PreliminaryFlag = "PRELIMINARY"
