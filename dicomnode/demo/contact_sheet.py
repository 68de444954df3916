"""One picture for people: per study its key images beside the overlays that the node sent."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Picture = npt.NDArray[np.uint8]
Pair = tuple[Picture, Picture, str]

BANNER = "RESEARCH – NOT FOR CLINICAL USE"
WIDTH = 2320
MAX_PAIRS = 2
_MARGIN, _GAP, _PAIR_GAP = 48, 8, 40
_WIDEST = 1.4
_TALL = {1: 720, 2: 440}
_PAGE, _CARD, _TEXT, _DIM = (13, 15, 18), (24, 27, 32), (236, 238, 240), (150, 158, 168)
_AMBER, _INK = (255, 176, 32), (20, 16, 8)
_MISSING_GLYPHS = str.maketrans({"–": "-", "—": "-", "≥": ">=", "≤": "<=", "→": "->", "×": "x", "µ": "u", "ß": "ss"})
_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True, slots=True)
class SheetRow:
    """One study. ``facts``: short statements below the title.

    ``pairs``: (source, overlay, caption) with pictures uint8 (rows, columns) or (rows, columns, 3); the first
    ``MAX_PAIRS`` are shown.
    """

    title: str
    facts: list[str] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)


def contact_sheet(rows: Sequence[SheetRow], path: Path) -> None:
    """Write the sheet as a PNG, ``WIDTH`` pixels wide, dark as a reading room. Raises ValueError without rows."""
    if not rows:
        raise ValueError("a contact sheet needs at least one row")
    cards = [_card(row) for row in rows]
    head = _head()
    height = head.height + sum(card.height + _MARGIN // 2 for card in cards) + _MARGIN // 2
    sheet = Image.new("RGB", (WIDTH, height), _PAGE)
    sheet.paste(head, (0, 0))
    y = head.height
    for card in cards:
        sheet.paste(card, (_MARGIN // 2, y))
        y += card.height + _MARGIN // 2
    sheet.save(path, format="PNG", optimize=True)


def _font(size: int) -> _Font:
    return ImageFont.load_default(size=size)


def _printable(text: str) -> str:
    """Spell what Pillow's built-in font cannot draw."""
    spelled = unicodedata.normalize("NFKD", text.translate(_MISSING_GLYPHS))
    return "".join(c if c.isascii() or c in "·°±" else "?" for c in spelled if not unicodedata.combining(c))


def _head() -> Image.Image:
    head = Image.new("RGB", (WIDTH, 116), _PAGE)
    draw = ImageDraw.Draw(head)
    draw.text((_MARGIN, 58), "dicomnode", _TEXT, _font(44), anchor="lm")
    draw.text((_MARGIN + 246, 62), "images as sent, beside the overlays as received", _DIM, _font(26), anchor="lm")
    font = _font(26)
    width = draw.textlength(_printable(BANNER), font)
    right = WIDTH - _MARGIN
    draw.rounded_rectangle((right - width - 40, 34, right, 82), 8, fill=_AMBER)
    draw.text((right - 20, 58), _printable(BANNER), _INK, font, anchor="rm")
    return head


def _card(row: SheetRow) -> Image.Image:
    pairs = row.pairs[:MAX_PAIRS]
    pictures = [_pair(pair, _TALL[len(pairs)]) for pair in pairs]
    lines = textwrap.wrap(_printable("   |   ".join(row.facts)), 185, break_long_words=False)
    top = 76 + 32 * len(lines) + 16
    body = max((picture.height for picture in pictures), default=44)
    card = Image.new("RGB", (WIDTH - _MARGIN, top + body + 28), _CARD)
    draw = ImageDraw.Draw(card)
    draw.text((_MARGIN // 2, 24), _printable(row.title), _TEXT, _font(34))
    for number, line in enumerate(lines):
        draw.text((_MARGIN // 2, 76 + 32 * number), line, _DIM, _font(24))
    x = _MARGIN // 2
    for picture in pictures:
        card.paste(picture, (x, top))
        x += picture.width + _PAIR_GAP
    if not pictures:
        draw.text((x, top), "No overlay was received for this study.", _AMBER, _font(26))
    return card


def _pair(pair: Pair, height: int) -> Image.Image:
    """Source and overlay, equally tall, so that the anatomy has about the same size in both."""
    source, overlay, caption = pair
    fitted = [_fit(picture, height) for picture in (source, overlay)]
    canvas = Image.new("RGB", (sum(picture.width for picture in fitted) + _GAP, height + 36), _CARD)
    draw = ImageDraw.Draw(canvas)
    left = 0
    for picture, label in zip(fitted, (f"sent: {caption}" if caption else "sent", "received"), strict=True):
        top = 36 + (height - picture.height) // 2
        draw.rectangle((left, 36, left + picture.width - 1, 36 + height - 1), fill=(0, 0, 0))
        canvas.paste(picture, (left, top))
        draw.text((left, 24), _printable(label), _DIM, _font(20), anchor="ls")
        left += picture.width + _GAP
    return canvas


def _fit(picture: Picture, height: int) -> Image.Image:
    """Scale to ``height`` pixels, aspect kept; a very wide picture to less. One of just that height stays as it is."""
    image = Image.fromarray(np.ascontiguousarray(picture, np.uint8)).convert("RGB")
    scale = min(height / image.height, _WIDEST * height / image.width)
    if scale == 1:
        return image
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)
