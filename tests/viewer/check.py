"""Open every Study of an archive in the viewer and say of every Series whether it is shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from playwright.sync_api import Browser, Error

from tests.viewer.expected import Expected
from tests.viewer.looks import Screen, look_at
from tests.viewer.page import NotSeen, ViewerPage, browser

CHANGES_THE_PAGE = frozenset({"regions report", "parametric map", "segmentation"})
"""After these the tab shows more than the Series that is opened next: a new one is taken."""

LOOKS = 3
"""A browser that draws in software loses a drawing now and then: it is allowed to look again, and the line says so."""

NOT_DRAWN = frozenset({"root report", "presentation state"})
"""What this viewer lists only: nothing to photograph."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one Series. ``said``: what was seen, or what is missing."""

    expected: Expected
    shown: bool
    said: str

    def __str__(self) -> str:
        return f"{'PASS' if self.shown else 'FAIL'} {self.expected.name}: {self.said}"


def check(origin: str, wanted: Sequence[Expected], pictures: Path) -> Iterator[Verdict]:
    """Look at all of ``wanted`` at ``origin``; a photograph of each goes into the folder ``pictures``."""
    pictures.mkdir(parents=True, exist_ok=True)
    with browser() as opened:
        for study, series in groupby(wanted, key=lambda one: one.study):
            yield from _check_study(opened, origin, study, list(series), pictures)


def _check_study(
    opened: Browser, origin: str, study: str, wanted: Sequence[Expected], pictures: Path
) -> Iterator[Verdict]:
    page, fresh = ViewerPage.of(opened), False
    screen = Screen(page)
    try:
        for one in wanted:
            if not fresh:
                fresh = _opened(page, origin, study)
            verdict = _verdict(screen, one, pictures)
            for look in range(2, LOOKS + 1):
                if not verdict.shown:
                    _opened(page, origin, study)
                    verdict = _again(look, verdict, _verdict(screen, one, pictures))
            yield verdict
            fresh = fresh and verdict.shown and one.kind not in CHANGES_THE_PAGE
    finally:
        page.close()


def _again(look: int, before: Verdict, now: Verdict) -> Verdict:
    return Verdict(now.expected, now.shown, f"{now.said} (at look {look}; before: {before.said})")


def _opened(page: ViewerPage, origin: str, study: str) -> bool:
    try:
        page.open(origin, study)
    except (NotSeen, Error):
        return False
    return True


def _verdict(screen: Screen, one: Expected, pictures: Path) -> Verdict:
    try:
        said, shown = look_at(screen, one), True
    except (NotSeen, Error) as error:
        said, shown = str(error).splitlines()[0], False
        if screen.page.problems:
            said += f" (the viewer says: {screen.page.problems[-1].splitlines()[0][:200]})"
    if one.kind not in NOT_DRAWN:
        screen.page.photograph(pictures / f"{one.name.replace(',', '').replace(' ', '_')}.png")
    return Verdict(one, shown, said)
