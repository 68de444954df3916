"""Crop-and-resize between a plane and a network grid, and a linear change of the grid; no torch, deterministic."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from dicomnode.detectors.contract import Array


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of a plane in pixels, image-relative (0, 0 is the top-left corner of the top-left pixel).

    The edges may lie between pixels and outside the image; what lies outside reads as 0.
    """

    row0: float
    column0: float
    row1: float
    column1: float

    @property
    def height(self) -> float:
        return self.row1 - self.row0

    @property
    def width(self) -> float:
        return self.column1 - self.column0


@dataclass(frozen=True, slots=True)
class Alignment:
    """Where a plane was moved to lie like a template: pixel ``p`` (row, column) of the aligned grid shows what is at
    ``matrix @ p + offset`` of the grid before, both in pixel indices.

    ``matrix``: two rows of two. ``note``: why the plane stayed as it is (identity), empty where it was aligned.
    """

    matrix: tuple[tuple[float, float], tuple[float, float]] = ((1.0, 0.0), (0.0, 1.0))
    offset: tuple[float, float] = (0.0, 0.0)
    note: str = ""

    @property
    def identity(self) -> bool:
        return bool(self.note)

    @property
    def area(self) -> float:
        """Area of one aligned pixel, in pixels of the grid before."""
        return abs(float(np.linalg.det(np.asarray(self.matrix))))

    def forward(self, values: Array, *, extend: bool = False) -> Array:
        """``values``, shape (size, size), on the aligned grid, float32. Outside: 0, or the nearest with ``extend``."""
        return values if self.identity else _moved(values, np.asarray(self.matrix), np.asarray(self.offset), extend)

    def back(self, values: Array) -> Array:
        """The inverse of ``forward``: ``values`` of the aligned grid on the grid before, 0 where it does not reach."""
        if self.identity:
            return values
        inverse = np.linalg.inv(np.asarray(self.matrix))
        return _moved(values, inverse, -inverse @ np.asarray(self.offset), extend=False)

    def point_before(self, row: float, column: float) -> tuple[float, float]:
        """A pixel index of the aligned grid on the grid before."""
        moved = np.asarray(self.matrix) @ (row, column) + self.offset
        return float(moved[0]), float(moved[1])

    def point_aligned(self, row: float, column: float) -> tuple[float, float]:
        """A pixel index of the grid before on the aligned grid."""
        moved = np.linalg.solve(np.asarray(self.matrix), np.array([row, column]) - self.offset)
        return float(moved[0]), float(moved[1])


def _moved(values: Array, matrix: Array, offset: Array, extend: bool) -> Array:
    mode = "nearest" if extend else "constant"
    moved: Array = ndimage.affine_transform(values.astype(np.float32, copy=False), matrix, offset, order=1, mode=mode)
    return moved


def axis_weights(n_in: int, low: float, high: float, n_out: int) -> Array:
    """Weights, shape (n_out, n_in), that resample the interval low..high of an axis to ``n_out`` samples.

    A triangle filter whose support grows with the reduction: bilinear when enlarging, area-like (no aliasing) when
    reducing. Rows are normalised; a sample whose centre lies outside the axis gets zero weights.
    """
    step = (high - low) / n_out
    centres = low + (np.arange(n_out) + 0.5) * step
    support = max(1.0, step)
    distance = np.abs(centres[:, None] - (np.arange(n_in) + 0.5)[None, :])
    weights = np.clip(1.0 - distance / support, 0.0, None)
    weights[(centres < 0) | (centres > n_in)] = 0.0
    total = weights.sum(axis=1, keepdims=True)
    return (weights / np.where(total > 0, total, 1.0)).astype(np.float32)


def crop_resize(image: Array, box: Box, size: tuple[int, int]) -> Array:
    """``box`` of ``image`` (shape (rows, columns)) resampled to ``size`` (rows, columns), float32."""
    rows, columns = image.shape
    down = axis_weights(rows, box.row0, box.row1, size[0])
    across = axis_weights(columns, box.column0, box.column1, size[1])
    return (down @ image.astype(np.float32, copy=False) @ across.T).astype(np.float32)


def paste(values: Array, box: Box, shape: tuple[int, int]) -> Array:
    """The inverse of ``crop_resize``: ``values`` (on the network grid) on a plane of ``shape``, 0 outside the box."""
    n_rows, n_columns = values.shape
    down = axis_weights(n_rows, *_inverse(box.row0, box.height, n_rows, shape[0]), shape[0])
    across = axis_weights(n_columns, *_inverse(box.column0, box.width, n_columns, shape[1]), shape[1])
    return (down @ values.astype(np.float32, copy=False) @ across.T).astype(np.float32)


def _inverse(start: float, extent: float, n: int, length: int) -> tuple[float, float]:
    return (0.0 - start) / extent * n, (length - start) / extent * n
