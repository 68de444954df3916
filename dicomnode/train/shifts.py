"""Simulated scanner shifts and planted lesions, on planes as the node sees them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy import ndimage

from dicomnode.detectors.contract import Array, Plane
from dicomnode.detectors.preprocess import Prepared
from dicomnode.detectors.resample import Box, crop_resize

UNSHIFTED = "none"
LESION_CONTRAST = 0.9
"""Brightness of a planted lesion above its surroundings, as a share of the organ's range."""

Change = Callable[[Array, np.random.Generator], Array]
"""From pixels scaled to about 0..1, shape (rows, columns), to the same from another scanner."""


def _gamma(exponent: float) -> Change:
    return lambda image, _: np.asarray(np.sign(image) * np.abs(image) ** exponent, dtype=np.float32)


def _bias_field(image: Array, draw: np.random.Generator) -> Array:
    """A smooth gain that falls from one corner to the other, as of a surface coil."""
    rows, columns = np.meshgrid(*(np.linspace(-1, 1, n) for n in image.shape), indexing="ij")
    angle = draw.uniform(0, 2 * np.pi)
    ramp = np.cos(angle) * rows + np.sin(angle) * columns
    return np.asarray(image * (1.0 + 0.4 * ramp - 0.15 * (rows**2 + columns**2)), dtype=np.float32)


def _blur(image: Array, _: np.random.Generator) -> Array:
    return np.asarray(ndimage.gaussian_filter(image, 1.5))


def _noise(image: Array, draw: np.random.Generator) -> Array:
    return np.asarray(image + draw.normal(0, 0.08, image.shape), dtype=np.float32)


def _coarser(image: Array, _: np.random.Generator) -> Array:
    rows, columns = image.shape
    small = crop_resize(image, Box(0, 0, rows, columns), (max(1, rows // 2), max(1, columns // 2)))
    return crop_resize(small, Box(0, 0, *small.shape), image.shape)


def _sharper(image: Array, _: np.random.Generator) -> Array:
    """An edge-enhancing kernel (unsharp mask)."""
    return np.asarray(image + 1.5 * (image - ndimage.gaussian_filter(image, 1.5)), dtype=np.float32)


SHIFTS: dict[str, Change] = {
    UNSHIFTED: lambda image, _: image,
    "gamma 0.6": _gamma(0.6),
    "gamma 1.6": _gamma(1.6),
    "bias field": _bias_field,
    "blur": _blur,
    "noise": _noise,
    "coarser pixels": _coarser,
    "sharper kernel": _sharper,
}


def shifted(plane: Plane, name: str, seed: int) -> Plane:
    """``plane`` as another scanner would show it; ``name``: a key of ``SHIFTS``. Equal seeds, equal pixels."""
    low, high = (float(value) for value in np.percentile(plane.pixels, (0.5, 99.5)))
    if name == UNSHIFTED or high <= low:
        return plane
    changed = SHIFTS[name]((plane.pixels - low) / (high - low), np.random.default_rng(seed))
    pixels = np.clip(changed * (high - low) + low, plane.stored_min, plane.stored_max)
    return replace(plane, pixels=pixels.astype(np.float32))


def planted(plane: Plane, prepared: Prepared, seed: int) -> Plane:
    """``plane`` with one bright disc inside its organ, of 6 to 10 % of the shorter side in radius.

    A plane whose organ is empty stays as it is. The same seed gives the same lesion.
    """
    organ = prepared.on_plane(prepared.mask.astype(np.float32), plane.shape) > 0.5
    places = np.argwhere(organ)
    if not len(places):
        return plane
    draw = np.random.default_rng(seed)
    row, column = places[draw.integers(len(places))]
    rows, columns = np.ogrid[: plane.shape[0], : plane.shape[1]]
    radius = draw.uniform(0.06, 0.10) * min(plane.shape)
    disc = ndimage.gaussian_filter((np.hypot(rows - row, columns - column) < radius).astype(np.float32), 1.0) * organ
    low, high = (float(value) for value in np.percentile(plane.pixels[organ], (1.0, 99.0)))
    pixels = np.clip(plane.pixels + disc * LESION_CONTRAST * (high - low), plane.stored_min, plane.stored_max)
    return replace(plane, pixels=pixels.astype(np.float32))
