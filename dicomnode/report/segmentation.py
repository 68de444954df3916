"""Segmentation Storage, BINARY, one segment per finding (PS3.3 A.51, C.8.20)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from highdicom.seg import SegmentDescription
from pydicom.dataset import Dataset
from pydicom.uid import SegmentationStorage

from dicomnode.detectors.contract import DetectionResult, Finding, Mask, Volume
from dicomnode.dicom.references import InstanceReference
from dicomnode.report import codes
from dicomnode.report.anatomy import finding_site
from dicomnode.report.context import MANUFACTURER, ReportContext, ResultUIDs
from dicomnode.report.derived_frames import (
    Batch,
    add_dimensions,
    add_frames,
    batches,
    derived_envelope,
    frame_groups,
    place_pointer,
)
from dicomnode.report.envelope import shortened

_COLOURS = ((86, 180, 233), (230, 159, 0), (204, 121, 167), (0, 158, 115), (240, 228, 66), (213, 94, 0), (0, 114, 178))
"""The palette of M. Okabe and K. Ito (2008): told apart with any colour vision; sky blue, the SC's contour, first."""


@dataclass(frozen=True, slots=True)
class SegmentReference:
    """Where a finding is segmented: the Segmentation, the Segment Number in it, the planes with its pixels."""

    instance: InstanceReference
    number: int
    planes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Segment:
    """A finding in one object: ``place`` counts the findings of the result from 1; a mask per plane it lies on."""

    place: int
    finding: Finding
    masks: Mapping[int, Mask]


def segmentations(
    volume: Volume, headers: Sequence[Dataset], result: DetectionResult, context: ReportContext
) -> Iterator[Dataset]:
    """One Segmentation for all slices, or one for each projection image with findings; none without findings.

    Segment n is finding n of the result, of those on this object's images where there are several objects: frames
    of one object have one matrix, and only projections differ in theirs.
    """
    for batch in _batches(volume, result):
        yield _segmentation(batch, volume, headers, result, context)


def segment_references(
    volume: Volume, result: DetectionResult, context: ReportContext
) -> list[tuple[SegmentReference, ...]]:
    """For each finding of the result, where it is segmented: once, or once per projection image."""
    source = volume.planes[0].source.series
    uids = ResultUIDs.of(source, context)
    found: list[tuple[SegmentReference, ...]] = [()] * len(result.findings)
    for batch in _batches(volume, result):
        series, instance = uids.series("seg" + batch.suffix), uids.instance("seg", batch.number)
        reference = InstanceReference(source.StudyInstanceUID, series, SegmentationStorage, instance)
        for number, segment in enumerate(_segments(batch, result), start=1):
            found[segment.place - 1] += (SegmentReference(reference, number, tuple(sorted(segment.masks))),)
    return found


def _batches(volume: Volume, result: DetectionResult) -> tuple[Batch, ...]:
    return batches(volume, (region.plane for finding in result.findings for region in finding.regions))


def _segments(batch: Batch, result: DetectionResult) -> list[_Segment]:
    segments = []
    for place, finding in enumerate(result.findings, start=1):
        if masks := masks_of(finding, batch.planes):
            segments.append(_Segment(place, finding, masks))
    return segments


def masks_of(finding: Finding, planes: Collection[int]) -> dict[int, Mask]:
    """All pixels of ``finding`` on each of ``planes`` that it lies on; its regions on one plane are joined."""
    masks: dict[int, Mask] = {}
    for region in finding.regions:
        if region.plane in planes:
            masks[region.plane] = region.mask | masks[region.plane] if region.plane in masks else region.mask
    return masks


def _segmentation(
    batch: Batch, volume: Volume, headers: Sequence[Dataset], result: DetectionResult, context: ReportContext
) -> Dataset:
    segments = _segments(batch, result)
    dataset = derived_envelope("seg", "segmentation", batch, volume, headers, context)
    dataset.SOPClassUID = SegmentationStorage
    dataset.Modality = "SEG"
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.ContentLabel = "AI_FINDINGS"
    dataset.ContentDescription = shortened(f"{context.banner}: findings", 64)
    dataset.ContentCreatorName = f"{MANUFACTURER}^{context.detector}"[:64]
    dataset.SegmentationType = "BINARY"
    dataset.SegmentsOverlap = "YES" if _overlap(segments) else "NO"
    uids = ResultUIDs.of(volume.planes[0].source.series, context)
    side = dataset.pop("Laterality", None)  # validators take no Laterality of the Series in a segmentation
    dataset.SegmentSequence = [
        _description(number, segment, headers[batch.planes[0]], uids, result, context)
        for number, segment in enumerate(segments, start=1)
    ]
    for item in dataset.SegmentSequence if side is not None else ():
        _add_side(item, str(side.value))
    _add_frames(dataset, batch, segments, volume, headers, context)
    return dataset


def _overlap(segments: Sequence[_Segment]) -> bool:
    seen: dict[int, Mask] = {}
    for segment in segments:
        for plane, mask in segment.masks.items():
            if plane in seen and bool((seen[plane] & mask).any()):
                return True
            seen[plane] = seen[plane] | mask if plane in seen else mask
    return False


def _description(
    number: int, segment: _Segment, header: Dataset, uids: ResultUIDs, result: DetectionResult, context: ReportContext
) -> SegmentDescription:
    site = finding_site(header)
    finding = segment.finding
    return SegmentDescription(
        segment_number=number,
        segment_label=f"{finding.label or 'AI anomaly'} {segment.place}: {finding.score:.2f} (RESEARCH)",
        segmented_property_category=codes.ANATOMY if finding.anatomy else codes.MORPHOLOGY,
        segmented_property_type=codes.finding_type(finding),
        algorithm_type="AUTOMATIC",
        algorithm_identification=_algorithm(result, context),
        tracking_uid=uids.tracking(finding.tracking_id),
        tracking_id=finding.tracking_id,
        anatomic_regions=[site] if site else None,
        display_color=CIELabColor.from_rgb(*(finding.colour or _COLOURS[(segment.place - 1) % len(_COLOURS)])),
    )


def _add_side(segment: Dataset, side: str) -> None:
    """The imaged side as modifier of the anatomic region, where both are known (PS3.3 10.5)."""
    for region in segment.get("AnatomicRegionSequence") or ():
        if side in codes.SIDES:
            region.AnatomicRegionModifierSequence = [codes.code_item(codes.SIDES[side])]


def _algorithm(result: DetectionResult, context: ReportContext) -> AlgorithmIdentificationSequence:
    """Segmentation Algorithm Identification (PS3.3 10.16): name, version, and the weights as parameters."""
    model = context.model
    facts = {"model": f"{model.name} {model.version}", "weights SHA-256": model.sha256, **result.parameters}
    return AlgorithmIdentificationSequence(
        name=context.detector[:64],
        family=codes.ARTIFICIAL_INTELLIGENCE,
        version=context.detector_version[:64],
        source=MANUFACTURER,
        parameters={name: value for name, value in facts.items() if value},
    )


def _add_frames(
    dataset: Dataset,
    batch: Batch,
    segments: Sequence[_Segment],
    volume: Volume,
    headers: Sequence[Dataset],
    context: ReportContext,
) -> None:
    """Frames only where a segment has pixels, segment by segment; one bit per pixel (PS3.3 C.8.20.2, PS3.5 8.1.1)."""
    frames: list[Dataset] = []
    masks: list[Mask] = []
    spacing = volume.slice_spacing
    for number, segment in enumerate(segments, start=1):
        for index in (index for index in batch.planes if index in segment.masks):
            plane, header = volume.planes[index], headers[index]
            frame = frame_groups(plane, header, spacing, codes.SEGMENTATION)
            frame.FrameContentSequence[0].DimensionIndexValues = [number, batch.planes.index(index) + 1]
            frame.FrameContentSequence[0].FrameLabel = f"image {index + 1}"
            identification = Dataset()
            identification.ReferencedSegmentNumber = number
            frame.SegmentIdentificationSequence = [identification]
            frames.append(frame)
            masks.append(segment.masks[index])
    add_frames(dataset, frames, Dataset())
    segment_pointer = ("ReferencedSegmentNumber", "SegmentIdentificationSequence")
    add_dimensions(dataset, (segment_pointer, place_pointer(batch)), context)
    dataset.BitsAllocated = dataset.BitsStored = 1
    dataset.HighBit = dataset.PixelRepresentation = 0
    bits = np.packbits(np.concatenate([mask.reshape(-1) for mask in masks]), bitorder="little").tobytes()
    dataset.PixelData = bits + b"\0" * (len(bits) % 2)
    dataset["PixelData"].VR = "OB"
