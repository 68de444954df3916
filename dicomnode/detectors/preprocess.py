"""One way from a plane to a network input, for training, evaluation and the node alike.

Every step looks at one plane only, so a slice scores the same alone, in a study, or as an offline picture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from dicomnode.detectors.chest import FIELD_GRID, lung_fields
from dicomnode.detectors.contract import Array, Mask
from dicomnode.detectors.resample import Alignment, Box, crop_resize, paste
from dicomnode.detectors.skull import inside_skull, largest
from dicomnode.errors import ConfigError

WORKING_SIZE = 256
HU_WINDOW = 80.0
LEAST_BRAIN = 0.004
"""Share of the plane below which what bone surrounds is no brain."""
RADIOGRAPH_PERCENTILES = (1.0, 99.0)
RADIOGRAPH_SIDE = 256
"""The training pictures' side: larger ones are averaged down by a whole factor, the shorter side never below it."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A plane on the network grid.

    ``image``: shape (size, size), float32, 0..1. ``mask``: the organ, bool, same shape; scores and maps count only
    inside it. ``box``: where the grid lies on the plane. ``organ_share``: the brain's share of the head's area on a
    head CT (small near the vertex and the skull base), otherwise 1. ``fields``: the aerated lungs on the grid, for
    methods that learn from them; None for other organs. ``alignment``: how the grid was moved onto a template
    (``registration``), None without one.
    """

    image: Array
    mask: Mask
    box: Box
    organ_share: float = 1.0
    fields: Mask | None = None
    alignment: Alignment | None = None

    def on_plane(self, values: Array, shape: tuple[int, int]) -> Array:
        """``values``, shape (size, size), brought back from the network grid to the plane of ``shape``."""
        own = values if self.alignment is None else self.alignment.back(values)
        return paste(own, self.box, shape)

    def from_plane(self, values: Array) -> Array:
        """``values`` of the plane's shape (an outline, a map) on the network grid, float32."""
        own = crop_resize(values, self.box, (self.image.shape[0], self.image.shape[1]))
        return own if self.alignment is None else self.alignment.forward(own)

    def point_on_plane(self, row: float, column: float) -> tuple[float, float]:
        """A place of the network grid, (0, 0) its upper left corner, on the plane (row, column), as ``Box`` counts."""
        if self.alignment is not None:
            row, column = (index + 0.5 for index in self.alignment.point_before(row - 0.5, column - 0.5))
        down, across = self.box.height / self.image.shape[0], self.box.width / self.image.shape[1]
        return self.box.row0 + row * down, self.box.column0 + column * across

    def point_on_grid(self, row: float, column: float) -> tuple[float, float]:
        """The inverse of ``point_on_plane``."""
        row = (row - self.box.row0) / self.box.height * self.image.shape[0]
        column = (column - self.box.column0) / self.box.width * self.image.shape[1]
        if self.alignment is None:
            return row, column
        moved = self.alignment.point_aligned(row - 0.5, column - 0.5)
        return moved[0] + 0.5, moved[1] + 0.5

    @property
    def organ_pixels(self) -> float:
        """The organ's area in pixels of the plane itself."""
        scale = 1.0 if self.alignment is None else self.alignment.area
        return float(self.mask.mean()) * self.box.height * self.box.width * scale


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
    box = _lit_box(scaled)
    return Prepared(crop_resize(scaled, box, (size, size)), _chest_window(size), box)


def prepare_chest_lungs(pixels: Array, size: int) -> Prepared | Rejected:
    """Chest radiograph, cut to a box around the lungs, grey values between two percentiles of it to 0..1.

    ``pixels``: as for ``prepare_radiograph``. Large pictures are averaged down first.
    The whole box counts as organ: a consolidated lung is not among the aerated ``fields``.
    """
    if min(pixels.shape) < 32:
        return Rejected(_unreadable(pixels))
    factor = max(1, min(pixels.shape) // RADIOGRAPH_SIDE)
    reduced = _block_means(pixels, factor)
    whole = prepare_radiograph(reduced, WORKING_SIZE)
    if isinstance(whole, Rejected):
        return whole
    found = lung_fields(crop_resize(whole.image, Box(0, 0, WORKING_SIZE, WORKING_SIZE), (FIELD_GRID, FIELD_GRID)))
    image = crop_resize(whole.image, scaled_box(found.box, WORKING_SIZE / FIELD_GRID), (size, size))
    low, high = np.percentile(image, RADIOGRAPH_PERCENTILES)
    image = np.clip((image - low) / max(float(high - low), 1e-3), 0.0, 1.0).astype(np.float32)
    fields = crop_resize(found.mask.astype(np.float32), found.box, (size, size)) > 0.5
    on_plane = scaled_box(_inside(whole.box, found.box, FIELD_GRID), factor)
    return Prepared(image, np.ones((size, size), dtype=bool), on_plane, fields=fields)


def prepare_head_ct(pixels: Array, size: int) -> Prepared | Rejected:
    """Head CT: clip(HU, 0, 80)/80, cut to the skull's inside (``skull``), brain median at 0.5, gain 1.5, 0..1.

    ``pixels``: shape (rows, columns), HU. Values outside the window carry no information here, so pictures that
    were windowed to 0..80 HU and scanner data give the same input.
    """
    flat = _unreadable(pixels)
    if flat:
        return Rejected(flat)
    windowed = np.clip(pixels / HU_WINDOW, 0.0, 1.0).astype(np.float32)
    work, scale = _working_copy(windowed)
    head = _head(work > 0.05)
    brain = inside_skull(work, head)
    if brain.sum() < LEAST_BRAIN * work.size:
        return Rejected("no brain surrounded by skull on this plane")
    median = float(np.median(work[brain]))
    contrast = np.clip(0.5 + 1.5 * (windowed - median), 0.0, 1.0).astype(np.float32)
    prepared = _on_grid(contrast, brain, scale, size, rim=0.01, margin=0.04, blank_outside=True)
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


def scaled_box(box: Box, factor: float) -> Box:
    """The same rectangle on a grid that is ``factor`` times as fine."""
    return Box(box.row0 * factor, box.column0 * factor, box.row1 * factor, box.column1 * factor)


def _inside(outer: Box, inner: Box, side: int) -> Box:
    """``inner``, given on a grid of ``side`` pixels over ``outer``, in the pixels of ``outer``."""
    down, across = outer.height / side, outer.width / side
    return Box(
        outer.row0 + inner.row0 * down,
        outer.column0 + inner.column0 * across,
        outer.row0 + inner.row1 * down,
        outer.column0 + inner.column1 * across,
    )


def _block_means(pixels: Array, factor: int) -> Array:
    """``pixels`` averaged over squares of ``factor`` pixels; the last rows and columns that fill none are left out."""
    if factor == 1:
        return pixels
    rows, columns = (length // factor for length in pixels.shape)
    part = pixels[: rows * factor, : columns * factor].astype(np.float32, copy=False)
    lines = part.reshape(rows, factor, columns * factor).sum(axis=1)
    means: Array = lines.reshape(rows, columns, factor).sum(axis=2) / np.float32(factor * factor)
    return means


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
    return ndimage.binary_fill_holes(largest(opened))  # type: ignore[no-any-return]


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
    "chest-lungs": prepare_chest_lungs,
    "head-ct-2": prepare_head_ct,
    "brain-flair": prepare_brain_flair,
}
"""The preparation of each kind of input, by the name that a model card carries."""

RADIOGRAPHS = frozenset({"radiograph", "chest-lungs"})
CLIP_LIMIT = 0.01


def preparation_of(name: str, *, clahe: bool = False) -> Preparation:
    """The preparation ``name`` for training, evaluation and the node; ``clahe``: see ``with_clahe``.

    Raises ConfigError for an unknown name, or for CLAHE on anything but a radiograph.
    """
    if name not in PREPARATIONS:
        raise ConfigError(f"there is no preparation {name}; there are {', '.join(PREPARATIONS)}")
    if not clahe:
        return PREPARATIONS[name]
    if name not in RADIOGRAPHS:
        raise ConfigError(f"CLAHE is for radiographs, not for the preparation {name}")
    return with_clahe(PREPARATIONS[name])


def with_clahe(prepare: Preparation) -> Preparation:
    """``prepare``, then contrast-limited adaptive histogram equalisation of the image on the network grid (Zuiderveld,
    Graphics Gems IV, 1994; tiles of an eighth of the side, clip limit 0.01)."""

    def equalised(pixels: Array, size: int) -> Prepared | Rejected:
        from skimage.exposure import equalize_adapthist

        prepared = prepare(pixels, size)
        if isinstance(prepared, Rejected):
            return prepared
        image = equalize_adapthist(prepared.image, clip_limit=CLIP_LIMIT)
        return replace(prepared, image=np.clip(image, 0.0, 1.0).astype(np.float32))

    return equalised
