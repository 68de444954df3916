"""Where the lungs lie on a frontal chest picture: a local threshold, one region a side, a box around both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from dicomnode.detectors.contract import Array, Mask
from dicomnode.detectors.resample import Box

FIELD_GRID = 128
"""Side of the grid on which the lungs are sought, pixels."""
_AIR = 0.14
"""Grey value (0..1) below which what touches the border above or beside the body is air."""
_MARGINS = (0.10, 0.18, 0.08)
"""Added above, below and on either side of the lungs, as shares of the box's height or width."""


@dataclass(frozen=True, slots=True)
class LungFields:
    """``mask``: the aerated lungs, shape (128, 128). ``box``: the part of the grid to look at, in its pixels.

    ``sides``: whether the lung on the left and the one on the right of the picture was found.
    """

    mask: Mask
    box: Box
    sides: tuple[bool, bool]


def lung_fields(picture: Array) -> LungFields:
    """The lungs on ``picture``, shape (128, 128), 0..1, the body filling it.

    A lung is darker than its wide surroundings (Otsu's threshold inside the body), lies beside the spine and near
    the usual place. A consolidated part is bright and not in the mask, but in the box; a side that is not found is
    taken to mirror the other, and without both a usual box is given. Never fails.
    """
    n = FIELD_GRID
    smooth = ndimage.gaussian_filter(picture, 2.0)
    spine = _spine(smooth)
    window = np.zeros((n, n), dtype=bool)
    window[int(0.05 * n) : int(0.90 * n), int(0.04 * n) : int(0.96 * n)] = True
    window &= ~_air(smooth)
    mask, sides = _both_sides(_dark(picture, smooth, window, spine), spine)
    filled = ndimage.binary_fill_holes(ndimage.binary_closing(mask, iterations=4) & window)
    return LungFields(filled, _with_margins(_extent(filled, spine, sides)), sides)


def _spine(smooth: Array) -> int:
    """The brightest column of the picture's middle."""
    n = FIELD_GRID
    profile = ndimage.gaussian_filter1d(smooth[int(0.2 * n) : int(0.6 * n)].mean(axis=0), 2)
    low, high = int(0.36 * n), int(0.64 * n)
    return low + int(profile[low:high].argmax())


def _air(smooth: Array) -> Mask:
    labels, _ = ndimage.label(smooth < _AIR)
    edge = np.unique(np.concatenate([labels[0], labels[:, 0], labels[:, -1]]))
    return ndimage.binary_dilation(np.isin(labels, edge[edge > 0]), iterations=2)  # type: ignore[no-any-return]


def _dark(picture: Array, smooth: Array, window: Mask, spine: int) -> Mask:
    from skimage.filters import threshold_otsu

    contrast = smooth - ndimage.gaussian_filter(picture, FIELD_GRID * 0.22)
    inside = contrast[window]
    if inside.size == 0 or float(np.ptp(inside)) <= 0:
        return np.zeros_like(window)
    limit = float(threshold_otsu(inside))  # type: ignore[no-untyped-call]
    dark = (contrast < limit) & window
    dark[:, max(0, spine - 2) : spine + 3] = False
    return ndimage.binary_opening(dark, iterations=2)  # type: ignore[no-any-return]


def _both_sides(dark: Mask, spine: int) -> tuple[Mask, tuple[bool, bool]]:
    """On either side of the spine the dark part that is large and near the usual place of a lung."""
    n = FIELD_GRID
    labels, count = ndimage.label(dark)
    chosen, found = np.zeros_like(dark), []
    for sign in (-1, 1):
        best, weight = 0, 0.0
        for part in range(1, count + 1):
            rows, columns = np.nonzero(labels == part)
            if float((np.sign(columns - spine) == sign).mean()) < 0.6:
                continue
            away = (columns.mean() - (spine + sign * 0.2 * n)) / (0.1 * n), (rows.mean() - 0.42 * n) / (0.22 * n)
            own = float(np.exp(-(away[0] ** 2) - away[1] ** 2)) * len(rows)
            if own > weight:
                best, weight = part, own
        found.append(weight > 0.008 * n * n)
        if found[-1]:
            chosen |= labels == best
    return chosen, (found[0], found[1])


def _extent(mask: Mask, spine: int, sides: tuple[bool, bool]) -> tuple[float, float, float, float]:
    """Top, bottom, left and right of the lungs; too small an extent is widened to a usual one."""
    n = FIELD_GRID
    if not any(sides) or not mask.any():
        return 0.17 * n, 0.72 * n, spine - 0.34 * n, spine + 0.34 * n
    top, bottom = _middle_98(mask.sum(axis=1))
    left, right = _middle_98(mask.sum(axis=0))
    left = left if sides[0] else 2 * spine - right
    right = right if sides[1] else 2 * spine - left
    if bottom - top < 0.3 * n:
        top, bottom = min(top, 0.2 * n), max(bottom, 0.65 * n)
    if right - spine < 0.18 * n:
        right = max(right, spine + min(0.3 * n, spine - left))
    if spine - left < 0.18 * n:
        left = min(left, spine - min(0.3 * n, right - spine))
    return top, bottom, left, right


def _middle_98(profile: Array) -> tuple[float, float]:
    share = np.cumsum(profile) / profile.sum()
    return float(np.searchsorted(share, 0.01)), float(np.searchsorted(share, 0.99) + 1)


def _with_margins(extent: tuple[float, float, float, float]) -> Box:
    top, bottom, left, right = extent
    n, height, width = float(FIELD_GRID), bottom - top, right - left
    above, below, beside = _MARGINS
    return Box(
        max(0.0, top - above * height),
        max(0.0, left - beside * width),
        min(n, bottom + below * height),
        min(n, right + beside * width),
    )
