"""The blocks of words on a report page. Each writes from a top edge down, inside a width, and answers where it ends.

A block's height is bounded whatever the texts are: long texts are cut visibly, never written over something else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dicomnode.report.page_content import Facts, Figure, FindingLine, PageContent
from dicomnode.report.page_pen import Colour, Pen

_SMALL, _BIG, _HUGE = 0.86, 1.3, 2.6


@dataclass(frozen=True, slots=True)
class Column:
    """Where a block may write: ``left`` edge and ``width`` in points."""

    left: float
    width: float

    @property
    def right(self) -> float:
        return self.left + self.width

    def part(self, index: int, count: int, gap: float) -> Column:
        """The ``index``-th of ``count`` columns of equal width, ``gap`` apart."""
        width = (self.width - gap * (count - 1)) / count
        return Column(self.left + index * (width + gap), width)


def title(pen: Pen, top: float, column: Column, content: PageContent) -> float:
    """The kind of document and, at the right, when it was made and by what."""
    made = " | ".join(value for label, value in content.method if label in ("Detector", "Analysis"))
    below = pen.write(column.left, top, content.title, pen.palette.text, _BIG, bold=True)
    room = column.width - pen.wide(content.title, _BIG, bold=True) - pen.body
    text = pen.fitted(made, room, _SMALL)
    pen.write(column.right - pen.wide(text, _SMALL), top + 0.42 * pen.body, text, pen.palette.dim, _SMALL)
    return below


def identity(pen: Pen, top: float, column: Column, content: PageContent, per_row: int = 4) -> float:
    """Whose images they are, in a tinted box: label above value."""
    inset = 0.7 * pen.body
    inner = Column(column.left + inset, column.width - 2 * inset)
    height = _cells(pen.dry(), 0.0, inner, content.patient, per_row)
    pen.painter.area((column.left, top, column.right, top + height + 2 * inset), pen.palette.tint)
    return _cells(pen, top + inset, inner, content.patient, per_row) + inset


def _cells(pen: Pen, top: float, column: Column, facts: Facts, per_row: int) -> float:
    for start in range(0, len(facts), per_row):
        ends = [top]
        for place, (label, value) in enumerate(facts[start : start + per_row]):
            cell = column.part(place, per_row, pen.body)
            below = pen.write(cell.left, top, label, pen.palette.dim, _SMALL)
            for line in pen.wrapped(value, cell.width, 5, bold=True):
                below = pen.write(cell.left, below, line, pen.palette.text, bold=True)
            ends.append(below)
        top = max(ends) + 0.3 * pen.body
    return top - 0.3 * pen.body


def outcome(pen: Pen, top: float, column: Column, content: PageContent) -> float:
    """The outcome, large, with what it means, and the numbers that decided it."""
    colour = pen.palette.alarm if content.alarming else pen.palette.text
    pen.painter.area((column.left, top, column.left + 0.45 * pen.body, _outcome_end(pen, top, column, content)), colour)
    inner = Column(column.left + 1.2 * pen.body, column.width - 1.2 * pen.body)
    return _write_outcome(pen, top, inner, content, colour)


def _outcome_end(pen: Pen, top: float, column: Column, content: PageContent) -> float:
    inner = Column(column.left + 1.2 * pen.body, column.width - 1.2 * pen.body)
    return _write_outcome(pen.dry(), top, inner, content, pen.palette.text)


def _write_outcome(pen: Pen, top: float, column: Column, content: PageContent, colour: Colour) -> float:
    top = pen.write(column.left, top - 0.3 * pen.body, content.headline, colour, _HUGE, bold=True)
    top = pen.paragraph(column.left, top, column.width, content.subline, pen.palette.text, 4)
    if content.figures:
        top = _figures(pen, top + 0.6 * pen.body, column, content.figures)
    return top


def _figures(pen: Pen, top: float, column: Column, figures: Sequence[Figure]) -> float:
    ends = [top]
    for place, figure in enumerate(figures):
        cell = column.part(place, len(figures), pen.body)
        below = pen.write(cell.left, top, pen.fitted(figure.label, cell.width, _SMALL), pen.palette.dim, _SMALL)
        below = pen.write(cell.left, below, figure.value, pen.palette.text, 1.7, bold=True)
        ends.append(pen.paragraph(cell.left, below, cell.width, figure.unit, pen.palette.dim, 2, _SMALL))
    return max(ends)


def notices(pen: Pen, top: float, column: Column, content: PageContent) -> float:
    """What a reader must know beside the outcome: incomplete, replaced, a model that failed its validation."""
    for notice in content.notices:
        for line in pen.wrapped(f"! {notice}", column.width, 2, bold=True):
            top = pen.write(column.left, top, line, pen.palette.notice, bold=True)
    return top


def heading(pen: Pen, top: float, column: Column, text: str) -> float:
    """A section's title over a rule."""
    below = pen.write(column.left, top, text, pen.palette.text, bold=True)
    pen.painter.line((column.left, below, column.right, below), pen.palette.rule, 0.6)
    return below + 0.35 * pen.body


def facts(pen: Pen, top: float, column: Column, rows: Facts, title_text: str, most: int = 2) -> float:
    """Labels and values in two columns; a value has at most ``most`` lines."""
    top = heading(pen, top, column, title_text)
    labels = max((pen.wide(label) for label, _ in rows), default=0.0) + 0.9 * pen.body
    for label, value in rows:
        pen.write(column.left, top, label, pen.palette.dim)
        top = pen.paragraph(column.left + labels, top, column.width - labels, value, pen.palette.text, most)
    return top


def statements(pen: Pen, top: float, column: Column, content: PageContent, most: int = 6) -> float:
    """Paragraphs under small headings, each at most ``most`` lines."""
    for name, text in content.statements:
        top = pen.write(column.left, top, name, pen.palette.text, bold=True)
        top = pen.paragraph(column.left, top, column.width, text, pen.palette.text, most) + 0.35 * pen.body
    return top


_HEADS = ("Finding", "On images", "Strongest on", "Position", "Heat 0 to 1", "Area")
_SHARES = (0.19, 0.19, 0.16, 0.18, 0.15, 0.13)


def findings(pen: Pen, top: float, column: Column, content: PageContent, bottom: float) -> float:
    """The table of findings, hottest first, as far as it fits above ``bottom``; says how many it leaves out."""
    if not content.findings:
        return top
    lines = content.findings
    top = heading(pen, top, column, f"Findings ({len(lines)}), hottest first; area on the strongest image")
    top = _row(pen, top, column, _HEADS, pen.palette.dim)
    fitting = max(1, int((bottom - top) / pen.step))
    shown = len(lines) if len(lines) <= fitting else max(1, fitting - 1)
    for line in lines[:shown]:
        top = _row(pen, top, column, _cells_of(line), pen.palette.text)
    if left := len(lines) - shown:
        text = f"and {left} more, not hotter than these: see the overlay pictures and the structured report"
        top = pen.write(column.left, top, pen.fitted(text, column.width), pen.palette.notice)
    return top


def _cells_of(line: FindingLine) -> tuple[str, ...]:
    return line.name, line.images, line.source, line.position, line.heat, line.area


def _row(pen: Pen, top: float, column: Column, cells: Sequence[str], colour: Colour) -> float:
    left = column.left
    for text, share in zip(cells, _SHARES, strict=True):
        room = column.width * share
        pen.write(left, top, pen.fitted(text, room - 0.5 * pen.body), colour)
        left += room
    return top + pen.step


def footer(pen: Pen, bottom: float, column: Column, content: PageContent) -> float:
    """The disclaimer and, last and centred, the banner; written upwards from ``bottom``; answers its upper edge."""
    text = pen.fitted(content.banner, column.width, 1.5, bold=True)
    height = pen.step * 1.5
    lines = pen.wrapped(content.disclaimer, column.width * 0.9, 2, _SMALL)
    upper = bottom - height - pen.step * _SMALL * len(lines) - 0.6 * pen.body
    pen.painter.line((column.left, upper, column.right, upper), pen.palette.rule, 0.6)
    top = upper + 0.4 * pen.body
    for line in lines:
        top = pen.write(_centred(pen, column, line, _SMALL), top, line, pen.palette.dim, _SMALL)
    pen.write(_centred(pen, column, text, 1.5, bold=True), top, text, pen.palette.banner, 1.5, bold=True)
    return upper


def _centred(pen: Pen, column: Column, text: str, times: float, *, bold: bool = False) -> float:
    return column.left + (column.width - pen.wide(text, times, bold=bold)) / 2
