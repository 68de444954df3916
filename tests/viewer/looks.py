"""How each kind of object has to look in the viewer. A look returns when it is seen, and raises NotSeen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.viewer.expected import Expected
from tests.viewer.page import NotSeen, ViewerPage

MORE = 0.0005
"""Share of the viewport by which colour has to grow when something is laid over a grey picture."""


@dataclass(slots=True)
class Screen:
    """The tab, and how coloured the sources of its Study were: what lies over them is compared with that."""

    page: ViewerPage
    plain: float = 0.0

    def coloured(self) -> bool:
        """Is a picture there, loaded, and coloured where its source is grey?"""
        if self.page.busy():
            return False
        picture = self.page.picture()
        return picture.lit > 0.01 and picture.coloured > self.plain + MORE


def look_at(screen: Screen, expected: Expected) -> str:
    """Open the Series and look; returns what was seen. Raises NotSeen."""
    return LOOKS[expected.kind](screen, expected)


def _picture(screen: Screen, expected: Expected) -> None:
    page = screen.page
    page.open_series(expected.number, expected.description)
    page.wait("its description over the viewport", lambda: expected.description in page.caption())
    page.wait("a picture in the viewport", lambda: page.picture().lit > 0.01)


def _source(screen: Screen, expected: Expected) -> str:
    _picture(screen, expected)
    screen.plain = max(screen.plain, screen.page.picture().coloured)
    return "shown"


def _capture(screen: Screen, expected: Expected) -> str:
    _picture(screen, expected)
    screen.page.wait("a coloured legend in the picture", lambda: screen.page.picture().coloured > MORE)
    return "shown, in colour"


def _pdf(screen: Screen, expected: Expected) -> str:
    screen.page.open_series(expected.number, expected.description)
    screen.page.wait("a PDF in the viewport", lambda: screen.page.pdf() == b"%PDF-")
    screen.page.wait("a white sheet of paper in the viewport", lambda: screen.page.picture().white > 0.1)
    return "opened"


def _listed(screen: Screen, expected: Expected) -> str:
    screen.page.listed(expected.number, expected.description)
    return "listed (this viewer draws nothing for it)"


def _regions(screen: Screen, expected: Expected) -> str:
    page = screen.page
    page.open_series(expected.number, expected.description)
    page.answer_yes()
    page.open_panel("trackedMeasurements")
    page.wait("a list of all its measurements", lambda: sorted(page.rows()) == sorted(expected.texts))
    page.choose_row(0)
    page.wait("a coloured region in the viewport", screen.coloured)
    return f"hydrated, {len(expected.texts)} measurement(s) by their labels"


def _map(screen: Screen, expected: Expected) -> str:
    screen.page.open_series(expected.number, expected.description)
    screen.page.wait("a coloured map in the viewport", screen.coloured)
    return "drawn in colour"


def _segments(screen: Screen, expected: Expected) -> str:
    page = screen.page
    page.open_series(expected.number, expected.description)
    page.answer_yes()
    page.open_panel("panelSegmentation")
    page.wait("a list of all its segments", lambda: _contains(page.rows(), expected.texts))
    page.choose_row(page.rows().index(expected.texts[0]))
    page.wait("a coloured segment in the viewport", screen.coloured)
    return f"drawn in colour, {len(expected.texts)} segment(s) by their labels"


def _contains(rows: list[str], wanted: tuple[str, ...]) -> bool:
    return all(rows.count(text) >= wanted.count(text) for text in wanted)


def _unknown(_: Screen, expected: Expected) -> str:
    raise NotSeen(f"a way to judge {expected.name}: looks.py does not know this kind")


LOOKS: dict[str, Callable[[Screen, Expected], str]] = {
    "source": _source,
    "capture": _capture,
    "pdf": _pdf,
    "root report": _listed,
    "presentation state": _listed,
    "regions report": _regions,
    "parametric map": _map,
    "segmentation": _segments,
    "other": _unknown,
}
