"""The one way in: findings, source headers and context become DICOM objects. No clock, no chance, no I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from pydicom.dataset import Dataset

from dicomnode.config.results import SEND_ORDER
from dicomnode.detectors.contract import DetectionResult, Outcome, Volume
from dicomnode.report.capture import captures
from dicomnode.report.context import DerivedObject, ReportContext
from dicomnode.report.key_objects import key_objects
from dicomnode.report.multiframe import multiframe_captures
from dicomnode.report.page import pages
from dicomnode.report.parametric_map import parametric_maps
from dicomnode.report.part10 import add_file_meta
from dicomnode.report.pdf import pdfs
from dicomnode.report.presentation_state import presentation_states
from dicomnode.report.segmentation import segmentations
from dicomnode.report.sr_document import documents, volume_documents
from dicomnode.report.transcribe import legible

Builder = Callable[[Volume, Sequence[Dataset], DetectionResult, ReportContext], Iterator[Dataset]]
BUILDERS: dict[str, Builder] = {
    "sc": captures,
    "mf-sc": multiframe_captures,
    "seg": segmentations,
    "pm": parametric_maps,
    "gsps": presentation_states,
    "ko": key_objects,
    "sr": documents,
    "sr-volume": volume_documents,
    "pdf": pdfs,
    "page": pages,
}
"""Who makes each kind. A kind that says nothing about a result (no finding, no segment) yields nothing."""

KINDS = frozenset(BUILDERS)
_REPORTED = (Outcome.FINDINGS, Outcome.NO_FINDINGS)


def build_results(
    volume: Volume,
    headers: Sequence[Dataset],
    result: DetectionResult,
    context: ReportContext,
    kinds: frozenset[str] = KINDS,
) -> tuple[DerivedObject, ...]:
    """All result objects of one analysis; see ``iter_results``."""
    return tuple(iter_results(volume, headers, result, context, kinds))


def iter_results(
    volume: Volume,
    headers: Sequence[Dataset],
    result: DetectionResult,
    context: ReportContext,
    kinds: frozenset[str] = KINDS,
) -> Iterator[DerivedObject]:
    """Yield the result objects one by one, for Series whose pictures together would fill the memory.

    ``headers``: one per plane, the Dataset of the plane's source Instance without Pixel Data (for a multi-frame
    Instance the same Dataset again and again); they are not changed. ``kinds``: keys of ``BUILDERS``; they come in
    the order of sending. The same arguments give the same bytes and UIDs.

    Raises ValueError for an outcome other than findings or no findings, for an unknown kind, and when headers,
    planes and result do not fit each other.
    """
    _check(volume, headers, result, kinds)
    return _built(volume, legible(headers), result, context, kinds)


def _built(
    volume: Volume, headers: Sequence[Dataset], result: DetectionResult, context: ReportContext, kinds: frozenset[str]
) -> Iterator[DerivedObject]:
    for kind in SEND_ORDER:
        if kind in kinds:
            for dataset in BUILDERS[kind](volume, headers, result, context):
                yield _finished(kind, dataset, context)


def _finished(kind: str, dataset: Dataset, context: ReportContext) -> DerivedObject:
    add_file_meta(dataset, context)
    return DerivedObject(kind, dataset)


def _check(volume: Volume, headers: Sequence[Dataset], result: DetectionResult, kinds: frozenset[str]) -> None:
    if result.outcome not in _REPORTED:
        raise ValueError(f"the outcome '{result.outcome}' has no result objects")
    if not kinds <= KINDS:
        raise ValueError(f"unknown kinds of result: {', '.join(sorted(kinds - KINDS))}")
    if not len(volume.planes) == len(headers) == len(result.planes):
        raise ValueError("volume, headers and result differ in their number of planes")
    if len({plane.source.series for plane in volume.planes}) != 1:
        raise ValueError("the planes of a result come from one Series")
    if any(plane.shape != own.heat.shape for plane, own in zip(volume.planes, result.planes, strict=True)):
        raise ValueError("a heat map differs from its plane in shape")
    regions = [region for finding in result.findings for region in finding.regions]
    if any(not 0 <= region.plane < len(volume.planes) for region in regions):
        raise ValueError("a region lies on a plane that the volume does not have")
    if not all(finding.regions for finding in result.findings):
        raise ValueError("a finding has no region")
