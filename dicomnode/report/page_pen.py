"""What the blocks of a report page are written with: a painter for PDF or pixels, colours, a size of type.

Lengths are points (1/72 inch) from the top-left corner of the sheet, y downwards.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

Colour = tuple[int, int, int]
Bytes = npt.NDArray[np.uint8]
_LINE = 1.32


class Painter(Protocol):
    """Puts marks on one page."""

    def width(self, text: str, size: float, *, bold: bool) -> float:
        """How wide ``text`` is."""
        ...

    def text(self, at: tuple[float, float], text: str, size: float, colour: Colour, *, bold: bool) -> None:
        """Write from ``at``, which is on the base line."""
        ...

    def area(self, box: tuple[float, float, float, float], colour: Colour) -> None:
        """Fill left, top, right, bottom."""
        ...

    def line(self, ends: tuple[float, float, float, float], colour: Colour, thickness: float) -> None: ...

    def image(self, box: tuple[float, float, float, float], pixels: Bytes) -> None:
        """Draw ``pixels``, shape (rows, columns, 3), into left, top, right, bottom."""
        ...


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours of a sheet: dark on white for paper, light on black for the reading room."""

    paper: Colour
    tint: Colour
    text: Colour
    dim: Colour
    rule: Colour
    alarm: Colour
    notice: Colour
    banner: Colour


class Blank:
    """Measures with ``painter`` and leaves no mark."""

    def __init__(self, painter: Painter) -> None:
        self._painter = painter

    def width(self, text: str, size: float, *, bold: bool) -> float:
        return self._painter.width(text, size, bold=bold)

    def text(self, at: tuple[float, float], text: str, size: float, colour: Colour, *, bold: bool) -> None:
        """Nothing."""

    def area(self, box: tuple[float, float, float, float], colour: Colour) -> None:
        """Nothing."""

    def line(self, ends: tuple[float, float, float, float], colour: Colour, thickness: float) -> None:
        """Nothing."""

    def image(self, box: tuple[float, float, float, float], pixels: Bytes) -> None:
        """Nothing."""


@dataclass(frozen=True, slots=True)
class Pen:
    """A painter with its colours. ``body``: size of running text in points."""

    painter: Painter
    palette: Palette
    body: float

    @property
    def step(self) -> float:
        """From one line of running text to the next."""
        return self.body * _LINE

    def dry(self) -> Pen:
        """The same pen without ink, to measure with."""
        return replace(self, painter=Blank(self.painter))

    def wide(self, text: str, times: float = 1.0, *, bold: bool = False) -> float:
        return self.painter.width(text, self.body * times, bold=bold)

    def write(
        self, x: float, top: float, text: str, colour: Colour, times: float = 1.0, *, bold: bool = False
    ) -> float:
        """Write one line below ``top``; answers where the next line starts."""
        size = self.body * times
        self.painter.text((x, top + size * 1.02), text, size, colour, bold=bold)
        return top + size * _LINE

    def fitted(self, text: str, width: float, times: float = 1.0, *, bold: bool = False) -> str:
        """``text``, cut with an ellipsis where it is wider than ``width``."""
        if self.wide(text, times, bold=bold) <= width:
            return text
        count = self._longest(text, width - self.wide("…", times, bold=bold), times, bold=bold)
        return text[:count].rstrip() + "…"

    def _longest(self, text: str, width: float, times: float, *, bold: bool) -> int:
        """How many letters of ``text`` fit ``width``."""
        return bisect_right(range(1, len(text)), width, key=lambda n: self.wide(text[:n], times, bold=bold))

    def wrapped(self, text: str, width: float, most: int, times: float = 1.0, *, bold: bool = False) -> tuple[str, ...]:
        """``text`` on at most ``most`` lines of ``width``; what is left over is cut with an ellipsis."""
        words, space = deque(text.split(" ")), self.wide(" ", times, bold=bold)
        lines: list[list[str]] = [[]]
        used = 0.0
        while words:
            word = words.popleft()
            length = self.wide(word, times, bold=bold)
            if lines[-1] and used + space + length > width:
                if len(lines) == most:
                    lines[-1].append(word)
                    break
                lines.append([])
                used = 0.0
            if length > width:
                word, tail = self._broken(word, width, times, bold=bold)
                words.appendleft(tail)
                length = self.wide(word, times, bold=bold)
            lines[-1].append(word)
            used += space + length
        return tuple(self.fitted(" ".join(line), width, times, bold=bold) for line in lines)

    def _broken(self, word: str, width: float, times: float, *, bold: bool) -> tuple[str, str]:
        """A word wider than a line, broken where the line ends."""
        count = max(1, self._longest(word, width, times, bold=bold))
        return word[:count], word[count:]

    def paragraph(
        self, x: float, top: float, width: float, text: str, colour: Colour, most: int, times: float = 1.0
    ) -> float:
        """Write wrapped text; answers where the next line starts."""
        for line in self.wrapped(text, width, most, times):
            top = self.write(x, top, line, colour, times)
        return top
