"""The panel right of the picture and the footer under it: everything a reader needs to judge the colours.

Text keeps clear of the corners of the sheet, where viewers write; the banner sits bottom-centre.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from dicomnode.report import colours
from dicomnode.report.lettering import drawable, fitted, wide, write

_LINE = 1.36
_SCALE_LINES = 8.2
_GAP_LINES = 0.55
_HEAD_LINES = 3.3


@dataclass(frozen=True, slots=True)
class Legend:
    """The words and numbers of one picture. No patient data.

    ``scores`` and ``facts``: (label, value) lines. ``display_threshold``: heat from which colours are drawn;
    ``region_heat``: heat from which a pixel belongs to an outlined region, marked on the scale when it is known.
    ``notice_lines``: room for so many notices, for pictures of one Series to have one size. ``meaning``: what the
    scores stand for, written small under the notices.
    """

    headline: str
    subline: str
    alarming: bool
    scores: tuple[tuple[str, str], ...]
    facts: tuple[tuple[str, str], ...]
    display_threshold: float
    banner: str
    region_heat: float | None = None
    notices: tuple[str, ...] = ()
    notice_lines: int = 0
    meaning: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sheet:
    """Sizes in pixels: the image in the top-left corner, the panel right of it, the footer below both."""

    rows: int
    columns: int
    panel: int
    body: int
    footer: int
    font: int

    @property
    def width(self) -> int:
        return self.columns + self.panel

    @property
    def height(self) -> int:
        return self.body + self.footer


def layout(rows: int, columns: int, legend: Legend) -> Sheet:
    """The sheet for an image of ``rows`` x ``columns``: type grows with the image, from 14 pixels on."""
    font = max(14, round(min(rows, columns * 1.25) / 38))
    body = max(rows, round((_lines(legend) + 1.6) * font * _LINE))
    return Sheet(rows, columns, round(font * 15.5), body, _footer(font, legend), font)


def layout_within(sheet: Sheet, legend: Legend) -> Sheet:
    """A sheet of the same size as ``sheet`` for another legend: what its footer needs, the image area gives."""
    footer = _footer(sheet.font, legend)
    body = sheet.height - footer
    return Sheet(body, sheet.columns, sheet.panel, body, footer, sheet.font)


def _footer(font: int, legend: Legend) -> int:
    lines = max(len(legend.notices), legend.notice_lines) + len(legend.meaning)
    return round(font * (2.8 + _LINE * lines))


def _lines(legend: Legend) -> float:
    """Height of the panel's content in lines."""
    return _HEAD_LINES + len(legend.scores) + _SCALE_LINES + len(legend.facts) + 3 * _GAP_LINES


def draw_panel(canvas: Image.Image, sheet: Sheet, legend: Legend) -> None:
    """Draw outcome, scores, colour scale and facts, centred over the height of the image."""
    pen = ImageDraw.Draw(canvas)
    pen.rectangle((sheet.columns, 0, sheet.width - 1, sheet.body - 1), fill=colours.PANEL)
    left, width = sheet.columns + sheet.font, sheet.panel - 2 * sheet.font
    step = sheet.font * _LINE
    top = (sheet.body - _lines(legend) * step) / 2
    colour = colours.FINDINGS if legend.alarming else colours.TEXT
    write(pen, (left, top), *fitted(legend.headline, round(sheet.font * 1.6), width), colour)
    write(pen, (left, top + 1.75 * step), drawable(legend.subline), sheet.font, colour)
    top = _rows(pen, legend.scores, (left, top + _HEAD_LINES * step), width, sheet.font)
    top = _draw_scale(canvas, sheet, legend, (left, top + _GAP_LINES * step)) + _GAP_LINES * step
    pen.line((left, top, left + width, top), fill=colours.RULE, width=max(1, sheet.font // 12))
    _rows(pen, legend.facts, (left, top + _GAP_LINES * step), width, sheet.font)


def _rows(
    pen: ImageDraw.ImageDraw, rows: tuple[tuple[str, str], ...], at: tuple[float, float], width: float, size: int
) -> float:
    """Write label and value columns; answers the y below the last line."""
    left, top = at
    labels = max((wide(drawable(label), size) for label, _ in rows), default=0.0) + size * 0.7
    for label, value in rows:
        write(pen, (left, top + size), drawable(label), size, colours.DIM_TEXT, "ls")
        write(pen, (left + labels, top + size), *fitted(value, size, width - labels), colours.TEXT, "ls")
        top += size * _LINE
    return top


def _draw_scale(canvas: Image.Image, sheet: Sheet, legend: Legend, at: tuple[int, float]) -> float:
    """Draw the scale, of which all pictures of a Series have the same; answers the y below it."""
    left, top = at
    width = sheet.width - left
    canvas.paste(_scale(legend.display_threshold, legend.region_heat, sheet.font, width, top % 1.0), (left, int(top)))
    return top + _SCALE_LINES * sheet.font * _LINE


@lru_cache(maxsize=4)
def _scale(lowest: float, region_heat: float | None, size: int, room: int, top: float) -> Image.Image:
    """The scale 0..1 as the picture has it: over black to white tissue, uncoloured where heat is not shown.

    ``room``: width of the answer; ``top``: where it begins, less than a pixel down.
    """
    step = size * _LINE
    canvas = Image.new("RGB", (room, ceil(top + _SCALE_LINES * step)), colours.PANEL)
    pen = ImageDraw.Draw(canvas)
    write(pen, (0, top), "Anomaly heat, 0 to 1", size, colours.DIM_TEXT)
    y, width, height = round(top + 1.6 * step), round(size * 1.6), round((_SCALE_LINES - 2.6) * step)
    canvas.paste(Image.fromarray(scale_bar(height, width, lowest)), (0, y))
    pen.rectangle((0, y, width, y + height - 1), outline=colours.DIM_TEXT)
    _draw_ticks(pen, lowest, region_heat, (width, y, height), size)
    return canvas


def _places(lowest: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The scale's nodes: heat, and height as a share of the bar. What has no colour gets the lowest fifth."""
    return ((0.0, 1.0), (0.0, 1.0)) if lowest <= 0.0 else ((0.0, min(lowest, 1.0 - 1e-6), 1.0), (0.0, 0.2, 1.0))


def scale_bar(height: int, width: int, lowest: float) -> npt.NDArray[np.uint8]:
    """The colour scale, shape (height, width, 3): heat rises upwards, the grey under it from left to right."""
    heats, shares = _places(lowest)
    heat = np.repeat(np.interp(1.0 - np.arange(height) / (height - 1), shares, heats), width)
    tissue = np.tile(np.rint(np.linspace(0, 255, width)).astype(np.uint8), height)
    colour = np.stack([tissue] * 3, axis=1)
    shown = heat >= lowest
    colour[shown] = colours.blended(colour[shown], heat[shown], lowest)
    return colour.reshape(height, width, 3)


def _draw_ticks(
    pen: ImageDraw.ImageDraw, lowest: float, region_heat: float | None, at: tuple[int, int, int], size: int
) -> None:
    x, top, height = at
    heats, shares = _places(lowest)
    small = max(11, round(size * 0.9))

    def level(value: float) -> float:
        return top + (1.0 - float(np.interp(value, heats, shares))) * (height - 1)

    for value in (0.0, *np.linspace(heats[-2], 1.0, 4)):
        pen.line((x, level(value), x + size * 0.35, level(value)), fill=colours.DIM_TEXT)
        write(pen, (x + size * 0.55, level(value)), f"{value:.2f}", small, colours.DIM_TEXT, "lm")
    tip = x + size * 2.7
    if region_heat is not None:
        y, half = level(region_heat), size * 0.35
        pen.polygon(((tip, y), (tip + size * 0.6, y - half), (tip + size * 0.6, y + half)), colours.CONTOUR)
        write(pen, (tip + size * 0.9, y), f"outline from {region_heat:.2f}", small, colours.TEXT, "lm")
    if lowest > 0.0:
        write(pen, (tip, level(lowest / 2)), f"no colour below {lowest:.2f}", small, colours.DIM_TEXT, "lm")


def draw_footer(canvas: Image.Image, sheet: Sheet, legend: Legend) -> None:
    """Draw notices, what the scores mean and, last and centred, the banner."""
    canvas.paste(
        _footer_of(legend.notices, legend.meaning, legend.banner, sheet.font, sheet.width, sheet.footer),
        (0, sheet.body),
    )
    rule = (0, sheet.body, sheet.width, sheet.body)
    ImageDraw.Draw(canvas).line(rule, fill=colours.RULE, width=max(1, sheet.font // 12))


@lru_cache(maxsize=4)
def _footer_of(
    notices: tuple[str, ...], meaning: tuple[str, ...], banner: str, size: int, width: int, height: int
) -> Image.Image:
    """The footer, which is the same on most pictures of a Series."""
    canvas = Image.new("RGB", (width, height))
    pen = ImageDraw.Draw(canvas)
    y = size * 0.5
    for notice in notices:
        write(pen, (width / 2, y), *fitted(notice, size, width * 0.9), colours.NOTICE, "ma")
        y += size * _LINE
    y = height - size * (2.2 + _LINE * len(meaning))
    for line in meaning:
        write(pen, (width / 2, y), *fitted(line, round(size * 0.9), width * 0.95), colours.DIM_TEXT, "ma")
        y += size * _LINE
    write(pen, (width / 2, height - size * 1.8), *fitted(banner, round(size * 1.25), width * 0.9), colours.BANNER, "ma")
    return canvas
