"""Shape of the organ and of its largest bright region."""

from __future__ import annotations

import math

import numpy as np

from dicomnode.detectors.contract import Array, Mask

ORGAN_NAMES = (
    "organ_area",
    "organ_eccentricity",
    "organ_extent",
    "organ_solidity",
    "organ_compactness",
    "organ_curvature",
)
BRIGHT_NAMES = (
    "bright_area",
    "bright_largest_area",
    "bright_eccentricity",
    "bright_solidity",
    "bright_contrast",
    "bright_offset",
)
BRIGHT = 2.5
"""A bright pixel lies so many robust standard deviations above the organ's median."""
LEAST_SPREAD = 0.02
"""Smallest robust standard deviation that counts, in parts of the grey range."""
LEAST_AREA = 9
"""Smallest region in pixels of which a shape is told."""


def organ_shape(mask: Mask) -> list[float]:
    """Geometry of ``mask``, shape (size, size), in order of ORGAN_NAMES; no unit.

    Area: part of the plane. Compactness: 4π area / perimeter². Curvature: standard deviation of the outline's
    curvature times the organ's radius, 0 for a circle.
    """
    from skimage.measure import regionprops

    region = regionprops(mask.astype(np.uint8))[0]  # type: ignore[no-untyped-call]
    area = float(region.area)
    eccentricity, solidity = _outline(region)
    compactness = 4 * math.pi * area / max(float(region.perimeter), 1.0) ** 2
    return [
        area / mask.size,
        eccentricity,
        float(region.extent),
        solidity,
        min(compactness, 2.0),
        _curvature(mask, math.sqrt(area / math.pi)),
    ]


def bright_shape(image: Array, mask: Mask) -> list[float]:
    """The organ's bright pixels and their largest region, in order of BRIGHT_NAMES; 0 where there is none.

    Areas: parts of the organ. Contrast: in robust standard deviations of the organ. Offset: distance of the region's
    centre from the organ's, in organ radii.
    """
    from scipy.ndimage import uniform_filter
    from skimage.measure import label, regionprops

    values = image[mask]
    low, median, high = np.percentile(values, (25, 50, 75))
    spread = max(float(high - low) / 1.349, LEAST_SPREAD)
    bright = (uniform_filter(image, 3) > median + BRIGHT * spread) & mask
    if not bright.any():
        return [0.0] * len(BRIGHT_NAMES)
    parts = label(bright)  # type: ignore[no-untyped-call]
    regions = regionprops(parts, intensity_image=image)  # type: ignore[no-untyped-call]
    region = max(regions, key=lambda one: float(one.area))
    area = float(mask.sum())
    eccentricity, solidity = _outline(region)
    away = np.linalg.norm(np.argwhere(mask).mean(axis=0) - np.asarray(region.centroid))
    return [
        float(bright.sum()) / area,
        float(region.area) / area,
        eccentricity,
        solidity,
        (float(region.intensity_mean) - float(median)) / spread,
        float(away) / math.sqrt(area / math.pi),
    ]


def _outline(region: object) -> tuple[float, float]:
    """Eccentricity and solidity; (0, 1) for a region too small or thin to have them."""
    top, left, bottom, right = region.bbox  # type: ignore[attr-defined]
    if region.area < LEAST_AREA or min(bottom - top, right - left) < 3:  # type: ignore[attr-defined]
        return 0.0, 1.0
    return float(region.eccentricity), float(region.solidity)  # type: ignore[attr-defined]


def _curvature(mask: Mask, radius: float) -> float:
    """Standard deviation of the curvature along the longest outline, times ``radius``."""
    from scipy.ndimage import gaussian_filter1d
    from skimage.measure import find_contours

    outlines = find_contours(np.pad(mask, 1).astype(np.float64), 0.5)  # type: ignore[no-untyped-call]
    longest = max(outlines, key=len)
    if len(longest) < 4 * LEAST_AREA:
        return 0.0
    steps = max(2.0, len(longest) / 60)
    first = gaussian_filter1d(longest, steps, axis=0, order=1, mode="wrap")
    second = gaussian_filter1d(longest, steps, axis=0, order=2, mode="wrap")
    speed = np.maximum(np.hypot(first[:, 0], first[:, 1]), 1e-3)
    bend = (first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]) / speed**3
    return float(bend.std() * radius)
