"""The bundled typeface of the report page and what it can write: Latin, Greek, Cyrillic, Armenian, Georgian and signs.

A text that it cannot write correctly is never written half: ``writable`` says so, and the page says so in its place.
Scripts that need another direction, joined letters or marks set over letters are not written either, as neither
painter sets them.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from pathlib import Path

from PIL import ImageFont
from reportlab.pdfbase.ttfonts import TTFont

FONTS = Path(__file__).with_name("fonts")
REGULAR, BOLD = "DejaVuSansCondensed", "DejaVuSansCondensed-Bold"
UNWRITABLE = "not shown: in letters that this page cannot write"
_MISSING = "\N{WHITE SQUARE}"
_SPELLED = {"x\N{COMBINING CIRCUMFLEX ACCENT}": "xhat"}
_LEFT_TO_RIGHT = frozenset(("L", "EN", "ES", "ET", "CS", "ON", "WS", "B", "S"))


@cache
def outlines(name: str) -> TTFont:
    """The typeface for PDF documents; ``name``: ``REGULAR`` or ``BOLD``."""
    return TTFont(name, str(FONTS / f"{name}.ttf"))


@cache
def raster(name: str, size: int) -> ImageFont.FreeTypeFont:
    """The typeface for pictures, ``size`` in pixels, set letter by letter: the same picture on every machine."""
    return ImageFont.truetype(FONTS / f"{name}.ttf", size, layout_engine=ImageFont.Layout.BASIC)


@cache
def _letters() -> frozenset[int]:
    return frozenset(outlines(REGULAR).face.charToGlyph) & frozenset(outlines(BOLD).face.charToGlyph)


def tidy(text: str) -> str:
    """``text`` composed (NFC), on one line, without control and formatting characters."""
    composed = unicodedata.normalize("NFC", text)
    spaced = "".join(" " if unicodedata.category(c) in ("Cc", "Zs", "Zl", "Zp") else c for c in composed)
    return " ".join("".join(c for c in spaced if unicodedata.category(c) != "Cf").split())


def _can_write(letter: str) -> bool:
    return (
        ord(letter) in _letters()
        and unicodedata.bidirectional(letter) in _LEFT_TO_RIGHT
        and not unicodedata.combining(letter)
        and unicodedata.category(letter) not in ("Mn", "Mc", "Me", "Co", "Cn")
    )


def writable(text: str) -> bool:
    """Whether every letter of ``text`` can be written as it should look."""
    return all(_can_write(letter) for letter in tidy(text))


def written(text: str) -> str:
    """``text`` as the page may write it; each letter that it cannot write becomes a hollow square.

    The hat of an estimate, which units of raw scores have, is spelled out.
    """
    for sign, words in _SPELLED.items():
        text = text.replace(sign, words)
    return "".join(letter if _can_write(letter) else _MISSING for letter in tidy(text))


def named(text: str) -> str:
    """A value from the source as the page may write it: whole, or the statement that it is not shown."""
    return tidy(text) if writable(text) else UNWRITABLE
