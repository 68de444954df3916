"""Words in a picture, in Pillow's built-in font. Pictures of a Series say mostly the same: a word is drawn once.

What is kept is a few hundred small masks, for whichever picture comes next; no legend holds patient data.
"""

from __future__ import annotations

import unicodedata
from functools import cache, lru_cache
from math import ceil, floor, modf

from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
_KEPT = 512
_MARGIN = 2
"""Pixels that hinting and the part of a pixel may add to a font's own box."""


@cache
def font_of(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's built-in font, ``size`` pixels high. Raises TypeError when Pillow was built without FreeType."""
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise TypeError("Pillow was built without FreeType")
    return font


@lru_cache(_KEPT)
def drawable(text: str) -> str:
    """``text`` in the letters that the built-in font has: Latin without accents, other dashes as hyphens."""
    plain = "".join("-" if unicodedata.category(c) == "Pd" else c for c in unicodedata.normalize("NFKD", text))
    return "".join(c for c in plain if " " <= c <= "~")


@lru_cache(_KEPT)
def wide(text: str, size: int) -> float:
    """How wide ``text``, which is drawable, is in pixels."""
    return font_of(size).getlength(text)


@lru_cache(_KEPT)
def fitted(text: str, size: int, width: float) -> tuple[str, int]:
    """``text`` and a font size for it that fits ``width``: down to 80 % of ``size``, then cut with dots."""
    text = drawable(text)
    smallest = max(10, round(size * 0.8))
    while size > smallest and wide(text, size) > width:
        size -= 1
    if wide(text, size) > width:
        while text and wide(text + "...", size) > width:
            text = text[:-1]
        text += "..."
    return text, size


def write(
    pen: ImageDraw.ImageDraw, at: tuple[float, float], text: str, size: int, colour: Colour, anchor: str = "la"
) -> None:
    """Write ``text``, which is drawable, pixel for pixel as ``pen.text`` does. ``at``: not left of or above the
    picture; ``anchor``: as Pillow names them."""
    (across, x), (down, y) = modf(at[0]), modf(at[1])
    mask, left, top = _mask(text, size, anchor, across, down)
    pen.bitmap((int(x) + left, int(y) + top), mask, colour)


@lru_cache(_KEPT)
def _mask(text: str, size: int, anchor: str, across: float, down: float) -> tuple[Image.Image, int, int]:
    """How much of each pixel ``text`` covers, and where that lies from the whole pixel it is written at.

    ``across``, ``down``: the rest of the place, less than a pixel.
    """
    font = font_of(size)
    left, top, right, bottom = font.getbbox(text, anchor=anchor)
    left, top = min(0, floor(left) - _MARGIN), min(0, floor(top) - _MARGIN)  # Pillow rounds towards zero
    mask = Image.new("L", (ceil(right) - left + _MARGIN, ceil(bottom) - top + _MARGIN))
    ImageDraw.Draw(mask).text((across - left, down - top), text, 255, font, anchor=anchor)
    return mask, left, top
