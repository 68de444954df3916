"""Has a distribution moved? Kolmogorov-Smirnov, population stability index, CUSUM; with limits for many looks.

KS: scipy. PSI: its null distribution is about (1/n + 1/m) chi² with bins - 1 degrees of freedom (Yurdakul & Naranjo,
J Risk Model Validation 2020), so that the usual 0.25 alone would alarm on small samples; half a Series is added to
each bin, because an empty one would decide alone. CUSUM: Page, Biometrika 1954,
with the run length of Siegmund, Sequential Analysis, 1985.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

PSI_LIMIT = 0.25
PSI_BINS = 10
SLACK = 0.5
"""CUSUM: half of the shift, in standard deviations, that it is made to find."""
_TINY = 1e-4
_HALF = 0.5

Shares = Sequence[float] | npt.NDArray[np.float64]
_SIEGMUND = 1.166


@dataclass(frozen=True, slots=True)
class Shift:
    """How ``recent`` differs from ``reference``. ``p``: of KS; ``psi`` with its ``psi_limit``; ``alarm``: whether
    either says so at the level it was asked for."""

    p: float
    psi: float
    psi_limit: float
    alarm: bool


def shift(reference: Sequence[float], recent: Sequence[float], alpha: float) -> Shift:
    """Compare two samples at level ``alpha``, half of it for each test."""
    from scipy import stats

    old, new = np.asarray(reference, np.float64), np.asarray(recent, np.float64)
    p = float(stats.ks_2samp(old, new).pvalue)
    edges = np.unique(np.quantile(old, np.linspace(0, 1, PSI_BINS + 1)[1:-1]))
    places = (np.searchsorted(edges, sample, side="right") for sample in (old, new))
    before, after = (np.bincount(place, minlength=len(edges) + 1) + _HALF for place in places)
    index = stability_index(before / before.sum(), after / after.sum())
    null = float(stats.chi2.ppf(1 - alpha / 2, len(edges))) * (1 / old.size + 1 / new.size)
    limit = max(PSI_LIMIT, null)
    return Shift(p, index, limit, p < alpha / 2 or index > limit)


def stability_index(old: Shares, new: Shares) -> float:
    """PSI = Σ (new - old) ln(new / old) over shares of the same bins; an empty bin counts as 0.0001."""
    before, after = (np.clip(np.asarray(shares, np.float64), _TINY, None) for shares in (old, new))
    return float(((after - before) * np.log(after / before)).sum())


def cusum(reference: Sequence[float], recent: Sequence[float]) -> tuple[float, float]:
    """The greatest upward and downward CUSUM of ``recent``, in standard deviations of ``reference``."""
    mean, spread = float(np.mean(reference)), max(float(np.std(reference, ddof=1)), 1e-9)
    up = down = highest = lowest = 0.0
    for value in recent:
        z = (value - mean) / spread
        up, down = max(0.0, up + z - SLACK), max(0.0, down - z - SLACK)
        highest, lowest = max(highest, up), max(lowest, down)
    return highest, lowest


def cusum_limit(window: int, alpha: float) -> float:
    """The height at which a CUSUM of ``window`` normal values alarms with a chance of about ``alpha`` (two-sided).

    Siegmund: run length = (exp(2kb) - 2kb - 1) / 2k², b = h + 1.166; solved for a run length of 2 window / alpha.
    """
    wanted = 2.0 * window / alpha
    low, high = 0.0, 100.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        exponent = 2 * SLACK * (middle + _SIEGMUND)
        low, high = (middle, high) if (np.exp(exponent) - exponent - 1) / (2 * SLACK**2) < wanted else (low, middle)
    return 0.5 * (low + high)
