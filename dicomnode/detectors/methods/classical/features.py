"""Handcrafted features of a plane: intensity, co-occurrence, wavelets, shape; all inside the organ."""

from __future__ import annotations

import numpy as np

from dicomnode.detectors.contract import Array, Mask
from dicomnode.detectors.methods.classical.shape import BRIGHT_NAMES, ORGAN_NAMES, bright_shape, organ_shape
from dicomnode.detectors.methods.classical.texture import (
    GLCM_NAMES,
    WAVELET_NAMES,
    cooccurrence,
    wavelet_energies,
)
from dicomnode.detectors.methods.contract import Planes

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
INTENSITY_NAMES = ("mean", "sd", "skewness", "kurtosis", *(f"percentile_{p}" for p in PERCENTILES))
FEATURE_NAMES = (*INTENSITY_NAMES, *GLCM_NAMES, *WAVELET_NAMES, *ORGAN_NAMES, *BRIGHT_NAMES)
"""The names of the columns of ``handcrafted``."""
LEAST_ORGAN = 16
"""Smallest organ in pixels of which features are told."""


def handcrafted(planes: Planes) -> Array:
    """One row of features per plane, shape (n, len(FEATURE_NAMES)), float32, always finite.

    Rows of the reviews: intensity (mean, sd), texture (co-occurrence matrix, wavelet), shape (geometric, curvature);
    methods.md 000-3. A plane whose organ has fewer than 16 pixels has a row of zeros. Texture and area depend on the
    grid: compare only planes of one size.
    """
    rows = [_row(image, mask) for image, mask in zip(planes.images, planes.masks, strict=True)]
    return np.asarray(rows, np.float32).reshape(len(planes), len(FEATURE_NAMES))


def _row(image: Array, mask: Mask) -> list[float]:
    if int(mask.sum()) < LEAST_ORGAN:
        return [0.0] * len(FEATURE_NAMES)
    return [
        *intensities(image[mask]),
        *cooccurrence(image, mask),
        *wavelet_energies(image, mask),
        *organ_shape(mask),
        *bright_shape(image, mask),
    ]


def intensities(values: Array) -> list[float]:
    """Moments and percentiles of grey values, shape (m,), in order of INTENSITY_NAMES; excess kurtosis.

    Skewness and kurtosis of (almost) equal values are 0.
    """
    mean, sd = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
    standard = (values - mean) / sd if sd > 1e-6 else np.zeros_like(values)
    third, fourth = float((standard**3).mean()), float((standard**4).mean())
    excess = fourth - 3.0 if sd > 1e-6 else 0.0
    return [mean, sd, third, excess, *(float(value) for value in np.percentile(values, PERCENTILES))]
