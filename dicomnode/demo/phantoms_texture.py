"""Seeded random fields that give phantoms their folds, irregular borders and grain."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Field = npt.NDArray[np.float32]


def smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], sigma: float | tuple[float, ...]) -> Field:
    """Return Gaussian noise smoothed by ``sigma`` voxels, with mean 0 and standard deviation 1, of ``shape``."""
    white = rng.standard_normal(shape, dtype=np.float32)
    smooth = ndimage.gaussian_filter(white, sigma, mode="reflect")
    smooth -= smooth.mean()
    return np.asarray(smooth / smooth.std(), dtype=np.float32)


def enlarge(field: Field, size: int) -> Field:
    """Interpolate a square ``field`` (n, n) linearly to (size, size)."""
    return np.asarray(ndimage.zoom(field, size / field.shape[0], order=1, grid_mode=True, mode="nearest"), np.float32)


def grain(rng: np.random.Generator, size: int, sigma: float) -> Field:
    """Return a (size, size) texture of about ``sigma`` pixels, drawn on a grid four times as coarse."""
    return enlarge(smooth_noise(rng, (size // 4, size // 4), sigma / 4), size)


def blur(field: Field, sigma: float) -> Field:
    """Smooth ``field`` by a Gaussian of ``sigma`` pixels."""
    return np.asarray(ndimage.gaussian_filter(field, sigma, mode="nearest", truncate=3.0), np.float32)


def ramp(value: npt.NDArray[np.floating[Any]] | float, start: float, end: float) -> Field:
    """Rise smoothly from 0 at ``start`` to 1 at ``end`` (smoothstep); ``end`` below ``start`` falls instead."""
    t = np.clip((np.asarray(value, np.float32) - start) / (end - start), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)
