"""The overlay picture of one plane: grey source, heat above a threshold, outlines, and a panel beside it.

The source image lies unmoved in the top-left corner, so that its pixel coordinates hold; panel and footer are added
to the right and below. Small images are enlarged by repeating pixels: no grey value is invented. Outside the heat
and the outlines every source pixel is exactly its windowed value, red = green = blue.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from dicomnode.detectors.contract import Array, DetectionResult, Region
from dicomnode.report import colours
from dicomnode.report.panel import Legend, Sheet, draw_footer, draw_panel, layout
from dicomnode.report.window import Window, grey

Bytes = npt.NDArray[np.uint8]
LEAST_SIZE = 512
_FINE = 4


@dataclass(frozen=True, slots=True)
class Picture:
    """``pixels``: shape (rows, columns, 3), uint8, RGB. ``scale``: how often each source pixel is repeated.

    The image proper is ``pixels[:source_rows * scale, :source_columns * scale]``, the rest of ``sheet`` is legend.
    """

    pixels: Bytes
    scale: int
    sheet: Sheet


def enlargement(shape: tuple[int, int]) -> int:
    """The integer factor that brings the longer side to 512 pixels or more; 1 for anything that large already."""
    return max(1, -(-LEAST_SIZE // max(shape)))


def draw(pixels: Array, window: Window, result: DetectionResult, index: int, legend: Legend) -> Picture:
    """The picture of plane ``index`` of ``result``; ``pixels``: the plane, shape (rows, columns)."""
    scale = enlargement((pixels.shape[0], pixels.shape[1]))
    image = tinted(grey(pixels, window), result.planes[index].heat, legend.display_threshold, scale)
    for region in regions_on(index, result):
        draw_outline(image, region, (scale, scale), max(1.5, max(image.shape[:2]) / 400))
    rows, columns = image.shape[:2]
    sheet = layout(rows, columns, legend)
    canvas = Image.new("RGB", (sheet.width, sheet.height))
    canvas.paste(Image.fromarray(image), (0, 0))
    draw_panel(canvas, sheet, legend)
    draw_footer(canvas, sheet, legend)
    return Picture(np.asarray(canvas), scale, sheet)


def regions_on(index: int, result: DetectionResult) -> list[Region]:
    """The regions of all findings that lie on plane ``index``."""
    return [region for finding in result.findings for region in finding.regions if region.plane == index]


def tinted(base: Bytes, heat: Array, threshold: float, scale: int = 1) -> Bytes:
    """Grey as RGB, enlarged, with the heat colours blended in where heat is at or above ``threshold``.

    ``base`` and ``heat``: shape (rows, columns); the answer: (rows * scale, columns * scale, 3).
    """
    enlarged = base if scale == 1 else base.repeat(scale, axis=0).repeat(scale, axis=1)
    image, hot = as_rgb(enlarged), _smoothly(heat, scale)
    shown = hot >= _lowest(threshold)
    if shown.any():
        part = _around(shown)
        within, values = shown[part], np.minimum(hot[part], 1.0)[shown[part]]
        image[part][within] = colours.blended(image[part][within], values, threshold)
    return image


def as_rgb(base: Bytes) -> Bytes:
    """Grey, shape (rows, columns), as RGB, shape (rows, columns, 3)."""
    image = np.empty((*base.shape, 3), np.uint8)
    for colour in range(3):
        image[..., colour] = base
    return image


def is_coloured(heat: Array, threshold: float) -> bool:
    """Whether ``tinted`` colours anything of a plane that is not enlarged; what is no number is never coloured."""
    return bool((heat >= _lowest(threshold)).any())


def _lowest(threshold: float) -> float:
    """Heat from which there is colour: where there is none at all, never."""
    return max(threshold, 1e-6)


def _around(shown: npt.NDArray[np.bool_]) -> tuple[slice, slice]:
    """The least rows and columns that hold everything that is true."""
    rows, columns = (np.flatnonzero(shown.any(axis=axis)) for axis in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _smoothly(heat: Array, scale: int) -> Array:
    if scale == 1:
        return heat
    size = (heat.shape[1] * scale, heat.shape[0] * scale)
    source = Image.fromarray(np.ascontiguousarray(heat, dtype=np.float32))
    return np.asarray(source.resize(size, Image.Resampling.BILINEAR), dtype=np.float32)


def draw_outline(image: Bytes, region: Region, scale: tuple[float, float], width: float) -> None:
    """Draw the closed contour into ``image``, anti-aliased, with a dark edge that keeps it visible on white.

    ``scale``: picture pixels per source pixel, (across, down); ``width``: of the line, in picture pixels.
    """
    points = np.asarray(region.contour, dtype=np.float64) * scale
    margin = int(np.ceil(2 * width)) + 2
    low = np.maximum(np.floor(points.min(axis=0)).astype(int) - margin, 0)
    high = np.minimum(np.ceil(points.max(axis=0)).astype(int) + margin, (image.shape[1], image.shape[0]))
    part = image[low[1] : high[1], low[0] : high[0]]
    if part.size == 0:
        return
    for line, colour in ((2.2 * width, colours.CONTOUR_EDGE), (width, colours.CONTOUR)):
        cover = _line_cover(points - low, (part.shape[1], part.shape[0]), line)[:, :, None]
        part[...] = np.rint(part * (1.0 - cover) + np.asarray(colour) * cover).astype(np.uint8)


def _line_cover(points: npt.NDArray[np.float64], size: tuple[int, int], width: float) -> npt.NDArray[np.float64]:
    """Share of each pixel that a line of ``width`` pixels covers, shape (rows, columns), 0..1."""
    fine = Image.new("L", (size[0] * _FINE, size[1] * _FINE))
    track = [(float(x) * _FINE - 0.5, float(y) * _FINE - 0.5) for x, y in points]
    ImageDraw.Draw(fine).line(track, fill=255, width=max(1, round(width * _FINE)), joint="curve")
    return np.asarray(fine.resize(size, Image.Resampling.BOX), dtype=np.float64) / 255.0
