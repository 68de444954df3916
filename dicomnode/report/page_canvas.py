"""A painter that makes pixels, with Pillow."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from dicomnode.report.page_pen import Colour
from dicomnode.report.page_typeface import BOLD, REGULAR, raster

Bytes = npt.NDArray[np.uint8]


class PixelPage:
    """A page of ``size`` points, ``scale`` pixels per point."""

    def __init__(self, size: tuple[float, float], scale: float, paper: Colour) -> None:
        self._scale = scale
        self._canvas = Image.new("RGB", (round(size[0] * scale), round(size[1] * scale)), paper)
        self._pen = ImageDraw.Draw(self._canvas)

    @property
    def pixels(self) -> Bytes:
        """Shape (rows, columns, 3), uint8, RGB."""
        return np.asarray(self._canvas)

    def _size(self, size: float) -> int:
        return max(6, round(size * self._scale))

    def width(self, text: str, size: float, *, bold: bool) -> float:
        return raster(BOLD if bold else REGULAR, self._size(size)).getlength(text) / self._scale

    def text(self, at: tuple[float, float], text: str, size: float, colour: Colour, *, bold: bool) -> None:
        font = raster(BOLD if bold else REGULAR, self._size(size))
        self._pen.text((round(at[0] * self._scale), round(at[1] * self._scale)), text, colour, font, anchor="ls")

    def _box(self, box: tuple[float, float, float, float]) -> tuple[int, int, int, int]:
        left, top, right, bottom = (round(value * self._scale) for value in box)
        return left, top, max(left + 1, right), max(top + 1, bottom)

    def area(self, box: tuple[float, float, float, float], colour: Colour) -> None:
        left, top, right, bottom = self._box(box)
        self._pen.rectangle((left, top, right - 1, bottom - 1), fill=colour)

    def line(self, ends: tuple[float, float, float, float], colour: Colour, thickness: float) -> None:
        points = tuple(round(value * self._scale) for value in ends)
        self._pen.line(points, fill=colour, width=max(1, round(thickness * self._scale)))

    def image(self, box: tuple[float, float, float, float], pixels: Bytes) -> None:
        left, top, right, bottom = self._box(box)
        picture = Image.fromarray(np.ascontiguousarray(pixels))
        self._canvas.paste(picture.resize((right - left, bottom - top), Image.Resampling.LANCZOS), (left, top))
