"""The panel right of the picture and the footer under it: everything a reader needs to judge the colours.

Text keeps clear of the corners of the sheet, where viewers write; the banner sits bottom-centre.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dicomnode.report import colours

Colour = tuple[int, int, int]
_LINE = 1.36
_SCALE_LINES = 8.2
_GAP_LINES = 0.55
_HEAD_LINES = 3.3


@dataclass(frozen=True, slots=True)
class Legend:
    """The words and numbers of one picture. No patient data.

    ``scores`` and ``facts``: (label, value) lines. ``display_threshold``: heat from which colours are drawn;
    ``region_heat``: heat from which a pixel belongs to an outlined region, marked on the scale when it is known.
    ``notice_lines``: room for so many notices, for pictures of one Series to have one size.
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
    footer = round(font * (2.5 + _LINE * max(len(legend.notices), legend.notice_lines)))
    return Sheet(rows, columns, round(font * 15.5), body, footer, font)


def _lines(legend: Legend) -> float:
    """Height of the panel's content in lines."""
    return _HEAD_LINES + len(legend.scores) + _SCALE_LINES + len(legend.facts) + 3 * _GAP_LINES


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise TypeError("Pillow was built without FreeType")
    return font


def drawable(text: str) -> str:
    """``text`` in the letters that the built-in font has: Latin without accents, other dashes as hyphens."""
    plain = "".join("-" if unicodedata.category(c) == "Pd" else c for c in unicodedata.normalize("NFKD", text))
    return "".join(c for c in plain if " " <= c <= "~")


def _fitted(text: str, size: int, width: float) -> tuple[str, ImageFont.FreeTypeFont]:
    """``text`` and a font for it that fits ``width``: down to 80 % of ``size``, then cut with dots."""
    text = drawable(text)
    smallest = max(10, round(size * 0.8))
    while size > smallest and _font(size).getlength(text) > width:
        size -= 1
    font = _font(size)
    if font.getlength(text) > width:
        while text and font.getlength(text + "...") > width:
            text = text[:-1]
        text += "..."
    return text, font


def draw_panel(canvas: Image.Image, sheet: Sheet, legend: Legend) -> None:
    """Draw outcome, scores, colour scale and facts, centred over the height of the image."""
    pen = ImageDraw.Draw(canvas)
    pen.rectangle((sheet.columns, 0, sheet.width - 1, sheet.body - 1), fill=colours.PANEL)
    left, width = sheet.columns + sheet.font, sheet.panel - 2 * sheet.font
    step = sheet.font * _LINE
    top = (sheet.body - _lines(legend) * step) / 2
    colour = colours.FINDINGS if legend.alarming else colours.TEXT
    text, font = _fitted(legend.headline, round(sheet.font * 1.6), width)
    pen.text((left, top), text, fill=colour, font=font)
    pen.text((left, top + 1.75 * step), drawable(legend.subline), fill=colour, font=_font(sheet.font))
    top = _rows(pen, legend.scores, (left, top + _HEAD_LINES * step), width, sheet.font)
    top = _draw_scale(pen, legend, (left, top + _GAP_LINES * step), sheet.font) + _GAP_LINES * step
    pen.line((left, top, left + width, top), fill=colours.RULE, width=max(1, sheet.font // 12))
    _rows(pen, legend.facts, (left, top + _GAP_LINES * step), width, sheet.font)


def _rows(
    pen: ImageDraw.ImageDraw, rows: tuple[tuple[str, str], ...], at: tuple[float, float], width: float, size: int
) -> float:
    """Write label and value columns; answers the y below the last line."""
    left, top = at
    labels = max((_font(size).getlength(drawable(label)) for label, _ in rows), default=0.0) + size * 0.7
    for label, value in rows:
        pen.text((left, top + size), drawable(label), fill=colours.DIM_TEXT, font=_font(size), anchor="ls")
        text, font = _fitted(value, size, width - labels)
        pen.text((left + labels, top + size), text, fill=colours.TEXT, font=font, anchor="ls")
        top += size * _LINE
    return top


def _draw_scale(pen: ImageDraw.ImageDraw, legend: Legend, at: tuple[float, float], size: int) -> float:
    """Draw the colour scale 0..1: colours where heat is shown, hollow below, a mark where outlines begin."""
    left, top = at
    step = size * _LINE
    pen.text((left, top), "Anomaly heat", fill=colours.DIM_TEXT, font=_font(size))
    x, y, width, height = round(left), round(top + 1.6 * step), round(size * 1.5), round((_SCALE_LINES - 2.6) * step)
    values = 1.0 - np.arange(height) / (height - 1)
    for row, (red, green, blue) in enumerate(colours.heat_colours(values, legend.display_threshold).tolist()):
        if values[row] >= legend.display_threshold:
            pen.line((x, y + row, x + width, y + row), fill=(red, green, blue))
    pen.rectangle((x, y, x + width, y + height - 1), outline=colours.DIM_TEXT)
    _draw_ticks(pen, legend, (x + width, y, height), size)
    return top + _SCALE_LINES * step


def _draw_ticks(pen: ImageDraw.ImageDraw, legend: Legend, at: tuple[int, int, int], size: int) -> None:
    x, top, height = at
    small = _font(max(11, round(size * 0.9)))
    for value in np.linspace(0.0, 1.0, 5):
        y = top + (1.0 - value) * (height - 1)
        pen.line((x, y, x + size * 0.35, y), fill=colours.DIM_TEXT)
        pen.text((x + size * 0.55, y), f"{value:.2f}", fill=colours.DIM_TEXT, font=small, anchor="lm")
    tip = x + size * 2.7
    if legend.region_heat is not None:
        y = top + (1.0 - legend.region_heat) * (height - 1)
        pen.polygon(
            ((tip, y), (tip + size * 0.6, y - size * 0.35), (tip + size * 0.6, y + size * 0.35)), colours.CONTOUR
        )
        text = f"outlined from {legend.region_heat:.2f}"
        pen.text((tip + size * 0.9, y), text, fill=colours.TEXT, font=small, anchor="lm")
    hidden = top + (1.0 - legend.display_threshold / 2) * (height - 1)
    pen.text((tip, hidden), f"hidden below {legend.display_threshold:.2f}", colours.DIM_TEXT, small, anchor="lm")


def draw_footer(canvas: Image.Image, sheet: Sheet, legend: Legend) -> None:
    """Draw notices and, last and centred, the banner."""
    pen = ImageDraw.Draw(canvas)
    top = sheet.body
    pen.rectangle((0, top, sheet.width - 1, sheet.height - 1), fill=(0, 0, 0))
    pen.line((0, top, sheet.width, top), fill=colours.RULE, width=max(1, sheet.font // 12))
    y = top + sheet.font * 0.5
    for notice in legend.notices:
        text, font = _fitted(notice, sheet.font, sheet.width * 0.9)
        pen.text((sheet.width / 2, y), text, fill=colours.NOTICE, font=font, anchor="ma")
        y += sheet.font * _LINE
    text, font = _fitted(legend.banner, round(sheet.font * 1.25), sheet.width * 0.9)
    y = sheet.height - sheet.font * 1.8
    pen.text((sheet.width / 2, y), text, fill=colours.BANNER, font=font, anchor="ma")
