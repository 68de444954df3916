"""Content of SR documents: TID 1500 with a TID 1501 group for the Series, or with TID 1410 groups for regions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    ContentItem,
    CoordinatesForMeasurement,
    FindingSite,
    GraphicTypeValues,
    ImageRegion,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    SourceImageForRegion,
    TextContentItem,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from dicomnode.detectors.contract import (
    Calibration,
    DetectionResult,
    Finding,
    NearestHealthy,
    Outcome,
    Plane,
    Region,
    Volume,
)
from dicomnode.dicom.references import InstanceReference
from dicomnode.report import codes
from dicomnode.report.anatomy import finding_site
from dicomnode.report.context import ReportContext, ResultUIDs
from dicomnode.report.evidence import instance_item
from dicomnode.report.image_library import image_library
from dicomnode.report.legend import P_VALUE, notices
from dicomnode.report.observer import device_observer
from dicomnode.report.patterns import element, like
from dicomnode.report.scores import percent, score_texts

Group = (
    MeasurementsAndQualitativeEvaluations
    | PlanarROIMeasurementsAndQualitativeEvaluations
    | VolumetricROIMeasurementsAndQualitativeEvaluations
)


def series_report(
    volume: Volume, headers: Sequence[Dataset], result: DetectionResult, context: ReportContext
) -> Dataset:
    """The root document: Finding Present or Absent, score and threshold for the whole Series (TID 1501)."""
    return report_of([_series_group(volume, headers, result, context)], volume, headers, result, context)


def regions_report(
    volume: Volume, headers: Sequence[Dataset], result: DetectionResult, context: ReportContext
) -> Dataset:
    """The regions document: one TID 1410 group per finding, with its region on the strongest plane."""
    site = sites_of(headers[0])
    groups = [_region_group(finding, volume, site, result, context) for finding in result.findings]
    return report_of(groups, volume, headers, result, context)


def report_of(
    groups: Sequence[Group],
    volume: Volume,
    headers: Sequence[Dataset],
    result: DetectionResult,
    context: ReportContext,
) -> Dataset:
    """TID 1500 around ``groups``: observer, procedure, image library, and what a reader must know as comments."""
    report = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=device_observer(context)),
        procedure_reported=codes.procedure_reported(str(headers[0].get("Modality") or "")),
        imaging_measurements=groups,
    )
    root = report[0]
    last = len(root.ContentSequence) - 1
    root.ContentSequence.insert(last, image_library(volume.planes, headers))
    for offset, text in enumerate((context.banner, *notices(result, context))):
        root.ContentSequence.insert(last + 1 + offset, text_item(codes.COMMENT, text))
    return root


def text_item(name: Code, text: str) -> TextContentItem:
    """A TEXT item for a container."""
    return TextContentItem(name, text, RelationshipTypeValues.CONTAINS)


def algorithm_of(result: DetectionResult, context: ReportContext) -> AlgorithmIdentification:
    """TID 4019, with the weights and every parameter that can change the answer."""
    model = context.model
    facts = {
        "model": f"{model.name} {model.version}",
        "weights SHA-256": model.sha256,
        "weights licence": model.licence,
        "software": f"dicomnode {context.software_version}",
        "accelerator": context.accelerator,
        **context.parameters,
        **result.parameters,
    }
    return AlgorithmIdentification(
        name=context.detector,
        version=context.detector_version,
        parameters=[f"{name}={value}" for name, value in facts.items() if value],
    )


def sites_of(header: Dataset) -> list[FindingSite]:
    """The imaged region as Finding Site, [] when the source does not tell."""
    site = finding_site(header)
    return [FindingSite(site)] if site else []


def measured(
    name: Code,
    value: float,
    unit: Code,
    algorithm: AlgorithmIdentification,
    text: str | None = None,
    method: Code | None = None,
) -> Measurement:
    """A NUM with its algorithm; ``text``: Numeric Value as it shall be read, the float keeps full precision.

    Trailing zeros go, as viewers drop them too. OHIF also shows two decimals at most: regions have no more.
    """
    measurement = Measurement(name=name, value=float(value), unit=unit, algorithm_id=algorithm, method=method)
    if text is not None:
        short = text.rstrip("0").rstrip(".") if "." in text else text
        measurement[0].MeasuredValueSequence[0].NumericValue = short
    return measurement


def _calibration(result: DetectionResult) -> Calibration:
    if result.score is None or result.calibration is None:
        raise ValueError("a result without score has no report")
    return result.calibration


def _series_group(
    volume: Volume, headers: Sequence[Dataset], result: DetectionResult, context: ReportContext
) -> MeasurementsAndQualitativeEvaluations:
    calibration, algorithm = _calibration(result), algorithm_of(result, context)
    score = float(result.score or 0.0)
    score_text, threshold_text = score_texts(score, calibration.threshold, 4)
    uids = ResultUIDs.of(volume.planes[0].source.series, context)
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(uids.tracking("series"), f"{context.detector} series result"),
        finding_type=codes.PRESENT if result.outcome is Outcome.FINDINGS else codes.ABSENT,
        algorithm_id=algorithm,
        finding_sites=sites_of(headers[0]),
        measurements=[
            measured(codes.ANOMALY_SCORE, score, codes.SCORE_UNIT, algorithm, score_text),
            measured(codes.SCORE_THRESHOLD, calibration.threshold, codes.SCORE_UNIT, algorithm, threshold_text),
            *_expected_rate(calibration, algorithm),
        ],
        source_images=[_source_image(volume.planes[0])],
    )
    content = group[0].ContentSequence
    content.append(text_item(codes.CALIBRATION, calibration_text(result)))
    content.append(text_item(codes.COMPLETENESS, completeness_text(volume, result, context)))
    content.extend(text_item(codes.LABEL, text) for text in label_lines(result))
    _refer_to_all(group[0], volume.planes, headers)
    return group


def _refer_to_all(container: Dataset, planes: Sequence[Plane], headers: Sequence[Dataset]) -> None:
    """Put an item for each source of ``planes`` in the place of the one that ``container`` has, and after its pattern.

    A Series of 1000 images has as many: they differ in their reference only.
    """
    content = list(container.ContentSequence)
    at = next(n for n, item in enumerate(content) if isinstance(item, SourceImageForMeasurementGroup))
    frames: dict[InstanceReference, list[int]] = {}
    for plane in planes:
        frames.setdefault(plane.source, []).extend([] if plane.frame is None else [plane.frame])
    items = (instance_item(source, own, headers) for source, own in frames.items())
    made = (like(content[at], element("ReferencedSOPSequence", "SQ", [item])) for item in items)
    container.add(element("ContentSequence", "SQ", [*content[:at], *made, *content[at + 1 :]]))


def _expected_rate(calibration: Calibration, algorithm: AlgorithmIdentification) -> list[Measurement]:
    """The share of healthy patients that reach the threshold; nothing where nobody has measured it."""
    if not calibration.n_patients:
        return []
    return [measured(codes.EXPECTED_FPR, calibration.expected_false_positive_rate, codes.PROPORTION, algorithm)]


def finding_score(finding: Finding, algorithm: AlgorithmIdentification) -> Measurement:
    """The score of a finding: of its label, or the maximum of its heat map."""
    name = codes.LABEL_SCORE if finding.label else codes.ANOMALY_HEAT
    return measured(name, finding.score, codes.SCORE_UNIT, algorithm, f"{finding.score:.2f}")


def label_lines(result: DetectionResult) -> list[str]:
    """What a model with named outputs says of each label."""
    lines = []
    for label in result.labels:
        score, threshold = score_texts(label.score, label.threshold)
        lines.append(f"{label.name}: {score}, threshold {threshold}: {'present' if label.present else 'not present'}")
    return lines


def _source_image(plane: Plane) -> SourceImageForMeasurementGroup:
    return SourceImageForMeasurementGroup(plane.source.SOPClassUID, plane.source.SOPInstanceUID)


def calibration_text(result: DetectionResult) -> str:
    """What the score means, in words: unit, procedure, on how many patients, threshold, and the raw output."""
    calibration = _calibration(result)
    if calibration.n_patients:
        text = (
            f"Score: {calibration.unit}. Calibration: {calibration.method}, on {calibration.n_patients} healthy "
            f"patients held back from training. A score at or above {calibration.threshold:g} counts as findings; "
            f"{percent(calibration.expected_false_positive_rate)} of healthy patients are expected there."
        )
    else:
        text = (
            f"Score: {calibration.unit}. Calibration: {calibration.method}. A score at or above "
            f"{calibration.threshold:g} counts as findings; how many healthy patients reach that is not known."
        )
    if P_VALUE in result.parameters:
        text += f" Conformal p-value of this series: {result.parameters[P_VALUE]}."
    if result.raw_score is not None:
        text += f" Uncalibrated detector output: {result.raw_score:.6g} {result.raw_unit}".rstrip() + "."
    return text


def completeness_text(volume: Volume, result: DetectionResult, context: ReportContext) -> str:
    """How much of the Series was analysed, what was left out and why, and remarks of the volume builder."""
    state = "closed incomplete" if context.incomplete else "complete"
    reasons = Counter(plane.left_out for plane in result.planes if plane.left_out)
    n, analysed = len(volume.planes), len(volume.planes) - reasons.total()
    text = f"{analysed} of {n} images analysed; series {state}, generation {context.generation}."
    if reasons:
        text += " Not analysed: " + "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common()) + "."
    return " ".join((text, *(f"Note: {note}." for note in volume.notes)))


def strongest(finding: Finding) -> Region:
    """The region with the greatest score; of equals, the largest, then the first."""
    return max(finding.regions, key=lambda region: (region.score, int(region.mask.sum()), -region.plane))


def _region_group(
    finding: Finding, volume: Volume, site: list[FindingSite], result: DetectionResult, context: ReportContext
) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    """TID 1410, shaped so that OHIF can take the region over as a measurement.

    For that the first NUM has the region's coordinates as its own source, and a comment is the label. The score of
    a finding is the maximum of its heat map, on another scale than the score of the Series.
    """
    region, algorithm = strongest(finding), algorithm_of(result, context)
    plane = volume.planes[region.plane]
    group = PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            ResultUIDs.of(plane.source.series, context).tracking(finding.tracking_id), finding.tracking_id
        ),
        referenced_region=ImageRegion(GraphicTypeValues.POLYLINE, outline(region, plane), _source(plane)),
        finding_type=codes.finding_type(finding),
        algorithm_id=algorithm,
        finding_sites=site,
        measurements=[finding_score(finding, algorithm)],
    )
    content = group[0].ContentSequence
    number = next(item for item in content if item.ValueType == "NUM")
    number.ContentSequence.append(_coordinates(region, plane))
    content.append(text_item(codes.COMMENT, label_text(finding)))
    content.append(text_item(codes.EXTENT, extent_text(finding, volume)))
    content.extend(nearest_items(finding, volume))
    return group


def _coordinates(region: Region, plane: Plane) -> ContentItem:
    return CoordinatesForMeasurement(
        GraphicTypeValues.POLYLINE,
        outline(region, plane),
        _source(plane),
        purpose=CodedConcept.from_code(codes.SOURCE_OF_MEASUREMENT),
    )


def _source(plane: Plane) -> SourceImageForRegion:
    frames = None if plane.frame is None else [plane.frame]
    return SourceImageForRegion(plane.source.SOPClassUID, plane.source.SOPInstanceUID, frames)


def outline(region: Region, plane: Plane) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """The region's box as a closed polyline of 5 (column, row) points, inside the image (PS3.3 C.18.6.1.2)."""
    rows, columns = plane.shape
    left, top, right, bottom = region.box
    left, right = max(0.0, left), min(float(columns), right)
    top, bottom = max(0.0, top), min(float(rows), bottom)
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom], [left, top]])


def label_text(finding: Finding) -> str:
    """What a viewer writes beside the region."""
    return f"{finding.label or 'AI anomaly'} {finding.score:.2f} (RESEARCH)"


def extent_text(finding: Finding, volume: Volume) -> str:
    """On which planes the finding lies and how large it is on the strongest."""
    planes = sorted({region.plane + 1 for region in finding.regions})
    region = strongest(finding)
    numbers = ", ".join(str(number) for number in planes)
    text = f"On image {numbers} of {len(volume.planes)}; the box encloses the region on image {region.plane + 1}"
    area = "" if region.area_mm2 is None else f", where it covers {region.area_mm2:.0f} mm2"
    return f"{text}{area}."


def nearest_items(finding: Finding, volume: Volume) -> list[TextContentItem]:
    """What healthy tissue of the Series is most like the finding, where the detector tells."""
    if finding.nearest is None:
        return []
    return [text_item(codes.NEAREST, nearest_text(finding.nearest, volume))]


def nearest_text(nearest: NearestHealthy, volume: Volume) -> str:
    """Where the nearest healthy patch is, how far off it is, and how far off healthy patches usually are."""
    column, row = nearest.centre
    return (
        f"Most alike of {nearest.compared} patches of this series that the model finds healthy: on image "
        f"{nearest.plane + 1} of {len(volume.planes)} around column {column:.0f}, row {row:.0f}. It differs from the "
        f"hottest place of the finding by {nearest.distance:.2f} standard deviations of the organ's grey values; "
        f"healthy patches differ from their nearest by {nearest.usual:.2f} (median)."
    )
