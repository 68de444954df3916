"""Features in standard deviations of the healthy ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dicomnode.detectors.contract import Array

CONSTANT_SCALE = 0.05
"""The unit of a feature that was the same in all healthy planes (areas and shares of regions that none had)."""
FARTHEST = 10.0
"""Standard deviations beyond which a feature counts no more, so that one of them cannot drown the others."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Mean and standard deviation of every healthy feature, shape (k,)."""

    mean: Array
    sd: Array

    def standard(self, features: Array) -> Array:
        """``features``, shape (n, k), in standard deviations, within ±10."""
        result: Array = np.clip((features - self.mean) / self.sd, -FARTHEST, FARTHEST).astype(np.float32)
        return result


def healthy_scale(features: Array) -> Scale:
    """The scale of healthy ``features``, shape (n, k)."""
    mean, sd = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
    known = sd > 1e-6 * np.maximum(1.0, np.abs(mean))
    return Scale(mean.astype(np.float32), np.where(known, sd, CONSTANT_SCALE).astype(np.float32))
