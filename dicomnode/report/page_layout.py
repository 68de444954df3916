"""Where the blocks of the report page go: upright for paper, lying for the monitor.

The type is as large as the texts allow; pictures and the table of findings share what room is left. The numbers
are points.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from dicomnode.report import page_blocks as blocks
from dicomnode.report import page_figures as figures
from dicomnode.report.page_blocks import Column
from dicomnode.report.page_content import PageContent
from dicomnode.report.page_pen import Pen
from dicomnode.report.page_pictures import Gallery

A4 = (595.0, 842.0)
SCREEN = (800.0, 600.0)
_LEAST_PICTURE, _MOST_PICTURE, _LEAST_ROWS = 130.0, 250.0, 6
_THRIFT = ((6, 140.0, 7.0), (4, 90.0, 6.6), (3, 0.0, 5.6))


@dataclass(frozen=True, slots=True)
class _Plan:
    """How to set a page. ``lines``: the most that a paragraph may have; ``thumbs``: height of the montage."""

    pen: Pen
    lines: int
    thumbs: float

    def dry(self) -> _Plan:
        return replace(self, pen=self.pen.dry())


def _best(pen: Pen, body: float, spare: Callable[[_Plan], float]) -> _Plan:
    """The plan with the largest type, from ``body`` down, that leaves room to spare; then with shorter paragraphs."""
    plans = [
        _Plan(replace(pen, body=size / 10), lines, thumbs)
        for lines, thumbs, least in _THRIFT
        for size in range(round(body * 10), round(least * 10) - 1, -2)
    ]
    return next((plan for plan in plans if spare(plan.dry()) >= 0.0), plans[-1])


def upright(pen: Pen, content: PageContent, gallery: Gallery | None) -> None:
    """Write an A4 page; without ``gallery`` the words have it for themselves."""
    column, bottom = Column(40.0, A4[0] - 80.0), A4[1] - 34.0
    if gallery is None:
        _words(
            _best(pen, 11.0, lambda plan: _words(plan, 36.0, column, bottom, content)), 36.0, column, bottom, content
        )
    else:
        plan = _best(pen, 8.4, lambda plan: _room(plan, column, bottom, content, gallery) - _wanted(plan.pen, content))
        _upright(plan, column, bottom, content, gallery)


def lying(pen: Pen, content: PageContent, gallery: Gallery | None) -> None:
    """Write a 4:3 page for a monitor; its upper and lower corners stay free for the viewer's own words."""
    column, bottom = Column(30.0, SCREEN[0] - 60.0), SCREEN[1] - 26.0
    if gallery is None:
        _words(
            _best(pen, 12.4, lambda plan: _words(plan, 30.0, column, bottom, content)), 30.0, column, bottom, content
        )
    else:
        plan = _best(pen, 9.6, lambda plan: _right(plan, column, bottom, content))
        _lying(plan, column, bottom, content, gallery)


def _head(pen: Pen, top: float, column: Column, content: PageContent) -> float:
    top = blocks.title(pen, top, column, content) + 0.5 * pen.body
    return blocks.identity(pen, top, column, content) + pen.body


def _verdict(pen: Pen, top: float, column: Column, content: PageContent) -> float:
    top = blocks.outcome(pen, top, column, content) + 0.6 * pen.body
    return blocks.notices(pen, top, column, content) + 0.4 * pen.body


def _provenance(plan: _Plan, top: float, column: Column, content: PageContent) -> float:
    """Series and method beside each other, then the paragraphs."""
    pen, gap = plan.pen, 1.6 * plan.pen.body
    most = 2 if plan.lines > 4 else 1
    ends = (
        blocks.facts(pen, top, column.part(0, 2, gap), content.series, "Analysed series", most),
        blocks.facts(pen, top, column.part(1, 2, gap), content.method, "Analysis", most),
    )
    return blocks.statements(pen, max(ends) + 0.7 * pen.body, column, content, plan.lines)


def _words(plan: _Plan, top: float, column: Column, bottom: float, content: PageContent) -> float:
    """A page without pictures; answers the room to spare."""
    pen, gap = plan.pen, 1.6 * plan.pen.body
    upper = blocks.footer(pen, bottom, column, content)
    top = _verdict(pen, _head(pen, top, column, content) + pen.body, column, content)
    top = blocks.statements(pen, top + pen.body, column, content, plan.lines + 3) + pen.body
    ends = (
        blocks.facts(pen, top, column.part(0, 2, gap), content.series, "Series", 3),
        blocks.facts(pen, top, column.part(1, 2, gap), content.method, "Software", 3),
    )
    return upper - max(ends)


def _rows(content: PageContent, most: int) -> float:
    """Lines of the table of findings with at most ``most`` of them, its headings included."""
    return min(len(content.findings), most) + 2.4 if content.findings else 0.0


def _wanted(pen: Pen, content: PageContent) -> float:
    """The least room for pictures and table."""
    return _LEAST_PICTURE + figures.captions(pen) + _rows(content, _LEAST_ROWS) * pen.step


def _room(plan: _Plan, column: Column, bottom: float, content: PageContent, gallery: Gallery) -> float:
    """What an upright page leaves to pictures and table."""
    pen = plan.pen
    words = _verdict(pen, _head(pen, 36.0, column, content), column, content)
    words = _glance(plan, _provenance(plan, words, column, content), column, gallery)
    return blocks.footer(pen, bottom, column, content) - words - 2.2 * pen.body


def _glance(plan: _Plan, top: float, column: Column, gallery: Gallery) -> float:
    """Scale, nearest healthy patch, montage and profile: what stands under the large pictures."""
    pen = plan.pen
    top = figures.scale(pen, top, column, gallery) + 0.3 * pen.body
    top = figures.pair(pen, top, column, gallery, plan.thumbs)
    top = figures.thumbs(pen, top, column, gallery, plan.thumbs)
    return figures.profile(pen, top, column, gallery) + 0.6 * pen.body


def _upright(plan: _Plan, column: Column, bottom: float, content: PageContent, gallery: Gallery) -> None:
    pen, dry = plan.pen, plan.dry()
    upper = blocks.footer(pen, bottom, column, content)
    room = _room(dry, column, bottom, content, gallery)
    tail = upper - _provenance(dry, 0.0, column, content) - pen.body
    least = _LEAST_PICTURE + figures.captions(pen)
    picture = min(max(room - _rows(content, len(content.findings)) * pen.step, least), _MOST_PICTURE)
    top = _verdict(pen, _head(pen, 36.0, column, content), column, content)
    top = figures.large(pen, top, column, gallery, picture, side_by_side=True) + 0.2 * pen.body
    top = _glance(plan, top, column, gallery)
    top = blocks.findings(pen, top, column, content, tail)
    _provenance(plan, min(top + 0.8 * pen.body, tail), column, content)


def _split(column: Column, pen: Pen) -> tuple[Column, Column]:
    """Pictures left, words right."""
    left, gap = 0.42 * column.width, 1.8 * pen.body
    return Column(column.left, left), Column(column.left + left + gap, column.width - left - gap)


def _right(plan: _Plan, column: Column, bottom: float, content: PageContent) -> float:
    """All words of a lying page; answers the room to spare."""
    pen = plan.pen
    upper = blocks.footer(pen, bottom, column, content)
    _, own = _split(column, pen)
    top = _verdict(pen, _head(pen, 24.0, column, content), own, content)
    tail = upper - _provenance(plan.dry(), 0.0, own, content) - 0.6 * pen.body
    spare = tail - top - _rows(content, _LEAST_ROWS) * pen.step
    top = blocks.findings(pen, top, own, content, tail)
    _provenance(plan, min(top + 0.6 * pen.body, tail), own, content)
    return spare


def _lying(plan: _Plan, column: Column, bottom: float, content: PageContent, gallery: Gallery) -> None:
    _right(plan, column, bottom, content)
    plan = replace(plan, thumbs=_THRIFT[0][1])
    own, _ = _split(column, plan.pen)
    dry = plan.dry()
    top = _head(dry.pen, 24.0, column, content)
    upper = blocks.footer(dry.pen, bottom, column, content)
    rest = _glance(dry, 0.0, own, gallery) + plan.pen.body
    top = figures.large(plan.pen, top, own, gallery, upper - top - rest, side_by_side=False) + 0.2 * plan.pen.body
    _glance(plan, top, own, gallery)
