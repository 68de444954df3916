"""Letters to lines: parts of like height and grey value, side by side on one base line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int32]
Reals = npt.NDArray[np.float64]
_GAP = 1.3
"""Widest space between two letters or words of a line, in heights."""
_LIKE_HEIGHT, _LIKE_INK = 0.45, 0.6
_LEAST_LETTERS = 3
_LEAST_SCORE = 0.9
_BAR, _MOST_BARS = 0.3, 0.8
_WEIGHTS = np.array([3.3, 2.74, 2.07, -8.67, 0.83, 0.29, -3.31, 0.4, 4.87, -2.94, 3.72, 32.67, 0.82, -1.41, -3.8, 1.91])
_BIAS = -40.82


@dataclass(frozen=True, slots=True, eq=False)
class Boxes:
    """Parts of a picture, one per entry: top, bottom, left, right in pixels (the ends are not part of it), their grey
    value above the background, how much of the box they fill, and how much of them has nearly the full grey value."""

    top: Ints
    bottom: Ints
    left: Ints
    right: Ints
    ink: Reals
    fill: Reals
    even: Reals
    sharp: Reals
    stroke: Reals

    def turned(self) -> Boxes:
        """With rows and columns exchanged, so that writing upwards becomes writing across."""
        return replace(self, top=self.left, bottom=self.right, left=self.top, right=self.bottom)

    def at(self, chosen: npt.NDArray[np.intp]) -> Boxes:
        """Only the parts ``chosen``."""
        return Boxes(
            self.top[chosen], self.bottom[chosen], self.left[chosen], self.right[chosen],
            self.ink[chosen], self.fill[chosen], self.even[chosen], self.sharp[chosen], self.stroke[chosen],
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Line:
    """A line of letters: the box around it, how many, and how sure it is writing (0 to 1)."""

    top: int
    bottom: int
    left: int
    right: int
    letters: int
    confidence: float

    def turned(self) -> Line:
        """With rows and columns exchanged."""
        return replace(self, top=self.left, bottom=self.right, left=self.top, right=self.bottom)


def lines_of(boxes: Boxes) -> Iterator[Line]:
    """The rows of three letters and more among ``boxes`` that look like writing."""
    for chain in _chains(boxes):
        if len(chain) < _LEAST_LETTERS:
            continue
        parts = boxes.at(np.array(chain))
        score = likeness(parts)
        if score >= _LEAST_SCORE:
            yield Line(
                int(parts.top.min()), int(parts.bottom.max()), int(parts.left.min()), int(parts.right.max()),
                len(chain), score,
            )  # fmt: skip


def _chains(boxes: Boxes) -> list[list[int]]:
    """Each part is joined to the nearest one on its right that could be the next letter."""
    order = np.argsort(boxes.left, kind="stable")
    left = boxes.left[order]
    after: dict[int, int] = {}
    for place, index in enumerate(order):
        height = int(boxes.bottom[index] - boxes.top[index])
        last = int(np.searchsorted(left, boxes.right[index] + _GAP * height, "right"))
        ahead = order[place + 1 : last]
        ahead = ahead[_next_letter(boxes, index, ahead)]
        if ahead.size:
            after[int(index)] = int(ahead[0])
    chains: list[list[int]] = []
    chain_of: dict[int, list[int]] = {}
    for index in map(int, order):
        chain = chain_of.get(index)
        if chain is None:
            chains.append(chain := [])
        chain.append(index)
        if index in after and after[index] not in chain_of:
            chain_of[after[index]] = chain
    return chains


def _next_letter(boxes: Boxes, index: np.intp, ahead: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    top, bottom = boxes.top[index], boxes.bottom[index]
    height, other = bottom - top, boxes.bottom[ahead] - boxes.top[ahead]
    taller, lower = np.maximum(height, other), np.minimum(height, other)
    slack = 1 + 0.15 * taller
    level = (np.abs(boxes.bottom[ahead] - bottom) <= slack) | (np.abs(boxes.top[ahead] - top) <= slack)
    shared = np.minimum(bottom, boxes.bottom[ahead]) - np.maximum(top, boxes.top[ahead])
    ink = np.minimum(boxes.ink[ahead], boxes.ink[index]) / np.maximum(boxes.ink[ahead], boxes.ink[index])
    beside = boxes.left[ahead] >= boxes.right[index] - 0.2 * height
    alike = (lower >= _LIKE_HEIGHT * taller) & (ink >= _LIKE_INK)
    return np.asarray(level & alike & beside & (shared >= 0.6 * lower))


def features(parts: Boxes) -> Reals:
    """What tells a line of letters from a row of anatomy, each about 0 to 1."""
    heights, widths = parts.bottom - parts.top, parts.right - parts.left
    height = float(np.median(heights))
    slack = 0.6 + 0.08 * height
    gaps = (parts.left[1:] - parts.right[:-1]) / height
    return np.array([
        np.log(len(heights)),
        np.mean(np.abs(parts.bottom - np.median(parts.bottom)) <= slack),
        np.mean(np.abs(parts.top - np.median(parts.top)) <= slack),
        np.std(parts.ink) / np.mean(parts.ink),
        np.mean(gaps <= 0.55),
        np.std(gaps),
        np.mean(widths <= _BAR * heights),
        np.mean(widths > 1.6 * heights),
        np.mean(parts.fill),
        np.std(parts.fill),
        np.mean(parts.even),
        np.mean(parts.sharp),
        np.std(parts.stroke) / np.mean(parts.stroke),
        np.mean(parts.stroke) / height,
        np.std(heights) / height,
        np.log(height / 12),
    ])  # fmt: skip


def likeness(parts: Boxes) -> float:
    """How much a chain looks like writing, 0 to 1: a logistic function of its features.

    The weights were fitted on lines of rendered text in many fonts against chains of parts in pictures without text
    (see docs/deidentification.md). Marks of a ruler are not writing.
    """
    heights, widths = parts.bottom - parts.top, parts.right - parts.left
    if np.mean(widths <= _BAR * heights) > _MOST_BARS and np.ptp(widths) <= 1:
        return 0.0
    return float(1 / (1 + np.exp(-(features(parts) @ _WEIGHTS + _BIAS))))
