"""Scores with a meaning: conformal p-values against held-back healthy patients, and healthy quantiles of pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dicomnode.detectors.contract import Array

_LAST = 1.0 - 1e-6


def step_of(healthy: Sequence[float], raw: float) -> tuple[int, float]:
    """How many of ``healthy`` (raw scores) are at least ``raw``, and where ``raw`` lies on that step, 0 <= u < 1.

    u is the linear place between the two neighbouring healthy scores, 0 below the smallest, and
    1 - exp(-(raw - largest)/spread) above the largest, where spread is the healthy interquartile range.
    """
    scores = np.sort(np.asarray(healthy, dtype=np.float64))
    below = int(np.searchsorted(scores, raw, side="left"))
    count = len(scores) - below
    if below == 0:
        return count, 0.0
    if count == 0:
        quartiles = np.percentile(scores, (25, 75))
        spread = max(float(quartiles[1] - quartiles[0]), 1e-9)
        return 0, min(1.0 - float(np.exp(-(raw - scores[-1]) / spread)), _LAST)
    low, high = float(scores[below - 1]), float(scores[below])
    return count, min((raw - low) / (high - low), _LAST)


def conformal_p(folds: Sequence[Sequence[float]], raws: Sequence[float]) -> float:
    """p = (1 + healthy patients with a raw score at least as high) / (n + 1), 0 < p <= 1; see ``conformal_score``."""
    n = sum(len(fold) for fold in folds)
    counts = [step_of(fold, raw)[0] for fold, raw in zip(folds, raws, strict=True)]
    return (1.0 + sum(counts)) / (n + 1)


def conformal_score(folds: Sequence[Sequence[float]], raws: Sequence[float]) -> float:
    """1 - p + ū/(n + 1), 0..1, where p = (1 + healthy patients with a raw score at least as high) / (n + 1).

    Cross-conformal (Vovk, Ann Math Artif Intell 2015): ``folds[k]`` holds the raw scores that the networks of fold k
    gave to its n_k held-back healthy patients, ``raws[k]`` what they gave to the new one; it is compared with each
    fold's patients by that fold's score. ū, the mean place on the step (``step_of``), keeps the order of raw scores
    inside a step and beyond the last patient; it never lifts a score to the next step, so decisions at
    ``threshold_for`` are those of p itself. With one fold a healthy patient of the same population reaches the
    threshold with probability at most α; with several the proven bound is about 2α, the rate in practice near α.
    """
    n = sum(len(fold) for fold in folds)
    steps = [step_of(fold, raw) for fold, raw in zip(folds, raws, strict=True)]
    p = conformal_p(folds, raws)
    return float(np.clip(1.0 - p + float(np.mean([u for _, u in steps])) / (n + 1), 0.0, 1.0))


def false_positive_rate(n: int, alpha: float) -> float:
    """The greatest rate at most ``alpha`` that ``n`` healthy patients can tell: floor(α (n + 1)) / (n + 1)."""
    return int(alpha * (n + 1) + 1e-9) / (n + 1)


def threshold_for(n: int, alpha: float) -> float:
    """The score from which p <= ``alpha``; 1 or more means that no score can reach it (n < 1/α - 1)."""
    rate = false_positive_rate(n, alpha)
    return 1.0 - rate - (1e-9 if rate > 0 else 0.0)


def quantile_heat(values: Array, quantiles: Sequence[tuple[float, float]]) -> Array:
    """Heat 0..1, float32, from residuals: ``quantiles`` are (heat, residual) knots with rising residuals.

    Linear between the knots, starting at (0, 0); above the last knot heat approaches 1 as
    1 - (1 - last heat) * exp(-(value - last)/last).
    """
    heats = np.array([0.0, *(heat for heat, _ in quantiles)])
    knots = np.array([0.0, *(value for _, value in quantiles)])
    heat = np.interp(values, knots, heats)
    last = max(float(knots[-1]), 1e-9)
    beyond = 1.0 - (1.0 - heats[-1]) * np.exp(-np.clip(values - last, 0.0, None) / last)
    result: Array = np.where(values > last, beyond, heat).astype(np.float32)
    return result
