"""The words beside a picture."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from pydicom.dataset import Dataset

from dicomnode.detectors.contract import DetectionResult, Outcome, Plane, Volume
from dicomnode.report.context import ReportContext
from dicomnode.report.geometry import patient_orientation
from dicomnode.report.panel import Legend
from dicomnode.report.scores import percent, score_texts
from dicomnode.report.window import Window

SUPERSEDES = "Replaces an earlier result: images arrived late"
REGION_HEAT = "region heat"
VALIDATION = "validation AUROC"
WARNING = "warning"
ACQUISITION = "acquisition gate"
P_VALUE = "p-value"
MAP_SHOWS = "map shows"
_OPPOSITE = str.maketrans("LRAPHF", "RLPAFH")
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
    regions = [region.score for finding in result.findings for region in finding.regions if region.plane == index]
    region_text = f"{len(regions)} (up to {max(regions):.2f})" if regions else "0"
    alarming = result.outcome is Outcome.FINDINGS
    headline, subline = "FINDINGS" if alarming else "NO FINDINGS", f"series, at threshold {threshold_text}"
    left_out = result.planes[index].left_out
    return Legend(
        headline="NOT ANALYSED" if left_out else headline,
        alarming=alarming,
        subline=f"this image; series: {headline.lower()}" if left_out else subline,
        scores=(
            ("Series score", series_score),
            ("Image score", "none" if left_out else slice_score),
            ("Regions here", "none" if left_out else region_text),
        ),
        facts=(
            *_where(index, volume, header),
            *_edges([volume.planes[index]], [header]),
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
        meaning=meaning(result),
    )


def series_legend(
    volume: Volume,
    headers: Sequence[Dataset],
    result: DetectionResult,
    context: ReportContext,
    shown: Mapping[int, Window],
) -> Legend:
    """The legend of a montage: what is true of the whole Series, and what is missing. ``shown``: plane to its window.

    Raises ValueError for a result without score or calibration.
    """
    if result.score is None or result.calibration is None:
        raise ValueError("a result without score has no picture")
    series_score, threshold_text = score_texts(result.score, result.calibration.threshold)
    marked = {region.plane for finding in result.findings for region in finding.regions}
    n, looked_at = len(volume.planes), sum(not plane.left_out for plane in result.planes)
    alarming = result.outcome is Outcome.FINDINGS
    return Legend(
        headline="FINDINGS" if alarming else "NO FINDINGS",
        subline=f"at threshold {threshold_text}",
        alarming=alarming,
        scores=(
            ("Series score", series_score),
            ("Analysed", f"{looked_at} of {n}"),
            ("Framed", _framed(marked)),
        ),
        facts=(
            ("Shown", f"{len(shown)} of {n} images"),
            *_edges(volume.planes, headers),
            ("Window", _one_window(shown)),
            *_who(context),
            *_how_good(result),
        ),
        display_threshold=context.display_threshold,
        banner=context.banner,
        region_heat=region_heat(result),
        notices=(*_missing(shown, marked, n), *notices(result, context)),
        meaning=meaning(result),
    )


def _framed(marked: set[int]) -> str:
    return f"{len(marked)} with regions" if marked else "none"


def _one_window(shown: Mapping[int, Window]) -> str:
    texts = {window.text for window in shown.values()}
    return texts.pop() if len(texts) == 1 else "as each image states"


def _missing(shown: Collection[int], marked: set[int], n: int) -> tuple[str, ...]:
    """That, and which, images are not in the montage."""
    if len(shown) == n:
        return ()
    hidden = len(marked - set(shown))
    text = f"{len(shown)} of {n} images: the most suspicious, the others evenly spaced"
    verb = "is" if hidden == 1 else "are"
    return (text + (f"; {hidden} more with regions {verb} not shown" if hidden else ""),)


def _edges(planes: Sequence[Plane], headers: Sequence[Dataset]) -> tuple[tuple[str, str], ...]:
    """Which side of the patient the left and upper edges of the images are, where they all agree."""
    known = {tuple(patient_orientation(*pair)) for pair in zip(planes, headers, strict=True)}
    directions = known.pop() if len(known) == 1 else ()
    if len(directions) != 2 or not all(directions):
        return ()
    left, top = (text[0].translate(_OPPOSITE) for text in directions)
    return (("Edges", f"left {left}, top {top}"),)


def meaning(result: DetectionResult) -> tuple[str, ...]:
    """What scores stand for, in two lines: unit; calibration and expected false alarms. () without calibration."""
    if result.calibration is None:
        return ()
    known = result.calibration
    if not known.n_patients:
        return f"Score: {known.unit}", "not calibrated on healthy patients: expected false positives are not known"
    rate = f"{percent(known.expected_false_positive_rate)} of healthy patients are expected to reach the threshold"
    return f"Score: {known.unit}", f"calibrated on {known.n_patients} healthy patients; {rate}"


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
        SUPERSEDES if context.supersedes or context.replaces_earlier else "",
        *result.notices,
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
    a, b, c, d, e, f = plane.orientation
    normal = (abs(b * f - c * e), abs(c * d - a * f), abs(a * e - b * d))
    axis = normal.index(max(normal))
    return f"{'xyz'[axis]} = {plane.position[axis]:.1f} mm"
