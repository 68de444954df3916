"""Figures of localisation from maps and outlines: pixel AP, Dice at a threshold and at its best, AUPRO.

Maps are counted in steps (histograms), so that the pixels of a whole set never lie in memory at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from dicomnode.detectors.contract import Array, Mask

HEAT_STEPS = 1 << 14
ORACLE_THRESHOLDS = 200
FPR_LIMIT = 0.3
Counts = npt.NDArray[np.float64]
Steps = npt.NDArray[np.int64]


def heat_steps(heat: Array) -> Steps:
    """Heat 0..1 as steps 0..16383."""
    return np.clip(heat * HEAT_STEPS, 0, HEAT_STEPS - 1).astype(np.int64)


def rank_steps(maps: Array) -> Steps:
    """Maps of any unit, shape (n, size, size), as the place of each value among all of them, 0..16383."""
    edges = np.quantile(maps, np.linspace(0, 1, HEAT_STEPS + 1)[1:-1])
    return np.searchsorted(edges, maps, side="right").astype(np.int64)


@dataclass(slots=True)
class PixelTally:
    """Counts pixels plane by plane. Dice: mean over the planes with an abnormality, and overall (all pixels)."""

    inside: Counts = field(default_factory=lambda: np.zeros(HEAT_STEPS))
    outside: Counts = field(default_factory=lambda: np.zeros(HEAT_STEPS))
    overlap: Counts = field(default_factory=lambda: np.zeros(HEAT_STEPS))
    planes: int = 0
    dice: Counts = field(default_factory=lambda: np.zeros(HEAT_STEPS))
    regions: int = 0
    reached: Counts = field(default_factory=lambda: np.zeros(HEAT_STEPS))

    def add(self, steps: Steps, truth: Mask) -> None:
        """One plane. ``steps``: its map, ``truth``: its outline, both of one shape; normal planes count too."""
        hits, misses = _histogram(steps[truth]), _histogram(steps[~truth])
        self.inside += hits
        self.outside += misses
        if not truth.any():
            return
        found, true = _from_above(hits), float(truth.sum())
        self.dice += 2 * found / (found + _from_above(misses) + true)
        self.planes += 1
        labels, n = ndimage.label(truth, structure=np.ones((3, 3)))
        for number in range(1, n + 1):
            own = _histogram(steps[labels == number])
            self.reached += _from_above(own) / own.sum()
        self.regions += n

    def mean_dice(self) -> Counts:
        """Mean Dice over the abnormal planes by threshold step, shape (steps,)."""
        return self.dice / max(1, self.planes)

    def figures(self) -> dict[str, float]:
        """pixel_ap, aupro, dice_oracle, dice_oracle_overall and the share of the oracle's threshold step.

        ``pixel_ap``: Σ (R_i - R_{i-1}) P_i over all pixels. ``aupro``: mean share of each abnormal region that is
        reached, integrated over the false positive rate of pixels to 0.3 and divided by 0.3 (Bergmann et al., IJCV
        2021). The oracle is the best of 200 thresholds by these very outlines (BestDice, MedIAnomaly): an upper bound.
        """
        found, false = _from_above(self.inside), _from_above(self.outside)
        called = found + false
        precision = found / np.where(called > 0, called, 1.0)
        dice = self.mean_dice()
        grid = np.linspace(0, HEAT_STEPS - 1, ORACLE_THRESHOLDS).round().astype(int)
        best = int(grid[np.argmax(dice[grid])])
        overall = 2 * found / (called + found[0])
        return {
            "pixel_ap": float((precision * self.inside).sum() / self.inside.sum()),
            "aupro": self._aupro(false),
            "dice_oracle": float(dice[best]),
            "dice_oracle_threshold": best / HEAT_STEPS,
            "dice_oracle_overall": float(overall[grid].max()),
        }

    def dice_at(self, step: int) -> dict[str, float]:
        """Mean Dice over the abnormal planes, and Dice of all pixels together, of "at least this step"."""
        found, false = _from_above(self.inside)[step], _from_above(self.outside)[step]
        overall = 2 * found / (found + false + self.inside.sum())
        return {"mean": float(self.mean_dice()[step]), "overall": float(overall)}

    def _aupro(self, false: Counts) -> float:
        rate = np.r_[false / max(1.0, false[0]), 0.0][::-1]
        reached = np.r_[self.reached / max(1, self.regions), 0.0][::-1]
        inside = rate <= FPR_LIMIT
        at_limit = float(np.interp(FPR_LIMIT, rate, reached))
        x, y = np.r_[rate[inside], FPR_LIMIT], np.r_[reached[inside], at_limit]
        return float(np.trapezoid(y, x)) / FPR_LIMIT


def localisation(tally: PixelTally, threshold: float | None) -> dict[str, Any]:
    """The figures, rounded, with Dice at ``threshold`` (heat, None for maps without one)."""
    figures: dict[str, Any] = {key: round(value, 4) for key, value in tally.figures().items()}
    at = tally.dice_at(min(HEAT_STEPS - 1, int(threshold * HEAT_STEPS))) if threshold is not None else {}
    return figures | {f"dice_{key}": round(value, 4) for key, value in at.items()}


def _histogram(steps: Steps) -> Counts:
    return np.bincount(steps, minlength=HEAT_STEPS).astype(np.float64)


def _from_above(counts: Counts) -> Counts:
    """How many lie at each step or above."""
    return np.cumsum(counts[::-1])[::-1]
