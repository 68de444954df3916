"""Brushes for synthetic lesions on a square grid of ``size`` pixels; all random numbers from a numpy generator."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from dicomnode.detectors.contract import Array, Mask

Random = np.random.Generator
Point = tuple[float, float]
Numbers = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Canvas:
    """The grid that lesions are painted on."""

    size: int

    @cached_property
    def rows(self) -> Array:
        return np.asarray(np.mgrid[: self.size, : self.size][0], np.float32)

    @cached_property
    def columns(self) -> Array:
        return np.asarray(np.mgrid[: self.size, : self.size][1], np.float32)

    def clouds(self, draw: Random, scale: float) -> Array:
        """A smooth random field of unit variance whose features are about ``scale`` pixels wide."""
        cells = max(3, round(self.size / scale) + 2)
        small = torch.from_numpy(draw.standard_normal((cells, cells)).astype(np.float32))[None, None]
        field = F.interpolate(small, size=(self.size, self.size), mode="bicubic", align_corners=True)[0, 0].numpy()
        return np.asarray(field / (field.std() + 1e-6), np.float32)

    def place(self, draw: Random, where: Mask) -> Point:
        """A random pixel of ``where``; the middle when there is none."""
        inside = np.flatnonzero(where)
        chosen = int(inside[draw.integers(len(inside))]) if inside.size else where.size // 2 + self.size // 2
        return float(chosen // self.size), float(chosen % self.size)

    def distance(self, centre: Point) -> Array:
        """Distance of every pixel from ``centre``, pixels."""
        return np.asarray(np.hypot(self.rows - centre[0], self.columns - centre[1]), np.float32)

    def turned(self, centre: Point, angle: float) -> tuple[Array, Array]:
        """Coordinates along and across a line through ``centre``, pixels."""
        r, c = self.rows - centre[0], self.columns - centre[1]
        return c * np.cos(angle) + r * np.sin(angle), -c * np.sin(angle) + r * np.cos(angle)

    def blob(self, draw: Random, centre: Point, radius: float, rough: float = 0.35) -> Array:
        """How far inside a ragged ellipse each pixel is, pixels; negative outside."""
        along, across = self.turned(centre, draw.uniform(0, np.pi))
        across = across / draw.uniform(0.5, 1.0)
        ragged = 1 + rough * self.clouds(draw, max(3.0, draw.uniform(0.5, 1.2) * radius))
        return np.asarray(radius * ragged - np.hypot(along, across), np.float32)


def soft(inside: Numbers, edge: float) -> Array:
    """A distance inside, pixels, as 0..1 with an edge of ``edge`` pixels."""
    return np.asarray(1 / (1 + np.exp(-np.clip(inside / edge, -30, 30))), np.float32)


def log_uniform(draw: Random, low: float, high: float) -> float:
    """A number between ``low`` and ``high``, each factor as likely."""
    return float(np.exp(draw.uniform(np.log(low), np.log(high))))
