"""What the report page says, before anybody sets it: outcome, figures with their units, findings, provenance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pydicom.dataset import Dataset

from dicomnode.detectors.contract import DetectionResult, Finding, Outcome, Volume
from dicomnode.report.context import MANUFACTURER, ReportContext
from dicomnode.report.envelope import clock
from dicomnode.report.legend import ACQUISITION, MAP_SHOWS, VALIDATION, notices, position_text
from dicomnode.report.page_patient import patient_facts, series_facts, stated
from dicomnode.report.page_typeface import written
from dicomnode.report.scores import percent, score_texts
from dicomnode.report.sr_content import calibration_text, completeness_text, label_lines, strongest

Facts = tuple[tuple[str, str], ...]

TITLE = "AI anomaly detection report"
DISCLAIMER = (
    "Research software, not a medical device. Made without human review. Not a diagnosis: it replaces neither the "
    "reading of the images nor the report of a physician."
)
NO_MODEL = "no model was run"
_HEADLINES = {
    Outcome.FINDINGS: "FINDINGS",
    Outcome.NO_FINDINGS: "NO FINDINGS",
    Outcome.NOT_ANALYSED: "NOT ANALYSED",
    Outcome.FAILED: "FAILED",
}
_NOT_RULED_OUT = "This does not rule out disease: the model sees only what it was trained for, and misses cases."


@dataclass(frozen=True, slots=True)
class Figure:
    """A number that decides, as text with its unit beside it."""

    label: str
    value: str
    unit: str


@dataclass(frozen=True, slots=True)
class FindingLine:
    """One finding in words. ``images``: 1-based numbers in the order of the analysis; ``source``: Instance or frame
    number of the strongest image; ``heat``: 0 to 1; ``area``: on the strongest image, with its unit.
    """

    name: str
    images: str
    source: str
    position: str
    heat: str
    area: str


@dataclass(frozen=True, slots=True)
class PageContent:
    """All words and numbers of one report page. Holds patient data.

    ``alarming``: the headline stands out. ``statements``: paragraphs under a heading each.
    """

    outcome: Outcome
    headline: str
    subline: str
    alarming: bool
    patient: Facts
    series: Facts
    method: Facts
    figures: tuple[Figure, ...]
    findings: tuple[FindingLine, ...]
    statements: Facts
    notices: tuple[str, ...]
    banner: str
    title: str = TITLE
    disclaimer: str = DISCLAIMER


def headline(outcome: Outcome) -> str:
    """The outcome as the page shouts it."""
    return _HEADLINES[outcome]


def result_content(
    volume: Volume, headers: Sequence[Dataset], result: DetectionResult, context: ReportContext
) -> PageContent:
    """The page about an analysed Series.

    Raises ValueError for a result without score or calibration.
    """
    if result.score is None or result.calibration is None:
        raise ValueError("a result without score has no report page")
    found = result.outcome is Outcome.FINDINGS
    return PageContent(
        outcome=result.outcome,
        headline=headline(result.outcome),
        subline=_subline(found, len(result.findings)),
        alarming=found,
        patient=patient_facts(headers[0]),
        series=(*series_facts(headers), ("Images", _how_many(volume, result)), *_generation(context)),
        method=method_facts(headers[0], context, result),
        figures=_figures(result),
        findings=tuple(_line(finding, volume, headers) for finding in ranked(result)),
        statements=_statements(volume, result, context),
        notices=tuple(written(notice) for notice in notices(result, context)),
        banner=written(context.banner),
    )


def ranked(result: DetectionResult) -> tuple[Finding, ...]:
    """The findings, hottest first; equals in the order of the result."""
    return tuple(sorted(result.findings, key=lambda finding: -finding.score))


def _subline(found: bool, count: int) -> str:
    if not found:
        return f"The score of the series is below the threshold. {_NOT_RULED_OUT}"
    if not count:
        return "The score of the series is at or above the threshold; the model tells no place."
    places = "1 finding" if count == 1 else f"{count} findings"
    return f"The score of the series is at or above the threshold; {places} outlined."


def _figures(result: DetectionResult) -> tuple[Figure, ...]:
    calibration = result.calibration
    if calibration is None or result.score is None:
        return ()
    score, threshold = score_texts(result.score, calibration.threshold)
    rate = percent(calibration.expected_false_positive_rate) if calibration.n_patients else "unknown"
    return (
        Figure("Series score", score, "scale 0 to 1"),
        Figure("Threshold", threshold, "same scale"),
        Figure("False positives", rate, "of healthy patients, expected"),
    )


def _statements(volume: Volume, result: DetectionResult, context: ReportContext) -> Facts:
    """Paragraphs: what the score means, how good the model is, how much was looked at."""
    validation = (
        result.parameters.get("validation") or result.parameters.get(VALIDATION) or "not stated by the detector"
    )
    said = (
        ("What the score means", calibration_text(result)),
        ("Validation of the model", f"{validation}."),
        ("What was analysed", completeness_text(volume, result, context)),
        ("What the colours show", f"{shown}." if (shown := result.parameters.get(MAP_SHOWS)) else ""),
        ("Labels of the model", ". ".join(label_lines(result))),
        ("Acquisition", f"{acquired}." if (acquired := result.parameters.get(ACQUISITION)) else ""),
    )
    return tuple((heading, written(text)) for heading, text in said if text)


def _how_many(volume: Volume, result: DetectionResult) -> str:
    analysed = sum(not plane.left_out for plane in result.planes)
    return f"{analysed} of {len(volume.planes)} analysed"


def _generation(context: ReportContext) -> Facts:
    replaces = context.supersedes or context.replaces_earlier
    again = ", replaces an earlier result" if replaces else ""
    state = "closed incomplete" if context.incomplete else "complete"
    return ("Series state", state), ("Generation", f"{context.generation}{again}")


def method_facts(header: Dataset, context: ReportContext, result: DetectionResult | None = None) -> Facts:
    """Who made it, with what, when: detector, weights, software, accelerator, time with its zone."""
    model = context.model
    known = bool(model.name)
    facts = (
        ("Detector", f"{context.detector} {context.detector_version}"),
        ("Model", f"{model.name} {model.version}" if known else NO_MODEL),
        ("Weights", f"SHA-256 {model.sha256[:16]}…" if known and model.sha256 else ""),
        ("Licence", f"{model.licence} (weights)" if known and model.licence else ""),
        ("AUROC", _short_validation(result)),
        ("Software", f"{MANUFACTURER} {context.software_version}, {context.ae_title}"),
        ("Accelerator", context.accelerator),
        ("Analysis", moment(clock(header, context))),
    )
    return tuple((label, written(value)) for label, value in facts if value)


def _short_validation(result: DetectionResult | None) -> str:
    figure = result.parameters.get(VALIDATION) if result else None
    return f"{figure} in validation" if figure else ""


def moment(when: datetime) -> str:
    """Date, time to the second and offset from UTC."""
    offset = when.strftime("%z")
    return f"{when:%Y-%m-%d %H:%M:%S} UTC{offset[:3]}:{offset[3:5]}"


def _line(finding: Finding, volume: Volume, headers: Sequence[Dataset]) -> FindingLine:
    region = strongest(finding)
    plane = volume.planes[region.plane]
    return FindingLine(
        name=written(finding.label or finding.tracking_id),
        images=number_ranges({one.plane + 1 for one in finding.regions}) + f" of {len(volume.planes)}",
        source=source_number(region.plane, volume, headers),
        position=position_text(plane) or "projection",
        heat=f"{finding.score:.2f}",
        area="unknown" if region.area_mm2 is None else f"{region.area_mm2:.0f} mm²",
    )


def source_number(index: int, volume: Volume, headers: Sequence[Dataset]) -> str:
    """Which image of the source plane ``index`` is: its frame number or its Instance Number."""
    frame = volume.planes[index].frame
    number = stated(headers[index], "InstanceNumber")
    return f"frame {frame}" if frame is not None else f"no. {number}" if number else "no number"


def number_ranges(numbers: set[int]) -> str:
    """{1, 2, 3, 7} as "1–3, 7"."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}–{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
