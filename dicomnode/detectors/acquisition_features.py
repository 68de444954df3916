"""What the acquisition does to a picture as a whole: figures that a focal lesion hardly moves.

Taken from the network grid, because a shift matters as far as the network sees it; in 256 grey steps, because that is
what training keeps, so that a picture gives the same figures in training and in the node.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from scipy import ndimage

from dicomnode.detectors.contract import Array, Mask
from dicomnode.detectors.resample import Box, crop_resize

PIXEL_MM, SLICE_MM = "pixel spacing", "slice spacing"
GEOMETRY = (PIXEL_MM, SLICE_MM)
"""Features that exist only where training pictures came with them: logarithms of millimetres."""
FEATURES = (
    "intensity, 10th percentile",
    "intensity, 25th percentile",
    "intensity, median",
    "contrast",
    "noise",
    "sharpness",
    "slope of the power spectrum",
    "share of high frequencies",
    "share of air",
    "share of organ",
)
THUMBNAIL = 8
_QUANTILES = (10, 25, 50)
_AIR = 0.05
_TINY = 1e-3
_OCTAVES = (0.0, 0.7, 1.4, 2.8)
_LEAST_PIXELS = 16


def measure(image: Array, mask: Mask) -> dict[str, float]:
    """The ``FEATURES`` of one prepared plane.

    ``image``: shape (size, size), 0..1, ``mask``: the organ. Inside the organ, as logarithms: contrast is the median
    absolute deviation, noise the median absolute Laplacian, sharpness the median size of the gradient. Air is what is
    darker than 5 % of the range. Medians over places, because a lesion is in few of them.
    """
    image = eight_bit(image)
    organ = mask if int(mask.sum()) >= _LEAST_PIXELS else np.ones_like(mask)
    slope, high = _spectrum(image, organ)
    middle = np.median(image[organ])
    gradient = np.hypot(ndimage.sobel(image, axis=0), ndimage.sobel(image, axis=1)) / 8.0
    values = (
        *np.percentile(image[organ], _QUANTILES),
        np.log(np.median(np.abs(image[organ] - middle)) + _TINY),
        np.log(np.median(np.abs(ndimage.laplace(image)[organ])) + _TINY),
        np.log(np.median(gradient[organ]) + _TINY),
        slope,
        high,
        np.mean(image < _AIR),
        np.mean(mask),
    )
    return dict(zip(FEATURES, map(float, values), strict=True))


def geometry(pixel_mm: float | None, slice_mm: float | None) -> dict[str, float]:
    """The ``GEOMETRY`` features that are known, from distances in mm."""
    known = {PIXEL_MM: pixel_mm, SLICE_MM: slice_mm}
    return {name: float(np.log(value)) for name, value in known.items() if value is not None and value > 0}


def thumbnail(image: Array) -> Array:
    """The low frequencies of a prepared plane: 8 x 8 pixels in one row, shape (64,)."""
    rows, columns = image.shape
    return crop_resize(eight_bit(image), Box(0, 0, rows, columns), (THUMBNAIL, THUMBNAIL)).ravel()


def eight_bit(image: Array) -> Array:
    """``image`` (0..1) in 256 steps."""
    steps: Array = np.floor(image * np.float32(255) + np.float32(1e-3)) / np.float32(255)
    return steps


def vector(measured: Mapping[str, float], names: tuple[str, ...]) -> Array:
    """The features called ``names`` in this order, nan where one is not known; shape (n,)."""
    return np.array([measured.get(name, np.nan) for name in names], dtype=np.float32)


def _spectrum(image: Array, organ: Mask) -> tuple[float, float]:
    """Slope of log power over log frequency, and log power of the finest above the coarsest octave.

    An octave is the difference of two Gaussians; its power is the squared median of its size inside the organ, not the
    mean as in a Fourier spectrum, where one bright spot is in every frequency.
    """
    smoothed = [image if sigma == 0 else ndimage.gaussian_filter(image, sigma) for sigma in _OCTAVES]
    power = 2 * np.log([np.median(np.abs(fine - coarse)[organ]) + _TINY for fine, coarse in pairwise(smoothed)])
    octaves = -np.arange(len(power)) * np.log(2)
    return float(np.polyfit(octaves, power, 1)[0]), float(power[0] - power[-1])
