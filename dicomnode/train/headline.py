"""Which pictures a split's AUROC compares, within which strata, and that AUROC with its rivals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dicomnode.train.judging import Judged
from dicomnode.train.statistics import (
    REPEATS,
    Bools,
    Floats,
    Indices,
    Interval,
    Resampling,
    deciles,
    delong_interval,
    percentile_interval,
    stratified_auroc,
)
from dicomnode.train.trivial import feature_table


@dataclass(frozen=True, slots=True)
class Sample:
    """The pictures of the headline figure, one entry each.

    ``raws``: what orders them, finite (pictures that were left out share the lowest). ``strata``: deciles of
    position, all 0 without positions. ``protocol``: the comparison in words.
    """

    judged: Sequence[Judged]
    labels: Bools
    raws: Floats
    scores: Floats
    strata: Indices
    patients: Sequence[str]
    protocol: str

    @property
    def both_classes(self) -> bool:
        return bool(self.labels.any() and not self.labels.all())


def sample_of(judged: Sequence[Judged]) -> Sample:
    """Label 1 against label 0; where patients are labelled, against label 0 of clean patients when there are such.

    Slices (every picture has a position) are compared within deciles of their position. Label 2 and unlabelled
    pictures stand apart.
    """
    clean = any(item.picture.label == 0 and item.picture.patient_label == 0 for item in judged)
    used = [item for item in judged if item.picture.label == 1 or _is_normal(item, clean=clean)]
    labels = np.array([item.picture.label == 1 for item in used], dtype=bool)
    placed = bool(used) and all(item.picture.position is not None for item in used)
    positions = np.array([item.picture.position for item in used], dtype=np.float64) if placed else None
    strata = np.zeros(len(used), dtype=np.intp) if positions is None else deciles(positions)
    words = "label 1 against label 0" + (" of patients without the abnormality anywhere" if clean else "")
    words += ", within deciles of position over the slices used" if placed else ", one figure per picture"
    return Sample(
        used,
        labels,
        _finite(np.array([item.raw for item in used])),
        np.array([item.score for item in used]),
        strata,
        [item.picture.patient for item in used],
        f"AUROC of {words}; pictures that the model leaves out count with the lowest score; 95 % intervals by "
        f"{REPEATS} draws of whole patients with replacement",
    )


def _is_normal(item: Judged, *, clean: bool) -> bool:
    return item.picture.label == 0 and (not clean or item.picture.patient_label == 0)


def _finite(raws: Floats) -> Floats:
    known = raws[np.isfinite(raws)]
    lowest = float(known.min()) - 1.0 if known.size else 0.0
    return np.where(np.isfinite(raws), raws, lowest)


def auroc_figures(sample: Sample, resampling: Resampling) -> dict[str, Any]:
    """auroc, its intervals, the best trivial feature and the paired difference. Needs both classes in a stratum."""
    value = stratified_auroc(sample.labels, sample.raws, sample.strata)
    drawn = resampling.auroc(sample.labels, sample.raws, sample.strata)
    figures: dict[str, Any] = {
        "auroc": number(value),
        "auroc_ci": pair(percentile_interval(drawn)),
        "auroc_delong_ci": pair(delong_interval(sample.labels, sample.raws, sample.strata)),
        "best_trivial": None,
        "difference_to_trivial": None,
        "trivial": {},
    }
    table = feature_table([item.features for item in sample.judged])
    rivals = {name: _oriented(sample, column) for name, column in table.items()}
    if rivals and np.isfinite(value):
        best = max(rivals, key=lambda name: rivals[name][0])
        theirs = resampling.auroc(sample.labels, rivals[best][1], sample.strata)
        figures["trivial"] = {name: number(own[0]) for name, own in rivals.items()}
        figures["best_trivial"] = {
            "name": best,
            "auroc": number(rivals[best][0]),
            "ci": pair(percentile_interval(theirs)),
        }
        difference = percentile_interval(drawn - theirs)
        figures["difference_to_trivial"] = {"value": number(value - rivals[best][0]), "ci": pair(difference)}
    return figures


def _oriented(sample: Sample, column: Floats) -> tuple[float, Floats]:
    """AUROC of a feature in its better direction, and the feature turned that way."""
    value = stratified_auroc(sample.labels, column, sample.strata)
    return (value, column) if not value < 0.5 else (1.0 - value, -column)


def number(value: float) -> float | None:
    """``value`` to four digits, None when it is not defined."""
    return round(float(value), 4) if np.isfinite(value) else None


def pair(interval: Interval) -> list[float] | None:
    """``interval`` as [low, high], None when it is not defined."""
    low, high = number(interval[0]), number(interval[1])
    return None if low is None or high is None else [low, high]


def counts(labels: Bools) -> Mapping[str, int]:
    """How many of each class."""
    return {"abnormal": int(labels.sum()), "normal": int((~labels).sum())}
