"""One page about a Series without a result: which outcome, and why. It never says "no findings" or "Absent"."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from dicomnode.detectors.contract import Outcome
from dicomnode.dicom.references import InstanceReference
from dicomnode.report.context import DerivedObject, ReportContext, ResultUIDs
from dicomnode.report.envelope import envelope
from dicomnode.report.legend import INCOMPLETE, SUPERSEDES
from dicomnode.report.page import add_page
from dicomnode.report.page_content import PageContent, headline, method_facts
from dicomnode.report.page_patient import patient_facts, series_facts
from dicomnode.report.page_typeface import written
from dicomnode.report.part10 import add_file_meta
from dicomnode.report.pdf import add_document, add_sources
from dicomnode.report.secondary_capture import add_capture, add_series, source_image
from dicomnode.report.transcribe import legible

_MEANING = {
    Outcome.NOT_ANALYSED: "This series was not analysed by the software.",
    Outcome.FAILED: "The analysis of this series did not come to an end. There is no result.",
}
_SAYS_NOTHING = "This says nothing about whether it is normal."
_GATES = {
    "volume": "The check of the images: do they form a volume that can be analysed?",
    "detector": "The detector's own check: was it made for such images?",
    "acquisition": "The check of the acquisition: are these images like those that the score was calibrated on?",
}


@dataclass(frozen=True, slots=True)
class StatusStatement:
    """Why there is no result. ``outcome``: NOT_ANALYSED or FAILED; ``gate``: what refused the Series, "" unless known.

    ``reason``: in words. ``n_received``: Instances of the Series that had come.

    Raises ValueError for another outcome, or without a reason.
    """

    outcome: Outcome
    reason: str
    gate: str
    n_received: int

    def __post_init__(self) -> None:
        if self.outcome not in _MEANING:
            raise ValueError(f"the outcome '{self.outcome}' has results, not a status page")
        if not self.reason.strip():
            raise ValueError("a series without result needs a reason")


def status_results(
    sources: Sequence[InstanceReference],
    headers: Sequence[Dataset],
    statement: StatusStatement,
    context: ReportContext,
) -> Iterator[DerivedObject]:
    """Yield the status page of one Series: kind "page" (Secondary Capture) and its stand-in, kind "pdf".

    ``sources``: the Series' Instances, ``headers``: at least the first one's Dataset without Pixel Data. The pages
    show no image. Their UIDs differ from those of a result of the same generation, which may follow.

    Raises ValueError without sources or headers.
    """
    if not sources or not headers:
        raise ValueError("a status page is about a Series that has come")
    headers = legible(headers)
    content = status_content(headers, statement, context)
    for kind, make in (("page", _page), ("pdf", _document)):
        dataset = _enveloped(kind, sources, headers, statement, context)
        make(dataset, sources, headers, content, context)
        _name_no_model(dataset, context)
        add_file_meta(dataset, context)
        yield DerivedObject(kind, dataset)


def status_content(headers: Sequence[Dataset], statement: StatusStatement, context: ReportContext) -> PageContent:
    """The words of a status page."""
    came = f"{statement.n_received} received"
    replaces = context.supersedes or context.replaces_earlier
    said = (INCOMPLETE if context.incomplete else "", SUPERSEDES if replaces else "")
    refused = _GATES.get(statement.gate, statement.gate)
    paragraphs = (
        ("Why", statement.reason),
        ("Refused by", refused if statement.outcome is Outcome.NOT_ANALYSED else ""),
    )
    return PageContent(
        outcome=statement.outcome,
        headline=headline(statement.outcome),
        subline=f"{_MEANING[statement.outcome]} {_SAYS_NOTHING}",
        alarming=True,
        patient=patient_facts(headers[0]),
        series=(*series_facts(headers), ("Images", came), ("Generation", str(context.generation))),
        method=method_facts(headers[0], context),
        figures=(),
        findings=(),
        statements=tuple((label, written(text)) for label, text in paragraphs if text),
        notices=tuple(text for text in said if text),
        banner=written(context.banner),
        title="AI analysis status",
    )


def _enveloped(
    kind: str,
    sources: Sequence[InstanceReference],
    headers: Sequence[Dataset],
    statement: StatusStatement,
    context: ReportContext,
) -> Dataset:
    dataset = envelope(kind, headers, sources[0].series, context)
    uids = ResultUIDs.of(sources[0].series, context)
    document = f"status {kind} {statement.outcome}"
    dataset.SeriesInstanceUID, dataset.SOPInstanceUID = uids.series(document), uids.instance(document)
    return dataset


def _page(
    dataset: Dataset,
    sources: Sequence[InstanceReference],
    headers: Sequence[Dataset],
    content: PageContent,
    context: ReportContext,
) -> None:
    add_series(dataset, SecondaryCaptureImageStorage, content.headline, headers, headers[0], context)
    remarks = ("status page", str(content.outcome), *(text for _, text in content.statements), *content.notices)
    add_capture(dataset, headers, (), remarks, context)
    dataset.RecognizableVisualFeatures = "NO"
    dataset.DerivationDescription = f"Status page without any image: series {content.outcome}. {context.banner}"[:1024]
    dataset.SourceImageSequence = [source_image(source, (), in_place=False) for source in sources]
    add_page(dataset, content, None)


def _document(
    dataset: Dataset,
    sources: Sequence[InstanceReference],
    headers: Sequence[Dataset],
    content: PageContent,
    context: ReportContext,
) -> None:
    add_document(dataset, content, None, headers, context, content.headline)
    add_sources(dataset, sources)


def _name_no_model(dataset: Dataset, context: ReportContext) -> None:
    """Leave out what the envelope says of weights when none were run."""
    if context.model.name:
        return
    for item in (dataset, *dataset.ContributingEquipmentSequence):
        item.SoftwareVersions = [value for value in item.SoftwareVersions if value.strip()]
    if "SecondaryCaptureDeviceSoftwareVersions" in dataset:
        dataset.SecondaryCaptureDeviceSoftwareVersions = dataset.SoftwareVersions
