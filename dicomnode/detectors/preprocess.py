"""One way from a plane to a network input, for training, evaluation and the node alike.

Every step looks at one plane only, so a slice scores the same alone, in a study, or as an offline picture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from dicomnode.detectors.contract import Array, Mask
from dicomnode.detectors.resample import Box, crop_resize

WORKING_SIZE = 256
HU_WINDOW = 80.0
BONE = 0.92
RADIOGRAPH_PERCENTILES = (1.0, 99.0)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A plane on the network grid.

    ``image``: shape (size, size), float32, 0..1. ``mask``: the organ, bool, same shape; scores and maps count only
    inside it. ``box``: where the grid lies on the plane. ``organ_share``: the brain's share of the head's area on a
    head CT (small near the vertex and the skull base), otherwise 1.
    """

    image: Array
    mask: Mask
    box: Box
    organ_share: float = 1.0


@dataclass(frozen=True, slots=True)
class Rejected:
    """A plane that a detector does not look at, and why, in words for an operator."""

    reason: str


Preparation = Callable[[Array, int], Prepared | Rejected]


def prepare_radiograph(pixels: Array, size: int) -> Prepared | Rejected:
    """Chest radiograph: black collimation borders cut, grey values between two percentiles to 0..1.

    ``pixels``: shape (rows, columns), any unit and bit depth, MONOCHROME2 sense. The picture is stretched to a
    square: the training pictures were, and their pixel aspect is not recorded.
    """
    flat = _unreadable(pixels)
    if flat:
        return Rejected(flat)
    low, high = np.percentile(pixels, RADIOGRAPH_PERCENTILES)
    if high <= low:
        return Rejected("the image has almost no contrast")
    scaled = np.clip((pixels - low) / (high - low), 0.0, 1.0).astype(np.float32)
    image = crop_resize(scaled, _lit_box(scaled), (size, size))
    return Prepared(image, _chest_window(size), _lit_box(scaled))


def prepare_head_ct(pixels: Array, size: int) -> Prepared | Rejected:
    """Head CT: clip(HU, 0, 80)/80, cut to the skull's inside, brain median at 0.5, gain 1.5, 0..1.

    ``pixels``: shape (rows, columns), HU. Values outside the window carry no information here, so pictures that
    were windowed to 0..80 HU and scanner data give the same input.
    """
    flat = _unreadable(pixels)
    if flat:
        return Rejected(flat)
    windowed = np.clip(pixels / HU_WINDOW, 0.0, 1.0).astype(np.float32)
    work, scale = _working_copy(windowed)
    head = _head(work > 0.05)
    brain = _inside_skull(work, head)
    if brain.sum() < 0.02 * work.size:
        return Rejected("no brain surrounded by skull on this plane")
    median = float(np.median(work[brain]))
    contrast = np.clip(0.5 + 1.5 * (windowed - median), 0.0, 1.0).astype(np.float32)
    prepared = _on_grid(contrast, brain, scale, size, rim=0.02, margin=0.04, blank_outside=True)
    return replace(prepared, organ_share=float(brain.sum()) / float(head.sum()))


def prepare_brain_flair(pixels: Array, size: int) -> Prepared | Rejected:
    """Brain FLAIR: cut to the head, median of its inner part at 0.4, 0..1; the scalp does not count.

    ``pixels``: shape (rows, columns), arbitrary unit; a constant factor changes nothing.
    """
    flat = _unreadable(pixels)
    if flat:
        return Rejected(flat)
    positive = np.clip(pixels, 0.0, None)
    work, scale = _working_copy(positive)
    head = _head(work > 0.12 * np.percentile(work, 99.0))
    if head.sum() < 0.04 * work.size:
        return Rejected("no head on this plane")
    inner = _eroded(head, 0.12)
    if inner.sum() < 0.01 * work.size:
        return Rejected("the head on this plane is too small")
    median = float(np.median(work[inner]))
    if median <= 0:
        return Rejected("the head on this plane has no signal")
    contrast = np.clip(0.4 * positive / median, 0.0, 1.0).astype(np.float32)
    return _on_grid(contrast, head, scale, size, rim=0.10, margin=0.02, blank_outside=False)


def _unreadable(pixels: Array) -> str:
    if min(pixels.shape) < 32:
        return f"the image has only {pixels.shape[0]} x {pixels.shape[1]} pixels"
    if not np.isfinite(pixels).all():
        return "the image holds values that are not numbers"
    if float(pixels.max()) <= float(pixels.min()):
        return "all pixels have the same value"
    return ""


def _working_copy(image: Array) -> tuple[Array, float]:
    """The plane reduced to at most 256 pixels a side, and the factor from its pixels back to the plane's."""
    rows, columns = image.shape
    scale = max(1.0, max(rows, columns) / WORKING_SIZE)
    size = (max(1, round(rows / scale)), max(1, round(columns / scale)))
    return crop_resize(image, Box(0, 0, rows, columns), size), scale


def _lit_box(scaled: Array) -> Box:
    """The rectangle left when dark rows and columns at the border are cut, never below 60 % of a side."""
    rows = _lit_range(np.percentile(scaled, 90, axis=1))
    columns = _lit_range(np.percentile(scaled, 90, axis=0))
    return Box(rows[0], columns[0], rows[1], columns[1])


def _lit_range(profile: Array) -> tuple[float, float]:
    lit = np.flatnonzero(profile > 0.15)
    n = len(profile)
    if lit.size == 0 or lit[-1] + 1 - lit[0] < 0.6 * n:
        return 0.0, float(n)
    return float(lit[0]), float(lit[-1] + 1)


def _chest_window(size: int) -> Mask:
    """The middle of a frontal chest picture: side markers, arms and the abdomen below do not count."""
    mask = np.zeros((size, size), dtype=bool)
    mask[round(0.08 * size) : round(0.86 * size), round(0.08 * size) : round(0.92 * size)] = True
    return mask


def _head(foreground: Mask) -> Mask:
    """The largest connected part, opened to cut off tables and markers, with its holes filled."""
    opened = ndimage.binary_opening(foreground, iterations=2)
    return ndimage.binary_fill_holes(_largest(opened))  # type: ignore[no-any-return]


def _inside_skull(work: Array, head: Mask) -> Mask:
    """What closed bone surrounds on this plane (the brain with its bleedings), without the bone."""
    bone = (work >= BONE) & head
    closed = ndimage.binary_closing(np.pad(bone, 8), iterations=4)[8:-8, 8:-8]
    inside = ndimage.binary_fill_holes(closed) & ~bone & (work > 0.1)
    core = _largest(ndimage.binary_opening(inside, iterations=2))
    return ndimage.binary_fill_holes(core)  # type: ignore[no-any-return]


def _largest(mask: Mask) -> Mask:
    labels, n = ndimage.label(mask)
    if n < 2:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels == int(sizes.argmax())  # type: ignore[no-any-return]


def _eroded(mask: Mask, share: float) -> Mask:
    """``mask`` without the rim of width ``share`` * sqrt(area)."""
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    return depth > share * float(np.sqrt(mask.sum()))  # type: ignore[no-any-return]


def _on_grid(
    image: Array, organ: Mask, scale: float, size: int, *, rim: float, margin: float, blank_outside: bool
) -> Prepared:
    """Cut a square around ``organ`` (on the working copy) and resample image and mask to the network grid."""
    rows, columns = np.flatnonzero(organ.any(axis=1)), np.flatnonzero(organ.any(axis=0))
    r0, r1, c0, c1 = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    half = 0.5 * max(r1 - r0, c1 - c0) * (1 + 2 * margin)
    row, column = 0.5 * (r0 + r1), 0.5 * (c0 + c1)
    small = Box(row - half, column - half, row + half, column + half)
    box = Box(small.row0 * scale, small.column0 * scale, small.row1 * scale, small.column1 * scale)
    mask = crop_resize(_eroded(organ, rim).astype(np.float32), small, (size, size)) > 0.5
    grid = crop_resize(image, box, (size, size))
    if blank_outside:
        grid = grid * (crop_resize(organ.astype(np.float32), small, (size, size)) > 0.5)
    return Prepared(grid.astype(np.float32), mask, box)


PREPARATIONS: dict[str, Preparation] = {
    "radiograph": prepare_radiograph,
    "head-ct": prepare_head_ct,
    "brain-flair": prepare_brain_flair,
}
"""The preparation of each kind of input, by the name that a model card carries."""
