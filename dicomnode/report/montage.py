"""A long Series at a glance: thumbnails of its overlay pictures in order, each with its number and score.

The panel and the footer are those of a single picture. Images with regions have a frame; where not all images fit,
the picture says how many it shows and whether images with regions are missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from pydicom.dataset import Dataset

from dicomnode.detectors.contract import DetectionResult, Plane, Volume
from dicomnode.report import colours
from dicomnode.report.context import ReportContext
from dicomnode.report.geometry import pixel_distance
from dicomnode.report.legend import series_legend
from dicomnode.report.lettering import fitted, write
from dicomnode.report.overlay import as_rgb, draw_outline, is_coloured, regions_on, tinted
from dicomnode.report.panel import Sheet, draw_footer, draw_panel, layout, layout_within
from dicomnode.report.scores import score_texts
from dicomnode.report.window import Window, grey, windows_of

Bytes = npt.NDArray[np.uint8]
LONG_SERIES = 12
"""A Series with more planes than this gets a montage in front of its pictures."""

COLUMNS, LIMIT = 6, 24
_CELL, _LEAST_CELL = 200, 84
_GAP = 6


@dataclass(frozen=True, slots=True)
class _Grid:
    """Cells of ``width`` x ``height`` pixels, of which the lowest ``label`` carry the text."""

    columns: int
    width: int
    height: int
    label: int

    def rows(self, n: int) -> int:
        return ceil(n / self.columns)

    def size(self, n: int) -> tuple[int, int]:
        """Rows and columns of pixels of ``n`` cells."""
        return self.rows(n) * self.height, self.columns * self.width

    def place(self, position: int, width: int) -> tuple[int, int]:
        """Left and top of a cell; the columns are centred over ``width`` pixels."""
        row, column = divmod(position, self.columns)
        return (width - self.columns * self.width) // 2 + column * self.width, row * self.height


def is_long(volume: Volume) -> bool:
    """Whether the Series gets a montage: more than 12 planes."""
    return len(volume.planes) > LONG_SERIES


def selected(result: DetectionResult, limit: int) -> tuple[int, ...]:
    """At most ``limit`` planes, in order: all if they fit, else the most suspicious and evenly spaced ones.

    Half of the places go to the planes with regions, and then to the planes with the greatest score.
    """
    n = len(result.planes)
    if n <= limit:
        return tuple(range(n))
    marked = {region.plane for finding in result.findings for region in finding.regions}
    ranked = sorted(
        (index for index in range(n) if not result.planes[index].left_out),
        key=lambda index: (index not in marked, -result.planes[index].score, index),
    )
    chosen = set(ranked[: max(1, limit // 2)])
    for count in range(limit, 0, -1):
        spaced = {int(place) for place in np.linspace(0, n - 1, count).round()}
        if len(chosen | spaced) <= limit:
            return tuple(sorted(chosen | spaced))
    return tuple(sorted(chosen))


def montage(
    volume: Volume,
    headers: Sequence[Dataset],
    result: DetectionResult,
    context: ReportContext,
    *,
    columns: int = COLUMNS,
    limit: int = LIMIT,
    like: Sheet | None = None,
) -> Bytes:
    """The montage with panel and banner, shape (rows, columns, 3), uint8, RGB.

    ``columns``: thumbnails per row, each about 200 pixels wide; ``limit``: how many at most. ``like``: the sheet of
    another picture, to get a montage of just that size, with as many columns and images as stay readable in it.

    Raises ValueError for a result without score or calibration, or for a limit or columns below 1.
    """
    if columns < 1 or limit < 1:
        raise ValueError("a montage has at least one image")
    own = dict(enumerate(windows_of(volume, headers)))
    aspect = max(_aspect(plane, header) for plane, header in zip(volume.planes, headers, strict=True))
    if like is None:
        shown = selected(result, limit)
        grid = _grid(min(columns, len(shown)), _CELL, aspect)
    else:
        # a footer that tells of missing images is taller by a line: allow for it before choosing
        least = layout_within(like, series_legend(volume, headers, result, context, {}))
        grid, shown = _filling((least.body, least.columns), result, limit, aspect)
    legend = series_legend(volume, headers, result, context, {index: own[index] for index in shown})
    sheet = layout(*grid.size(len(shown)), legend) if like is None else layout_within(like, legend)
    canvas = Image.new("RGB", (sheet.width, sheet.height))
    cells = [
        _thumbnail(volume.planes[i], _aspect(volume.planes[i], headers[i]), own[i], result, i, context, grid)
        for i in shown
    ]
    _paste(canvas, cells, shown, grid, sheet.columns, result)
    draw_panel(canvas, sheet, legend)
    draw_footer(canvas, sheet, legend)
    return np.asarray(canvas)


def _grid(columns: int, width: int, aspect: float) -> _Grid:
    label = max(16, round(width / 9))
    return _Grid(columns, width, round((width - _GAP) * aspect) + _GAP + label, label)


def _filling(
    area: tuple[int, int], result: DetectionResult, limit: int, aspect: float
) -> tuple[_Grid, tuple[int, ...]]:
    """The grid with the widest thumbnails that fill ``area`` (rows, columns), with fewer of them if they get tiny."""
    for count in range(min(limit, len(result.planes)), 0, -1):
        fitting = (_fitting(columns, ceil(count / columns), area, aspect) for columns in range(1, count + 1))
        grid = max(fitting, key=lambda one: one.width)
        if grid.width >= _LEAST_CELL or count == 1:
            break
    return grid, selected(result, count)


def _fitting(columns: int, rows: int, area: tuple[int, int], aspect: float) -> _Grid:
    width = area[1] // columns
    while width > 2 * _GAP and _grid(columns, width, aspect).height * rows > area[0]:
        width -= 1
    return _grid(columns, width, aspect)


def thumbnails(
    volume: Volume,
    headers: Sequence[Dataset],
    result: DetectionResult,
    context: ReportContext,
    shown: Sequence[int],
    *,
    columns: int = COLUMNS,
    cell: int = _CELL,
) -> Bytes:
    """Only the thumbnails of the planes ``shown``, without panel and banner; shape (rows, columns, 3), uint8, RGB.

    ``cell``: width of a thumbnail with its margin in pixels. For pages that carry legend and banner themselves.

    Raises ValueError when there is nothing to show.
    """
    if not shown or columns < 1:
        raise ValueError("a montage has at least one image")
    own = windows_of(volume, headers)
    grid = _grid(min(columns, len(shown)), cell, max(_aspect(volume.planes[i], headers[i]) for i in shown))
    rows, width = grid.size(len(shown))
    canvas = Image.new("RGB", (width, rows))
    cells = [
        _thumbnail(volume.planes[i], _aspect(volume.planes[i], headers[i]), own[i], result, i, context, grid)
        for i in shown
    ]
    _paste(canvas, cells, shown, grid, width, result)
    return np.asarray(canvas)


def _paste(
    canvas: Image.Image,
    cells: Sequence[Bytes],
    shown: Sequence[int],
    grid: _Grid,
    width: int,
    result: DetectionResult,
) -> None:
    for position, (image, index) in enumerate(zip(cells, shown, strict=True)):
        _draw_cell(canvas, image, grid.place(position, width), grid, result, index)


def _aspect(plane: Plane, header: Dataset) -> float:
    """Height over width of the plane as it is in the patient, kept within 1:4 to 4:1."""
    down, across = pixel_distance(plane, header) or (1.0, 1.0)
    rows, columns = plane.shape
    return min(max(rows * down / (columns * across), 0.25), 4.0)


def _thumbnail(
    plane: Plane,
    aspect: float,
    window: Window,
    result: DetectionResult,
    index: int,
    context: ReportContext,
    grid: _Grid,
) -> Bytes:
    """The overlay of one plane, scaled into a cell; outlines are drawn after, to stay visible."""
    box = (grid.width - _GAP, grid.height - _GAP - grid.label)
    width = max(1, min(box[0], round(box[1] / aspect)))
    height = max(1, min(box[1], round(width * aspect)))
    own, whole = result.planes[index].heat, grey(plane.pixels, window)
    coloured = is_coloured(own, context.display_threshold)
    shown = Image.fromarray(tinted(whole, own, context.display_threshold) if coloured else whole)
    reduced = np.array(shown.resize((width, height), Image.Resampling.BOX))
    small = reduced if coloured else as_rgb(reduced)
    rows, columns = plane.shape
    for region in regions_on(index, result):
        draw_outline(small, region, (width / columns, height / rows), 1.5)
    return small


def _draw_cell(
    canvas: Image.Image, image: Bytes, at: tuple[int, int], grid: _Grid, result: DetectionResult, index: int
) -> None:
    """Paste one thumbnail, write its number and score under it, and frame it when regions lie on it."""
    pen = ImageDraw.Draw(canvas)
    left, top = at
    inner = (left + _GAP // 2, top + _GAP // 2)
    width, height = grid.width - _GAP, grid.height - _GAP - grid.label
    marked = bool(regions_on(index, result))
    canvas.paste(
        Image.fromarray(image),
        (inner[0] + (width - image.shape[1]) // 2, inner[1] + (height - image.shape[0]) // 2),
    )
    size = max(11, round(grid.label * 0.72))
    base = top + grid.height - _GAP // 2 - round(grid.label * 0.28)
    write(pen, (inner[0] + 4, base), str(index + 1), size, colours.TEXT, "ls")
    said, colour = _said(result, index), colours.FINDINGS if marked else colours.DIM_TEXT
    write(pen, (inner[0] + width - 4, base), *fitted(said, size, width * 0.7), colour, "rs")
    if marked:
        frame = (left + 1, top + 1, left + grid.width - 2, top + grid.height - 2)
        pen.rectangle(frame, outline=colours.FINDINGS, width=2)


def _said(result: DetectionResult, index: int) -> str:
    if result.planes[index].left_out or result.calibration is None:
        return "not analysed"
    return score_texts(result.planes[index].score, result.calibration.threshold)[0]
