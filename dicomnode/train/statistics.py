"""Figures of merit with intervals: AUROC, also within strata, average precision, patient-clustered bootstrap."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

Floats = npt.NDArray[np.floating]
Bools = npt.NDArray[np.bool_]
Figure = Callable[[npt.NDArray[np.intp]], float]
"""A figure of merit of the samples with these indices; nan where it is not defined."""


def auroc(labels: Bools, scores: Floats) -> float:
    """Area under the ROC curve by mid-ranks (ties count half); nan without both classes."""
    positives = int(labels.sum())
    negatives = len(labels) - positives
    if positives == 0 or negatives == 0:
        return float("nan")
    ranks = rankdata(scores)
    return float((ranks[labels].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def stratified_auroc(labels: Bools, scores: Floats, strata: npt.NDArray[np.intp]) -> float:
    """AUROC over pairs of one stratum only: Σ AUROC_g n_g1 n_g0 / Σ n_g1 n_g0; nan without any pair."""
    total, weight = 0.0, 0
    for stratum in np.unique(strata):
        inside = strata == stratum
        pairs = int(labels[inside].sum()) * int((~labels[inside]).sum())
        if pairs:
            total += pairs * auroc(labels[inside], scores[inside])
            weight += pairs
    return total / weight if weight else float("nan")


def deciles(positions: Floats) -> npt.NDArray[np.intp]:
    """The tenth of the distribution that each position falls in, 0..9."""
    edges = np.quantile(positions, np.linspace(0, 1, 11))
    return np.clip(np.searchsorted(edges, positions, side="right") - 1, 0, 9)


def average_precision(labels: Bools, scores: Floats) -> float:
    """Area under the precision-recall curve as Σ (R_i - R_{i-1}) P_i; nan without positives."""
    if not labels.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    hits = labels[order].astype(np.float64)
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float((precision * hits).sum() / hits.sum())


def clustered_interval(
    figure: Figure, patients: Sequence[str], *, repeats: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of ``figure`` when whole patients are drawn with replacement."""
    names = np.asarray(patients)
    members = [np.flatnonzero(names == name) for name in np.unique(names)]
    draw = np.random.default_rng(seed)
    values = []
    for _ in range(repeats):
        chosen = draw.integers(0, len(members), len(members))
        value = figure(np.concatenate([members[i] for i in chosen]))
        if np.isfinite(value):
            values.append(value)
    if not values:
        return float("nan"), float("nan")
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)


def with_interval(figure: Figure, patients: Sequence[str], *, repeats: int = 1000) -> dict[str, float]:
    """The figure on all samples with its patient-clustered 95 % interval, rounded to three digits."""
    low, high = clustered_interval(figure, patients, repeats=repeats)
    value = figure(np.arange(len(patients)))
    return {"value": round(value, 3), "low": round(low, 3), "high": round(high, 3)}
