"""Scores with a meaning: conformal p-values against held-back healthy patients, and healthy quantiles of pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dicomnode.detectors.contract import Array


def exceeding(healthy: Sequence[float], raw: float) -> float:
    """How many of ``healthy`` (raw scores) are at least ``raw``, made continuous and never less than the true count.

    Equal to the count at each healthy score, linear between two of them, and exp(-(raw - largest)/spread) above the
    largest, where spread is the healthy interquartile range. So raw scores keep their order beyond the last patient.
    """
    scores = np.sort(np.asarray(healthy, dtype=np.float64))
    n = len(scores)
    if n == 0:
        return 0.0
    if raw > scores[-1]:
        quartiles = np.percentile(scores, (25, 75))
        spread = max(float(quartiles[1] - quartiles[0]), 1e-9)
        return float(np.exp(-(raw - scores[-1]) / spread))
    values, first = np.unique(scores, return_index=True)
    return float(np.interp(raw, values, n - first))


def conformal_score(folds: Sequence[Sequence[float]], raws: Sequence[float]) -> float:
    """1 - p, where p = (1 + Σ_k exceeding(healthy of fold k, raw_k)) / (n + 1), in 0..1.

    Cross-conformal (Vovk, Ann Math Artif Intell 2015): ``folds[k]`` holds the raw scores that the network of fold k
    gave to its n_k held-back healthy patients, ``raws[k]`` what it gave to the new one. With one fold this is the
    split-conformal p-value, and a healthy patient of the same population reaches score >= 1 - α with probability
    at most α; with several folds the proven bound is about 2α, the rate in practice near α.
    """
    n = sum(len(fold) for fold in folds)
    count = sum(exceeding(fold, raw) for fold, raw in zip(folds, raws, strict=True))
    return float(np.clip(1.0 - (1.0 + count) / (n + 1), 0.0, 1.0))


def reachable(n: int, threshold: float) -> bool:
    """Whether a patient beyond all ``n`` healthy ones can reach ``threshold``."""
    return 1.0 - 1.0 / (n + 1) >= threshold


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
