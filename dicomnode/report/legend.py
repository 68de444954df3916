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
INCOMPLETE = "INCOMPLETE SERIES: not all images were received"


def legend_for(
    index: int, volume: Volume, header: Dataset, result: DetectionResult, context: ReportContext, window: Window
) -> Legend:
    """The legend of plane ``index``: outcome, scores with their threshold, slice, window, model, notices.

    Raises ValueError for a result without score or calibration.
    """
    if result.score is None or result.calibration is None:
        raise ValueError("a result without score has no picture")
    threshold = result.calibration.threshold
    series_score, threshold_text = score_texts(result.score, threshold)
    slice_score, _ = score_texts(result.planes[index].score, threshold)
    regions = sum(region.plane == index for finding in result.findings for region in finding.regions)
    alarming = result.outcome is Outcome.FINDINGS
    return Legend(
        headline="FINDINGS" if alarming else "NO FINDINGS",
        alarming=alarming,
        subline=f"at threshold {threshold_text}",
        scores=(
            ("Series score", series_score),
            ("Image score", slice_score),
            ("Regions here", str(regions)),
        ),
        facts=(*_where(index, volume, header), ("Window", window.text), ("", window.origin), *_who(context)),
        display_threshold=context.display_threshold,
        banner=context.banner,
        region_heat=region_heat(result),
        notices=notices(context),
    )


def region_heat(result: DetectionResult) -> float | None:
    """Heat from which pixels belong to a region, where the detector states it as parameter "region heat"."""
    try:
        value = float(result.parameters.get(REGION_HEAT, ""))
    except ValueError:
        return None
    return value if 0.0 <= value <= 1.0 else None


def notices(context: ReportContext) -> tuple[str, ...]:
    """What a reader must know beyond the result itself."""
    said = (INCOMPLETE,) if context.incomplete else ()
    return (*said, SUPERSEDES) if context.supersedes else said


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
