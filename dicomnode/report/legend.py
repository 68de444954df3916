"""The words beside a picture."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset

from dicomnode.detectors.contract import DetectionResult, Outcome, Plane, Volume
from dicomnode.report.context import ReportContext
from dicomnode.report.panel import Legend
from dicomnode.report.scores import score_texts
from dicomnode.report.window import Window

SUPERSEDES = "Replaces an earlier result: images arrived late"
REGION_HEAT = "region heat"
VALIDATION = "validation AUROC"
WARNING = "warning"
INCOMPLETE = "INCOMPLETE SERIES: not all images were received"


def legend_for(
    index: int, volume: Volume, header: Dataset, result: DetectionResult, context: ReportContext, window: Window
) -> Legend:
    """The legend of plane ``index``: outcome, scores with their threshold, slice, window, model, notices.

    A plane that the detector left out says so instead of a score: it must not look like one without findings.

    Raises ValueError for a result without score or calibration.
    """
    if result.score is None or result.calibration is None:
        raise ValueError("a result without score has no picture")
    threshold = result.calibration.threshold
    series_score, threshold_text = score_texts(result.score, threshold)
    slice_score, _ = score_texts(result.planes[index].score, threshold)
    regions = sum(region.plane == index for finding in result.findings for region in finding.regions)
    alarming = result.outcome is Outcome.FINDINGS
    headline, subline = "FINDINGS" if alarming else "NO FINDINGS", f"at threshold {threshold_text}"
    left_out = result.planes[index].left_out
    return Legend(
        headline="NOT ANALYSED" if left_out else headline,
        alarming=alarming,
        subline=f"this image; series: {headline.lower()}" if left_out else subline,
        scores=(
            ("Series score", series_score),
            ("Image score", "none" if left_out else slice_score),
            ("Regions here", "none" if left_out else str(regions)),
        ),
        facts=(
            *_where(index, volume, header),
            ("Window", window.text),
            ("", window.origin),
            *_who(context),
            *_how_good(result),
        ),
        display_threshold=context.display_threshold,
        banner=context.banner,
        region_heat=region_heat(result),
        notices=picture_notices(index, result, context),
        notice_lines=len(notices(result, context)) + any(plane.left_out for plane in result.planes),
    )


def region_heat(result: DetectionResult) -> float | None:
    """Heat from which pixels belong to a region, where the detector states it as parameter "region heat"."""
    try:
        value = float(result.parameters.get(REGION_HEAT, ""))
    except ValueError:
        return None
    return value if 0.0 <= value <= 1.0 else None


def notices(result: DetectionResult, context: ReportContext) -> tuple[str, ...]:
    """What a reader must know beyond the result itself; the detector's own is its parameter "warning"."""
    said = (
        INCOMPLETE if context.incomplete else "",
        SUPERSEDES if context.supersedes else "",
        result.parameters.get(WARNING, ""),
    )
    return tuple(text for text in said if text)


def picture_notices(index: int, result: DetectionResult, context: ReportContext) -> tuple[str, ...]:
    """What a reader must know beside the picture of plane ``index``."""
    left_out = result.planes[index].left_out
    said = (f"IMAGE NOT ANALYSED: {left_out}",) if left_out else ()
    return (*said, *notices(result, context))


def _how_good(result: DetectionResult) -> tuple[tuple[str, str], ...]:
    """The model's AUROC in validation, where the detector states it."""
    figure = result.parameters.get(VALIDATION)
    return (("AUROC", figure),) if figure else ()


def _where(index: int, volume: Volume, header: Dataset) -> tuple[tuple[str, str], ...]:
    plane = volume.planes[index]
    place = position_text(plane)
    number = header.get("InstanceNumber")
    source = f"frame {plane.frame}" if plane.frame else f"no. {number}" if number not in (None, "") else "no number"
    slice_text = f"{index + 1}/{len(volume.planes)}" + (f", {place}" if place else "")
    return ("Slice" if place else "Image", slice_text), ("Source", source)


def _who(context: ReportContext) -> tuple[tuple[str, str], ...]:
    return (
        ("Detector", f"{context.detector} {context.detector_version}"),
        ("Model", context.model.name),
        ("Version", context.model.version),
        ("Weights", f"sha256 {context.model.sha256[:8]}"),
    )


def position_text(plane: Plane) -> str:
    """Where the plane lies along the patient axis nearest to its normal, in mm: "z = 65.0 mm"; "" for projections."""
    if plane.position is None or plane.orientation is None:
        return ""
    normal = np.cross(plane.orientation[:3], plane.orientation[3:])
    axis = int(np.argmax(np.abs(normal)))
    return f"{'xyz'[axis]} = {plane.position[axis]:.1f} mm"
