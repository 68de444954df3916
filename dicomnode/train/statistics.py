"""Figures of merit with intervals: AUROC (also within strata), average precision, DeLong, bootstrap of patients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, rankdata

Floats = npt.NDArray[np.floating]
Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]
Interval = tuple[float, float]
REPEATS = 2000
_CELLS = 4_000_000
_UNDEFINED: Interval = (float("nan"), float("nan"))


def auroc(labels: Bools, scores: Floats) -> float:
    """Area under the ROC curve by mid-ranks (ties count half); nan without both classes."""
    positives = int(labels.sum())
    negatives = len(labels) - positives
    if positives == 0 or negatives == 0:
        return float("nan")
    ranks = rankdata(scores)
    return float((ranks[labels].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def stratified_auroc(labels: Bools, scores: Floats, strata: Indices) -> float:
    """AUROC over pairs of one stratum only: Σ AUROC_g n_g1 n_g0 / Σ n_g1 n_g0; nan without any pair."""
    total, weight = 0.0, 0
    for stratum in np.unique(strata):
        inside = strata == stratum
        pairs = int(labels[inside].sum()) * int((~labels[inside]).sum())
        if pairs:
            total += pairs * auroc(labels[inside], scores[inside])
            weight += pairs
    return total / weight if weight else float("nan")


def deciles(positions: Floats) -> Indices:
    """The tenth of the distribution that each position falls in, 0..9."""
    edges = np.quantile(positions, np.linspace(0, 1, 11))
    return np.clip(np.searchsorted(edges, positions, side="right") - 1, 0, 9)


def average_precision(labels: Bools, scores: Floats) -> float:
    """Area under the precision-recall curve as Σ (R_i - R_{i-1}) P_i over distinct scores; nan without positives."""
    if not labels.any():
        return float("nan")
    return float(_weighted_precision(labels, scores, np.ones((1, len(labels))))[0])


def roc_curve(labels: Bools, scores: Floats) -> tuple[Floats, Floats, Floats]:
    """False positive rate, true positive rate and score of each cut "score at least this", falling from no positive.

    Shapes (k + 1,) for k distinct scores; needs both classes.
    """
    order = np.argsort(-scores, kind="stable")
    ends = _group_ends(scores[order])
    hits, cuts = np.cumsum(labels[order])[ends], scores[order][ends]
    misses = ends + 1 - hits
    rates = np.r_[0.0, misses / max(1, misses[-1])], np.r_[0.0, hits / max(1, hits[-1])]
    return *rates, np.r_[np.inf, cuts]


def sensitivity_at(labels: Bools, scores: Floats, specificity: float) -> float:
    """The greatest sensitivity of a cut whose specificity is at least ``specificity``; nan without both classes."""
    if labels.all() or not labels.any():
        return float("nan")
    false, true, _ = roc_curve(labels, scores)
    return float(true[false <= 1.0 - specificity + 1e-12].max())


def delong_interval(labels: Bools, scores: Floats, strata: Indices | None = None) -> Interval:
    """95 % interval of the AUROC by DeLong's variance with mid-ranks (DeLong 1988; Sun & Xu 2014), cut to 0..1.

    With ``strata``: of the stratified AUROC, strata taken as independent. Samples are taken as independent too:
    slices of one patient are not, so the interval is too narrow for them. nan without any pair.
    """
    groups = np.zeros(len(labels), dtype=np.intp) if strata is None else strata
    total, spread, weight = 0.0, 0.0, 0
    for group in np.unique(groups):
        own, values = labels[groups == group], scores[groups == group]
        pairs = int(own.sum()) * int((~own).sum())
        if pairs:
            total += pairs * auroc(own, values)
            spread += pairs**2 * _delong_variance(own, values)
            weight += pairs
    if not weight:
        return _UNDEFINED
    half = float(norm.ppf(0.975)) * float(np.sqrt(spread)) / weight
    return max(0.0, total / weight - half), min(1.0, total / weight + half)


def _delong_variance(labels: Bools, scores: Floats) -> float:
    together, n1, n0 = rankdata(scores), int(labels.sum()), int((~labels).sum())
    above = (together[labels] - rankdata(scores[labels])) / n0
    below = 1.0 - (together[~labels] - rankdata(scores[~labels])) / n1
    return sum(float(part.var(ddof=1)) / len(part) for part in (above, below) if len(part) > 1)


@dataclass(frozen=True, slots=True)
class Resampling:
    """Patients drawn with replacement. ``counts``: shape (repeats, patients), how often each was drawn;
    ``owner``: shape (n,), the patient of each sample. The same draws serve all figures, so differences are paired."""

    counts: npt.NDArray[np.int64]
    owner: Indices

    @staticmethod
    def of(patients: Sequence[str], repeats: int = REPEATS, seed: int = 0) -> Resampling:
        """``repeats`` draws of as many patients as there are."""
        names, owner = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
        draw = np.random.default_rng(seed)
        return Resampling(draw.multinomial(len(names), np.full(len(names), 1 / len(names)), size=repeats), owner)

    def chosen(self, samples: Indices) -> Resampling:
        """The same draws for some of the samples."""
        return Resampling(self.counts, self.owner[samples])

    def auroc(self, labels: Bools, scores: Floats, strata: Indices) -> Floats:
        """The stratified AUROC of every draw, shape (repeats,); nan where a draw has no pair."""
        return self._over_draws(lambda weights: _weighted_auroc(labels, scores, strata, weights))

    def average_precision(self, labels: Bools, scores: Floats) -> Floats:
        """The average precision of every draw, shape (repeats,); nan where a draw has no positive."""
        return self._over_draws(lambda weights: _weighted_precision(labels, scores, weights))

    def mean(self, values: Floats) -> Floats:
        """The mean of ``values``, shape (n,), of every draw; nan where nothing was drawn."""
        return self._over_draws(lambda weights: _ratio(weights @ values, weights.sum(axis=1)))

    def _over_draws(self, figure: Callable[[Floats], Floats]) -> Floats:
        size = max(1, _CELLS // max(1, len(self.owner)))
        starts = range(0, len(self.counts), size)
        return np.concatenate([figure(self.counts[i : i + size][:, self.owner].astype(np.float64)) for i in starts])


def percentile_interval(values: Floats) -> Interval:
    """The middle 95 % of the draws in which the figure is defined; nan without any."""
    known = values[np.isfinite(values)]
    if not known.size:
        return _UNDEFINED
    low, high = np.percentile(known, (2.5, 97.5))
    return float(low), float(high)


def _weighted_auroc(labels: Bools, scores: Floats, strata: Indices, weights: Floats) -> Floats:
    total, pairs = np.zeros(len(weights)), np.zeros(len(weights))
    for stratum in np.unique(strata):
        inside = np.flatnonzero(strata == stratum)
        order = inside[np.argsort(scores[inside], kind="stable")]
        truth, own = labels[order], weights[:, order]
        ends = _group_ends(scores[order])
        lost = _sums(np.where(truth, 0.0, own), ends)
        won = _sums(np.where(truth, own, 0.0), ends)
        total += (won * (np.cumsum(lost, axis=1) - 0.5 * lost)).sum(axis=1)
        pairs += won.sum(axis=1) * lost.sum(axis=1)
    return _ratio(total, pairs)


def _weighted_precision(labels: Bools, scores: Floats, weights: Floats) -> Floats:
    order = np.argsort(-scores, kind="stable")
    ends, own = _group_ends(scores[order]), weights[:, order]
    hits = _sums(np.where(labels[order], own, 0.0), ends)
    called = np.cumsum(_sums(own, ends), axis=1)
    precision = np.cumsum(hits, axis=1) / np.where(called > 0, called, 1.0)
    return _ratio((precision * hits).sum(axis=1), hits.sum(axis=1))


def _group_ends(ordered: Floats) -> Indices:
    """The last index of each run of equal values."""
    return np.flatnonzero(np.r_[ordered[1:] != ordered[:-1], True])


def _sums(values: Floats, ends: Indices) -> Floats:
    """Sums over runs that end at ``ends``, along the last axis."""
    return np.add.reduceat(values, np.r_[0, ends[:-1] + 1], axis=1)


def _ratio(above: Floats, below: Floats) -> Floats:
    return np.where(below > 0, above / np.where(below > 0, below, 1.0), np.nan)
