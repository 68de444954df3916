"""OHIF as a person at the screen has it: series list, viewport, questions, panels. Nothing of its inside is asked."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from playwright.sync_api import Browser, FloatRect, Locator, Page, ViewportSize, sync_playwright

from tests.viewer.picture import Picture, measured

LIMIT_S = 60.0
_SIZE = ViewportSize(width=1280, height=800)
_GL = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist")
_CORNERS = (0.14, 0.12, 0.26, 0.10)
"""Left, top, right, bottom of the viewport, as shares: texts and tools of the viewer lie there, not the picture."""

Value = TypeVar("Value")


class NotSeen(Exception):
    """What a person would have said is missing on the screen."""


def chromium() -> str | None:
    """The browser that is installed on this machine."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextmanager
def browser() -> Iterator[Browser]:
    """A headless browser that draws in software and reaches loopback only."""
    alone = ["--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1", "--disable-background-networking"]
    rootless = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium(), args=[*_GL, *alone, *rootless])
        try:
            yield opened
        finally:
            opened.close()


class ViewerPage:
    """One tab with one Study. ``problems``: errors that the viewer wrote into its console."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self.problems: list[str] = []
        page.add_init_script("localStorage.setItem('shownTours', '[\"basicViewerTour\"]')")
        page.on("console", lambda message: self.problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.problems.append(str(error)))

    @classmethod
    def of(cls, opened: Browser) -> ViewerPage:
        """A new tab with a profile of its own."""
        return cls(opened.new_context(viewport=_SIZE).new_page())

    def open(self, origin: str, study: str) -> None:
        """Load the Study and wait for its series list and a first picture."""
        self._page.goto(f"{origin}/viewer?StudyInstanceUIDs={study}", wait_until="domcontentloaded")
        self.wait("a series list", lambda: self._thumbnails.count() > 0)
        self.wait("a first picture", lambda: self.picture().lit > 0.01)

    @property
    def _thumbnails(self) -> Locator:
        return self._page.locator("[data-cy^=study-browser-thumbnail]")

    def listed(self, number: int, description: str) -> Locator:
        """The Series in the list. Raises NotSeen."""
        exactly = re.compile(f"^{re.escape(description)}$")
        label = self._page.locator("[data-cy=series-description-label]", has_text=exactly)
        own = self._thumbnails.filter(has_text=f"S:{number}").filter(has=label)
        self.wait("an entry in the series list", lambda: own.count() == 1)
        return own

    def open_series(self, number: int, description: str) -> None:
        """Double-click the Series. Raises NotSeen when it is not in the list."""
        self.problems.clear()
        own = self.listed(number, description)
        own.scroll_into_view_if_needed()
        own.dblclick()

    def caption(self) -> str:
        """The text in the viewport's top left corner: date and Series Description."""
        corner = self._page.locator("[data-cy=viewport-overlay-top-left]")
        return corner.first.inner_text() if corner.count() else ""

    def busy(self) -> bool:
        """Is something still loading, or does a coloured notice of the viewer lie over the picture?"""
        notices = self._page.locator("[data-sonner-toast]").count()
        return bool(notices) or "Loading" in self._page.locator("[data-cy=viewport-pane]").first.inner_text()

    def picture(self) -> Picture:
        """The middle of the viewport."""
        box = self._page.locator("[data-cy=viewport-pane]").first.bounding_box(timeout=1000 * LIMIT_S)
        if box is None:
            return Picture()
        left, top, right, bottom = _CORNERS
        clip = FloatRect(
            x=box["x"] + left * box["width"],
            y=box["y"] + top * box["height"],
            width=(1 - left - right) * box["width"],
            height=(1 - top - bottom) * box["height"],
        )
        return measured(self._page.screenshot(clip=clip))

    def answer_yes(self) -> None:
        """Agree to load what was opened. Raises NotSeen when the viewer does not ask."""
        button = self._page.locator("[data-cy=yes-hydrate-btn]")
        self.wait("the question whether to load it", lambda: button.count() > 0)
        button.first.click()
        self.wait("an end of the question", lambda: button.count() == 0)

    def open_panel(self, name: str) -> None:
        """The tab of the right-hand side: "trackedMeasurements" or "panelSegmentation"."""
        button = self._page.locator(f"[data-cy={name}-btn]")
        self.wait(f"the panel {name}", lambda: self.rows() or button.count() > 0)
        if not self.rows():
            button.first.click()

    def rows(self) -> list[str]:
        """The titles of the rows in the open panel: measurements or segments."""
        return [text.strip() for text in self._page.locator("[data-cy=data-row-title]").all_inner_texts()]

    def choose_row(self, place: int) -> None:
        """Click a row of the open panel: the viewport jumps there. The mouse then leaves the picture."""
        self._page.locator("[data-cy=data-row-title]").nth(place).click()
        self._page.mouse.move(5, _SIZE["height"] - 5)

    def pdf(self) -> bytes:
        """The first bytes of the document that the viewport embeds; empty when there is none."""
        if not self._page.locator("object[type='application/pdf']").count():
            return b""
        script = """async () => {
          const shown = document.querySelector("object[type='application/pdf']");
          const bytes = new Uint8Array(await (await fetch(shown.data)).arrayBuffer());
          return [...bytes.slice(0, 5)];
        }"""
        return bytes(self._page.evaluate(script))

    def wait(self, what: str, seen: Callable[[], Value], limit_s: float = LIMIT_S) -> Value:
        """Wait until ``seen`` gives something true, and give that. Raises NotSeen(``what``)."""
        until = time.monotonic() + limit_s
        while not (value := seen()):
            if time.monotonic() > until:
                raise NotSeen(f"there is no {what.removeprefix('a ').removeprefix('an ').removeprefix('the ')}")
            self._page.wait_for_timeout(250)
        return value

    def photograph(self, path: Path) -> None:
        """The whole screen as a PNG file."""
        self._page.screenshot(path=path)

    def close(self) -> None:
        self._page.context.close()
