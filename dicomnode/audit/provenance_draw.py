"""The picture of a provenance as SVG and as PNG, by the libraries that are there already."""

from __future__ import annotations

import json
from html import escape
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from dicomnode.audit.provenance_picture import BOX_W, GAP_X, LINE_H, MARGIN, PAD, Box, Picture

LEGEND = "round: thing    square, double line: step    dashed: somebody    arrow: went into"
_FONT_SIZE = 13
_ARROW = 6


def to_svg(picture: Picture, title: str) -> str:
    """The picture as one SVG document, without scripts and without anything from elsewhere."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{picture.width}" height="{picture.height}" '
        f'viewBox="0 0 {picture.width} {picture.height}" role="img" font-family="sans-serif" '
        f'font-size="{_FONT_SIZE}" fill="#000" stroke="none">'
    )
    parts = [head, f"<title>{escape(title)}</title>", '<rect width="100%" height="100%" fill="#fff"/>']
    parts.append(_svg_text(MARGIN, MARGIN + _FONT_SIZE, title, "bold"))
    parts += [_svg_arrow(start.right, end.left) for start, end in picture.arrows]
    parts += [_svg_box(box) for box in picture.boxes]
    parts.append(_svg_text(MARGIN, picture.height - MARGIN, LEGEND))
    return "\n".join([*parts, "</svg>", ""])


def _svg_text(x: int, y: int, words: str, weight: str = "normal") -> str:
    return f'<text x="{x}" y="{y}" font-weight="{weight}" xml:space="preserve">{escape(words)}</text>'


def _svg_box(box: Box) -> str:
    radius = 12 if box.shape == "entity" else 0
    dashes = ' stroke-dasharray="5 3"' if box.shape == "agent" else ""
    given = f'x="{box.x}" y="{box.y}" width="{BOX_W}" height="{box.height}" rx="{radius}"'
    parts = [f'<rect {given} fill="#fff" stroke="#000" stroke-width="1.5"{dashes}/>']
    if box.shape == "activity":
        inner = f'x="{box.x + 3}" y="{box.y + 3}" width="{BOX_W - 6}" height="{box.height - 6}"'
        parts.append(f'<rect {inner} fill="none" stroke="#000"/>')
    for number, line in enumerate(box.lines):
        y = box.y + PAD + number * LINE_H + _FONT_SIZE
        parts.append(_svg_text(box.x + PAD + 2, y, line, "normal" if number else "bold"))
    return "".join(parts)


def _svg_arrow(start: tuple[int, int], end: tuple[int, int]) -> str:
    (x, y), (to_x, to_y), middle = start, end, end[0] - GAP_X // 2
    line = f'<path d="M{x} {y}H{middle}V{to_y}H{to_x}" fill="none" stroke="#000"/>'
    head = f"M{to_x} {to_y}l-{_ARROW} -{_ARROW // 2}v{_ARROW}z"
    return f'{line}<path d="{head}"/>'


def page(title: str, drawing: str, document: dict[str, Any]) -> str:
    """An HTML page with the picture and the JSON-LD beside it for programs. It loads nothing."""
    data = json.dumps(document, ensure_ascii=True).replace("<", "\\u003c")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        f'<script type="application/ld+json">{data}</script></head>\n<body>\n{drawing}</body></html>\n'
    )


def to_png(picture: Picture, title: str) -> Image.Image:
    """The picture as a grey image, two pixels for each of the layout's."""
    scale = 2
    image = Image.new("L", (picture.width * scale, picture.height * scale), 255)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(_FONT_SIZE * scale)
    draw.text((MARGIN * scale, MARGIN * scale), title, fill=0, font=font)
    for start, end in picture.arrows:
        _draw_arrow(draw, start.right, end.left, scale)
    for box in picture.boxes:
        _draw_box(draw, box, font, scale)
    draw.text((MARGIN * scale, (picture.height - MARGIN - LINE_H) * scale), LEGEND, fill=0, font=font)
    return image


def _draw_box(
    draw: ImageDraw.ImageDraw, box: Box, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, scale: int
) -> None:
    area = (box.x * scale, box.y * scale, (box.x + BOX_W) * scale, (box.y + box.height) * scale)
    if box.shape == "agent":
        draw.rectangle(area, fill=255)
        _draw_dashes(draw, area, scale)
    else:
        draw.rounded_rectangle(
            area, radius=12 * scale if box.shape == "entity" else 0, fill=255, outline=0, width=scale
        )
    if box.shape == "activity":
        inner = (area[0] + 3 * scale, area[1] + 3 * scale, area[2] - 3 * scale, area[3] - 3 * scale)
        draw.rectangle(inner, outline=0, width=1)
    for number, line in enumerate(box.lines):
        place = ((box.x + PAD + 2) * scale, (box.y + PAD + number * LINE_H) * scale)
        draw.text(place, line, fill=0, font=font)


def _draw_dashes(draw: ImageDraw.ImageDraw, area: tuple[int, int, int, int], scale: int) -> None:
    left, top, right, bottom = area
    for x in range(left, right, 8 * scale):
        for y in (top, bottom):
            draw.line((x, y, min(x + 5 * scale, right), y), fill=0, width=scale)
    for y in range(top, bottom, 8 * scale):
        for x in (left, right):
            draw.line((x, y, x, min(y + 5 * scale, bottom)), fill=0, width=scale)


def _draw_arrow(draw: ImageDraw.ImageDraw, start: tuple[int, int], end: tuple[int, int], scale: int) -> None:
    x, y, to_x, to_y = (value * scale for value in (*start, *end))
    middle = to_x - GAP_X // 2 * scale
    draw.line([(x, y), (middle, y), (middle, to_y), (to_x, to_y)], fill=0, width=scale)
    half, back = _ARROW // 2 * scale, to_x - _ARROW * scale
    draw.polygon([(to_x, to_y), (back, to_y - half), (back, to_y + half)], fill=0)
