"""What a score promises and what it keeps: Brier, calibration error, reliability, realised false positive rates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import minimize

from dicomnode.train.statistics import Bools, Floats

ALPHAS = (0.01, 0.02, 0.05, 0.1, 0.2)
BINS = 10
_FOLDS = 5


def brier(labels: Bools, chances: Floats) -> float:
    """Mean squared distance of the stated chance from what was (Brier 1950)."""
    return float(np.mean((chances - labels) ** 2))


def reliability(labels: Bools, chances: Floats) -> list[dict[str, float]]:
    """Ten equal bins of the stated chance: n, its mean and the observed share; empty bins are left out."""
    place = np.clip((chances * BINS).astype(int), 0, BINS - 1)
    rows = []
    for number in range(BINS):
        own = place == number
        if own.any():
            stated, observed = float(chances[own].mean()), float(labels[own].mean())
            rows.append({"low": number / BINS, "high": (number + 1) / BINS, "n": int(own.sum()),
                         "stated": round(stated, 4), "observed": round(observed, 4)})  # fmt: skip
    return rows


def calibration_error(bins: Sequence[dict[str, float]]) -> float:
    """Expected calibration error: |stated - observed| of each bin, weighted by its size (Naeini et al., AAAI 2015)."""
    total = sum(row["n"] for row in bins)
    return sum(row["n"] * abs(row["stated"] - row["observed"]) for row in bins) / total


def platt_chances(labels: Bools, scores: Floats, patients: Sequence[str]) -> Floats | None:
    """Chances by a logistic curve of the score (Platt 1999), each fitted on other patients (five parts).

    None when a part leaves one class only.
    """
    names, owner = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    fold = (np.random.default_rng(0).permutation(len(names)) % _FOLDS)[owner]
    chances = np.zeros(len(labels))
    for number in range(_FOLDS):
        held, rest = fold == number, fold != number
        if labels[rest].all() or not labels[rest].any():
            return None
        slope, offset = _logistic(labels[rest], scores[rest])
        chances[held] = _sigmoid(slope * scores[held] + offset)
    return chances


def calibration_figures(labels: Bools, scores: Floats, patients: Sequence[str]) -> dict[str, Any]:
    """Brier and ECE of the calibrated plane score read as a chance, and of its Platt curve; the reliability bins.

    ``scores``: 1 - p, so not made to be a chance of disease: the first figures say how far it is from one.
    """
    bins = reliability(labels, scores)
    figures: dict[str, Any] = {
        "of": "calibrated plane score (1 - conformal p) read as a chance of abnormality, which it is not made to be",
        "brier": round(brier(labels, scores), 4),
        "ece": round(calibration_error(bins), 4),
        "reliability": bins,
        "platt": None,
    }
    chances = platt_chances(labels, scores, patients)
    if chances is not None:
        own = reliability(labels, chances)
        figures["platt"] = {
            "of": "logistic curve of the score, fitted on other patients of this split (five parts)",
            "brier": round(brier(labels, chances), 4),
            "ece": round(calibration_error(own), 4),
            "reliability": own,
        }
    prevalence = float(labels.mean())
    figures["brier_of_prevalence"] = round(prevalence * (1 - prevalence), 4)
    return figures


def realised_rates(scores: Floats) -> list[dict[str, float]]:
    """Share of these scores (of normal pictures or patients) with p = 1 - score at most alpha, for several alpha."""
    if not len(scores):
        return []
    return [{"alpha": alpha, "rate": round(float((scores >= 1.0 - alpha - 1e-9).mean()), 4)} for alpha in ALPHAS]


def _logistic(labels: Bools, scores: Floats) -> tuple[float, float]:
    """Slope and offset of the logistic curve with the greatest likelihood (a little ridge keeps it finite)."""
    centre, spread = float(scores.mean()), max(float(scores.std()), 1e-9)
    values = (scores - centre) / spread

    def loss(both: Floats) -> float:
        margin = np.where(labels, 1.0, -1.0) * (both[0] * values + both[1])
        return float(np.logaddexp(0.0, -margin).mean() + 1e-3 * both[0] ** 2)

    slope, offset = minimize(loss, np.zeros(2), method="BFGS").x
    return float(slope / spread), float(offset - slope * centre / spread)


def _sigmoid(values: Floats) -> Floats:
    return 1.0 / (1.0 + np.exp(-np.clip(values, -60.0, 60.0)))
