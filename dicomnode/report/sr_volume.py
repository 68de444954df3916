"""Content of the volume document: one TID 1411 group per segmented finding (PS3.16 TID 1500, TID 1411)."""

from __future__ import annotations

from collections.abc import Sequence

from highdicom.sr import (
    AlgorithmIdentification,
    Measurement,
    ReferencedSegment,
    SourceSeriesForSegmentation,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom.dataset import Dataset

from dicomnode.detectors.contract import DetectionResult, Finding, Volume
from dicomnode.report import codes
from dicomnode.report.context import ReportContext, ResultUIDs
from dicomnode.report.segmentation import SegmentReference, masks_of
from dicomnode.report.sr_content import (
    algorithm_of,
    extent_text,
    finding_score,
    label_text,
    measured,
    nearest_items,
    report_of,
    sites_of,
    text_item,
)


def volume_report(
    volume: Volume,
    headers: Sequence[Dataset],
    result: DetectionResult,
    context: ReportContext,
    segments: Sequence[Sequence[SegmentReference]],
) -> Dataset:
    """One group per segment. ``segments``: for each finding of ``result`` where it is segmented."""
    groups = [
        _group(finding, reference, volume, headers, result, context)
        for finding, references in zip(result.findings, segments, strict=True)
        for reference in references
    ]
    return report_of(groups, volume, headers, result, context)


def _group(
    finding: Finding,
    segment: SegmentReference,
    volume: Volume,
    headers: Sequence[Dataset],
    result: DetectionResult,
    context: ReportContext,
) -> VolumetricROIMeasurementsAndQualitativeEvaluations:
    source, algorithm = volume.planes[0].source.series, algorithm_of(result, context)
    group = VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            ResultUIDs.of(source, context).tracking(finding.tracking_id), finding.tracking_id
        ),
        referenced_segment=ReferencedSegment(
            segment.instance.SOPClassUID,
            segment.instance.SOPInstanceUID,
            segment.number,
            source_series=SourceSeriesForSegmentation(source.SeriesInstanceUID),
        ),
        finding_type=codes.finding_type(finding),
        algorithm_id=algorithm,
        finding_sites=sites_of(headers[0]),
        measurements=[
            finding_score(finding, algorithm),
            *_sizes(finding, segment, volume, algorithm),
        ],
    )
    content = group[0].ContentSequence
    content.append(text_item(codes.COMMENT, label_text(finding)))
    content.append(text_item(codes.EXTENT, extent_text(finding, volume)))
    content.extend(nearest_items(finding, volume))
    return group


def _sizes(
    finding: Finding, segment: SegmentReference, volume: Volume, algorithm: AlgorithmIdentification
) -> list[Measurement]:
    """Volume in mm3 of evenly spaced slices, area in mm2 of a single image; nothing where the spacing is unknown.

    Both count the pixels of the segment: what several regions of the finding share counts once.
    """
    spacing = volume.planes[segment.planes[0]].spacing
    if spacing is None:
        return []
    area = sum(int(mask.sum()) for mask in masks_of(finding, segment.planes).values()) * spacing[0] * spacing[1]
    if volume.slice_spacing is not None:
        size = area * volume.slice_spacing
        text = f"{size:.1f}"
        return [measured(codes.VOLUME, size, codes.CUBIC_MILLIMETRE, algorithm, text, codes.SUM_OF_VOXELS)]
    if len(segment.planes) == 1:
        return [measured(codes.AREA, area, codes.SQUARE_MILLIMETRE, algorithm, f"{area:.1f}")]
    return []
