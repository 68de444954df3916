"""Does a model tell another scanner from a lesion? Simulated shifts with and without lesions (Heer et al., MIDL 2021).

For each shift: the 2 x 2 table of the two scores, with and without a lesion; the AUROC of the lesion score *within*
the shifted data, where all images have the same shift; the AUROC of the acquisition score for shifted against
unshifted images without lesion.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dicomnode.detectors.contract import DetectionResult, Outcome, Plane, Volume
from dicomnode.detectors.preprocess import Prepared
from dicomnode.detectors.residual import ResidualDetector, load_residual_detector
from dicomnode.dicom.references import SeriesReference
from dicomnode.dicom.summary import SeriesSummary
from dicomnode.errors import ConfigError
from dicomnode.train.datasets import Picture, read_pictures, read_plane
from dicomnode.train.recipes import Recipe
from dicomnode.train.shifts import SHIFTS, UNSHIFTED, planted, shifted
from dicomnode.train.statistics import auroc

Lesions = Literal["planted", "labels"]
CELLS = ("no findings", "findings", "withheld", "review")
"""Usual and below the threshold, usual and above, unusual and below, unusual and above."""
_SUMMARY = SeriesSummary(SeriesReference("2.25.1", "2.25.1"), 1)
_LESION_PLANES = 3


@dataclass(frozen=True, slots=True)
class Case:
    """The planes of one series, and whether there is a lesion on them."""

    planes: tuple[Plane, ...]
    slice_mm: float | None
    lesion: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model says of one shifted case. ``acquisition``: None without a gate; ``cell``: one of ``CELLS``."""

    lesion: bool
    score: float
    acquisition: float | None
    cell: str


def shift_study(
    folder: Path,
    recipe: Recipe,
    data: Path,
    *,
    split: str = "val",
    lesions: Lesions = "planted",
    shifts: Sequence[str] = tuple(SHIFTS),
    limit: int | None = None,
    accelerator: str = "cpu",
) -> dict[str, Any]:
    """The study of one model folder on the pictures of one split, as JSON values.

    ``lesions``: "planted": every series without a labelled lesion, once as it is and once with a bright disc on its
    middle planes; "labels": the series as they are labelled. ``limit``: so many series at most.
    Raises ConfigError for an unusable model or data folder, an unknown shift, or when no series can be analysed.
    """
    unknown = sorted(set(shifts) - set(SHIFTS))
    if unknown:
        raise ConfigError(f"there is no shift {', '.join(unknown)}; there are {', '.join(SHIFTS)}")
    detector = load_residual_detector(recipe.detector, folder, accelerator)
    cases = _cases(detector, read_pictures(data, {split}), recipe.unit, lesions, limit)
    names = [UNSHIFTED, *(name for name in shifts if name != UNSHIFTED)]
    answers = {name: _answers(detector, cases, name) for name in names}
    if not answers[UNSHIFTED]:
        raise ConfigError("no series of this split could be analysed")
    gate = detector.calibration.acquisition
    return {
        "model": detector.model.name,
        "weights_sha256": detector.model.sha256,
        "split": split,
        "lesions": lesions,
        "series": len(cases),
        "acquisition_rate": round(gate.rate, 4) if gate else None,
        "shifts": {name: _figures(given, answers[UNSHIFTED], len(cases)) for name, given in answers.items()},
    }


def _cases(
    detector: ResidualDetector, pictures: Sequence[Picture], unit: float, lesions: Lesions, limit: int | None
) -> list[Case]:
    series = [_series(group, unit) for group in _groups(pictures)[:limit]]
    if lesions == "labels":
        return series
    healthy = [case for case in series if not case.lesion]
    return [*healthy, *(_with_lesion(detector, case, seed) for seed, case in enumerate(healthy))]


def _groups(pictures: Sequence[Picture]) -> list[list[Picture]]:
    """Pictures of one series: those of a patient in order of position; pictures without position stand alone."""
    groups: dict[object, list[Picture]] = {}
    for index, picture in enumerate(pictures):
        groups.setdefault(index if picture.position is None else picture.patient, []).append(picture)
    return [sorted(group, key=lambda picture: picture.position or 0.0) for group in groups.values()]


def _series(group: Sequence[Picture], unit: float) -> Case:
    stacked = group[0].position is not None
    planes = tuple(
        replace(read_plane(picture, unit), spacing=(picture.pixel_mm,) * 2 if picture.pixel_mm else None)
        for picture in group
    )
    lesion = any(picture.label == 1 or picture.patient_label == 1 for picture in group)
    return Case(planes, (group[0].slice_mm or 1.0) if stacked else None, lesion)


def _with_lesion(detector: ResidualDetector, case: Case, seed: int) -> Case:
    """``case`` with a lesion on up to three usable planes in its middle."""
    prepared = [detector.prepare(plane) for plane in case.planes]
    usable = [i for i, item in enumerate(prepared) if isinstance(item, Prepared)]
    start = max(0, (len(usable) - _LESION_PLANES) // 2)
    chosen = set(usable[start : start + _LESION_PLANES])
    planes = tuple(
        planted(plane, item, seed) if i in chosen and isinstance(item, Prepared) else plane
        for i, (plane, item) in enumerate(zip(case.planes, prepared, strict=True))
    )
    return Case(planes, case.slice_mm, lesion=True)


def _answers(detector: ResidualDetector, cases: Sequence[Case], name: str) -> list[Answer]:
    """What the detector says of every case under one shift; cases that it does not analyse are left out."""
    answers = []
    for index, case in enumerate(cases):
        planes = tuple(shifted(plane, name, 1000 * index + i) for i, plane in enumerate(case.planes))
        result = detector.detect(Volume(_SUMMARY, planes, case.slice_mm))
        if result.score is not None:
            acquisition = result.acquisition.score if result.acquisition else None
            answers.append(Answer(case.lesion, result.score, acquisition, _cell(result)))
    return answers


def _cell(result: DetectionResult) -> str:
    unusual = result.acquisition is not None and result.acquisition.unusual
    return CELLS[2 * unusual + (result.outcome is Outcome.FINDINGS)]


def _figures(answers: Sequence[Answer], unshifted: Sequence[Answer], asked: int) -> dict[str, Any]:
    truth = np.array([answer.lesion for answer in answers], dtype=bool)
    scores = np.array([answer.score for answer in answers], dtype=np.float64)
    tables = {}
    for label, own in (("with lesion", True), ("without lesion", False)):
        counts = Counter(answer.cell for answer in answers if answer.lesion is own)
        tables[label] = {cell: counts[cell] for cell in CELLS}
    return {
        "table": tables,
        "not_analysed": asked - len(answers),
        "lesion_auroc": _number(auroc(truth, scores)),
        "acquisition_auroc": _number(_acquisition_auroc(answers, unshifted)),
    }


def _acquisition_auroc(answers: Sequence[Answer], unshifted: Sequence[Answer]) -> float:
    moved, still = (
        [answer.acquisition for answer in group if not answer.lesion and answer.acquisition is not None]
        for group in (answers, unshifted)
    )
    truth = np.array([True] * len(moved) + [False] * len(still), dtype=bool)
    return auroc(truth, np.array([*moved, *still], dtype=np.float64))


def _number(value: float) -> float | None:
    """Three digits; None where there was nothing to compare (JSON has no nan)."""
    return round(value, 3) if np.isfinite(value) else None
