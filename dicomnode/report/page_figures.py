"""The blocks of pictures on a report page: large images, the Series at a glance, scores along it, colour scale."""

from __future__ import annotations

from dicomnode.report import colours
from dicomnode.report.page_blocks import Column
from dicomnode.report.page_pen import Pen
from dicomnode.report.page_pictures import Gallery, Shot, colour_bar

_SMALL, _LEAST, _PAIR = 0.86, 40.0, 58.0
_BLACK, _WHITE = (0, 0, 0), (245, 245, 245)


def large(pen: Pen, top: float, column: Column, gallery: Gallery, height: float, *, side_by_side: bool) -> float:
    """The large pictures with their captions in ``height``, beside or below each other; answers where they end."""
    shots = gallery.shots if side_by_side else gallery.shots[:1]
    ends = [top]
    for place, shot in enumerate(shots):
        ends.append(_shot(pen, top, column.part(place, max(1, len(shots)), pen.body), shot, height))
    return max(ends)


def captions(pen: Pen) -> float:
    """Room for the two lines under a large picture."""
    return 2.3 * pen.step


def _shot(pen: Pen, top: float, column: Column, shot: Shot, height: float) -> float:
    tall = min(height - captions(pen), column.width / shot.aspect)
    wide = tall * shot.aspect
    left = column.left + (column.width - wide) / 2
    pen.painter.area((column.left, top, column.right, top + tall), _BLACK)
    pen.painter.image((left, top, left + wide, top + tall), shot.pixels)
    _side(pen, (left + 0.3 * pen.body, top + tall / 2 - 0.7 * pen.body), shot.left)
    _side(pen, (left + wide / 2, top + 0.2 * pen.body), shot.top)
    below = pen.write(column.left, top + tall + 0.2 * pen.body, pen.fitted(shot.caption, column.width, bold=True),
                      pen.palette.text, bold=True)  # fmt: skip
    return pen.write(column.left, below, pen.fitted(shot.detail, column.width, _SMALL), pen.palette.dim, _SMALL)


def _side(pen: Pen, at: tuple[float, float], letter: str) -> None:
    """The patient's side at an edge, readable on any picture."""
    if letter:
        box = (at[0], at[1], at[0] + pen.wide(letter, bold=True) + 0.4 * pen.body, at[1] + 1.3 * pen.body)
        pen.painter.area(box, _BLACK)
        pen.write(at[0] + 0.2 * pen.body, at[1], letter, _WHITE, bold=True)


def thumbs(pen: Pen, top: float, column: Column, gallery: Gallery, height: float) -> float:
    """The Series at a glance, at most ``height`` high without its text; nothing below 40 points."""
    if gallery.thumbs is None or height < _LEAST:
        return top
    rows, columns = gallery.thumbs.shape[:2]
    lines = pen.wrapped(gallery.thumbs_text, column.width, 2, _SMALL)
    tall = min(height, column.width * rows / columns)
    wide = tall * columns / rows
    left = column.left + (column.width - wide) / 2
    pen.painter.area((column.left, top, column.right, top + tall), _BLACK)
    pen.painter.image((left, top, left + wide, top + tall), gallery.thumbs)
    top += tall + 0.2 * pen.body
    for line in lines:
        top = pen.write(column.left, top, line, pen.palette.dim, _SMALL)
    return top + 0.2 * pen.body


def pair(pen: Pen, top: float, column: Column, gallery: Gallery, height: float) -> float:
    """A finding and its nearest healthy patch beside each other, words at their right; nothing below 40 points."""
    own = gallery.pair
    if own is None or height < _LEAST:
        return top
    tall = min(height, _PAIR)
    left, gap = column.left, 0.4 * pen.body
    for pixels in (own.finding, own.healthy):
        wide = tall * pixels.shape[1] / pixels.shape[0]
        pen.painter.image((left, top, left + wide, top + tall), pixels)
        left += wide + gap
    room = column.right - left - gap
    below = pen.write(left + gap, top, pen.fitted(own.title, room, _SMALL, bold=True), pen.palette.text, _SMALL,
                      bold=True)  # fmt: skip
    lines = max(1, int((tall - pen.step * _SMALL) / (pen.step * _SMALL)))
    below = pen.paragraph(left + gap, below, room, own.text, pen.palette.dim, lines, _SMALL)
    return max(top + tall, below) + 0.4 * pen.body


def profile(pen: Pen, top: float, column: Column, gallery: Gallery) -> float:
    """The score of every image as a bar, in the order of the Series; images with regions stand out."""
    n = len(gallery.profile)
    if not n:
        return top
    tall, width = 2.6 * pen.body, column.width / n
    pen.painter.area((column.left, top, column.right, top + tall), pen.palette.tint)
    for index, score in enumerate(gallery.profile):
        left = column.left + index * width
        box = (left, top + tall * (1 - max(0.02, score or 0.0)), left + max(0.5, width * 0.8), top + tall)
        colour = pen.palette.alarm if index in gallery.marked else pen.palette.dim
        if score is not None:
            pen.painter.area(box, colour)
    text = f"Image score (0 to 1), image 1 to {n}; in colour: with regions; gaps: not analysed"
    return pen.write(column.left, top + tall, pen.fitted(text, column.width, _SMALL), pen.palette.dim, _SMALL)


def scale(pen: Pen, top: float, column: Column, gallery: Gallery) -> float:
    """What the colours and the outlines mean, on one line."""
    left, dim, middle = column.left, pen.palette.dim, top + 0.6 * pen.body
    pen.write(left, top, "Heat 0", dim, _SMALL)
    left += pen.wide("Heat 0 ", _SMALL)
    bar = min(column.width * 0.26, 12 * pen.body)
    pen.painter.image((left, top + 0.15 * pen.body, left + bar, top + pen.body), colour_bar(gallery.lowest))
    left += bar + 0.4 * pen.body
    text = f"1; grey: not shown, below {gallery.lowest:.2f}"
    pen.write(left, top, text, dim, _SMALL)
    left += pen.wide(text, _SMALL) + 1.2 * pen.body
    pen.painter.line((left, middle, left + 1.6 * pen.body, middle), colours.CONTOUR_EDGE, 2.6)
    pen.painter.line((left, middle, left + 1.6 * pen.body, middle), colours.CONTOUR, 1.2)
    left += 2.0 * pen.body
    text = "finding" if gallery.outlined is None else f"finding, from {gallery.outlined:.2f}"
    pen.write(left, top, pen.fitted(text, column.right - left, _SMALL), dim, _SMALL)
    return top + pen.step
