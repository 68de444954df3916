"""Crop-and-resize between a plane and a network grid, as two small matrices; no torch, deterministic."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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
