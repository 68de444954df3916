"""What the viewer has to show of one Series: read from the objects, not from the code that made them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
PARAMETRIC_MAP = "1.2.840.10008.5.1.4.1.1.30"
ENCAPSULATED_PDF = "1.2.840.10008.5.1.4.1.1.104.1"
PRESENTATION_STATE = "1.2.840.10008.5.1.4.1.1.11.1"
STRUCTURED_REPORT = "1.2.840.10008.5.1.4.1.1.88."
ORDER = (
    "source",
    "capture",
    "pdf",
    "root report",
    "presentation state",
    "regions report",
    "parametric map",
    "segmentation",
    "other",
)
"""Source first: it is what colours are compared with. A map before segments: this viewer draws none after them."""

_MEASUREMENT_GROUP, _COMMENT = ("125007", "DCM"), ("121106", "DCM")


@dataclass(frozen=True, slots=True)
class Expected:
    """One Series. ``texts``: what a person has to find on the screen: labels of measurements or of segments.

    ``of``: the modality of the Study's source.
    """

    kind: str
    study: str
    modality: str
    number: int
    description: str
    instances: int
    texts: tuple[str, ...] = ()
    of: str = ""

    @property
    def name(self) -> str:
        """For a line of output and a file name: synthetic data only."""
        return f"{self.of} study, {self.kind} {self.modality} {self.number}"


def expected_of(paths: Iterable[Path]) -> list[Expected]:
    """One entry per Series in ``paths``, Study by Study, each in ``ORDER``."""
    series: dict[str, list[Dataset]] = {}
    for path in paths:
        dataset = dcmread(path, stop_before_pixels=True)
        series.setdefault(str(dataset.SeriesInstanceUID), []).append(dataset)
    found = [_expected(datasets) for datasets in series.values()]
    sources = {one.study: one.modality for one in found if one.kind == "source"}
    found = [replace(one, of=sources.get(one.study, "")) for one in found]
    return sorted(found, key=lambda one: (one.study, ORDER.index(one.kind), one.number))


def _expected(datasets: list[Dataset]) -> Expected:
    first = datasets[0]
    kind, texts = _kind(first)
    return Expected(
        kind,
        str(first.StudyInstanceUID),
        str(first.Modality),
        int(first.SeriesNumber),
        str(first.get("SeriesDescription", "")),
        len(datasets),
        texts,
    )


def _kind(dataset: Dataset) -> tuple[str, tuple[str, ...]]:
    sop_class = str(dataset.SOPClassUID)
    if sop_class.startswith(STRUCTURED_REPORT) and "ContentSequence" in dataset:
        labels = tuple(_labels(dataset))
        return ("regions report", labels) if labels else ("root report", ())
    if sop_class == SEGMENTATION:
        return "segmentation", tuple(str(segment.SegmentLabel) for segment in dataset.SegmentSequence)
    if sop_class == SECONDARY_CAPTURE or sop_class.startswith(SECONDARY_CAPTURE + "."):
        return "capture", ()
    known = {PARAMETRIC_MAP: "parametric map", ENCAPSULATED_PDF: "pdf", PRESENTATION_STATE: "presentation state"}
    return known.get(sop_class, "source" if "Rows" in dataset else "other"), ()


def _labels(item: Dataset) -> Iterator[str]:
    """The comment of every measurement group with a region: what OHIF makes the label of the measurement."""
    for child in item.get("ContentSequence", ()):
        if _code(child) != _MEASUREMENT_GROUP:
            yield from _labels(child)
        elif any(one.ValueType == "SCOORD" for one in child.ContentSequence):
            comments = [str(one.TextValue) for one in child.ContentSequence if _code(one) == _COMMENT]
            yield comments[0] if comments else ""


def _code(item: Dataset) -> tuple[str, str]:
    name = item.get("ConceptNameCodeSequence")
    return (str(name[0].CodeValue), str(name[0].CodingSchemeDesignator)) if name else ("", "")
