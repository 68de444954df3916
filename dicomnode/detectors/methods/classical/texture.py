"""Texture of the organ: grey-level co-occurrence matrix and wavelet energies."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from dicomnode.detectors.contract import Array, Mask

GREY_LEVELS = 16
DISTANCES = (1, 2)
"""Distances of the pixel pairs, in pixels."""
GLCM_PROPERTIES = ("contrast", "dissimilarity", "homogeneity", "energy", "correlation")
GLCM_NAMES = tuple(f"glcm_{name}_{distance}" for distance in DISTANCES for name in GLCM_PROPERTIES)
WAVELET = "db2"
WAVELET_LEVELS = 3
WAVELET_NAMES = tuple(
    f"wavelet_{level}_{direction}"
    for level in range(1, WAVELET_LEVELS + 1)
    for direction in ("horizontal", "vertical", "diagonal")
)


def cooccurrence(image: Array, mask: Mask) -> list[float]:
    """Properties of the grey-level co-occurrence matrix inside ``mask``, in order of GLCM_NAMES (Haralick 1973).

    ``image``: shape (size, size), 0..1, put into 16 fixed levels. Pairs of all four directions are counted together,
    so a quarter turn changes nothing; pairs with a pixel outside the mask are left out.
    """
    from skimage.feature import graycomatrix, graycoprops

    levels = np.clip(image * GREY_LEVELS, 0, GREY_LEVELS - 1).astype(np.uint8) + 1
    levels[~mask] = 0
    directions = [0.0, math.pi / 4, math.pi / 2, 3 * math.pi / 4]
    pairs = graycomatrix(levels, list(DISTANCES), directions, levels=GREY_LEVELS + 1, symmetric=True)  # type: ignore[no-untyped-call]
    inside = pairs[1:, 1:].sum(axis=3, keepdims=True)
    table = np.stack([graycoprops(inside, name)[:, 0] for name in GLCM_PROPERTIES], axis=1)  # type: ignore[no-untyped-call]
    return [float(value) for value in table.ravel()]


def wavelet_energies(image: Array, mask: Mask) -> list[float]:
    """Root of the detail energy per organ pixel, level by level, finest first, in order of WAVELET_NAMES.

    Outside ``mask`` the image takes the organ's mean, so that the organ's edge adds little.
    """
    import pywt

    filled = np.where(mask, image, image[mask].mean())
    area = int(mask.sum())
    energies: list[float] = []
    for _ in range(WAVELET_LEVELS):
        filled, details = pywt.dwt2(filled, WAVELET, mode="periodization")
        energies.extend(_rms(detail, area) for detail in details)
    return energies


def _rms(detail: npt.NDArray[np.floating], area: int) -> float:
    return float(np.sqrt(np.square(detail).sum() / area))
