"""Where writing stands in a picture: letters drawn by a machine, found by their shape and not by what they say.

Writing that a device burns in is a row of small parts of one grey value, with thin strokes, of like height, on one
line. Each of these is weak evidence; together they are rare in anatomy. The tests measure both kinds of error.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from dicomnode.deid.text_lines import Boxes, Line, lines_of

Grey = npt.NDArray[np.float32]
_SCALES = (1, 2, 4)
_LEAST_SIDE = 160
"""Of a reduced picture: letters that fill a fifth of a small picture are anatomy."""
_OPENING = 21
_LEAST_HEIGHT, _MOST_HEIGHT = 6, 30
_LEVELS = 4
_LEAST_CONTRAST = 0.06
"""Of the range of grey values: what is fainter cannot be read at any usual window."""
_NOISE = 5.0
_FULL = 0.7
_MOST_PARTS = 4000
"""More parts than that in one picture are texture; a denser page of text is found at a higher level."""


@dataclass(frozen=True, slots=True)
class TextRegion:
    """A box in pixels, the first row and column 0, that holds writing; ``confidence`` 0 to 1."""

    x: int
    y: int
    width: int
    height: int
    confidence: float


def text_regions(frame: npt.NDArray[np.generic]) -> list[TextRegion]:
    """Find writing in one frame: shape (rows, columns), or (rows, columns, 3) for colours.

    Any numeric type and any range of values; bright on dark and dark on bright; lines that run across or upwards.
    """
    found: list[TextRegion] = []
    for plane in _planes(np.asarray(frame)):
        for scale in _SCALES:
            if scale == 1 or min(plane.shape) >= scale * _LEAST_SIDE:
                lines = _lines(_reduced(plane, scale))
                found += (_region(line, scale, plane.shape) for line in lines)
    return _merged(found)


def _planes(frame: npt.NDArray[np.generic]) -> Iterator[Grey]:
    """The picture in values 0 to 1; of colours the brightness and how colourful they are."""
    values = frame.astype(np.float32)
    planes = [values] if values.ndim == 2 else [values.mean(axis=2), values.max(axis=2) - values.min(axis=2)]
    for plane in planes:
        low, high = float(plane.min()), float(plane.max())
        if high > low:
            yield (plane - low) / (high - low)


def _reduced(plane: Grey, scale: int) -> Grey:
    if scale == 1:
        return plane
    rows, columns = (side // scale * scale for side in plane.shape)
    parts = plane[:rows, :columns].reshape(rows // scale, scale, columns // scale, scale)
    return np.asarray(parts.mean(axis=(1, 3)), np.float32)


def _lines(plane: Grey) -> Iterator[Line]:
    """Lines of either polarity at several levels of contrast: the strongest writing does not hide fainter one."""
    for picture in (plane, 1 - plane):
        relief = picture - ndimage.grey_opening(picture, (_OPENING, _OPENING))
        beyond = ndimage.grey_erosion(relief, (5, 5))
        strongest = float(relief.max())
        least = max(_LEAST_CONTRAST, _NOISE * float(np.median(relief)))
        for level in range(_LEVELS):
            threshold = strongest * 0.5 ** (level + 1)
            if threshold < least:
                break
            yield from _lines_at(relief, beyond, threshold)


def _lines_at(relief: Grey, beyond: Grey, threshold: float) -> Iterator[Line]:
    labels, count = ndimage.label(relief > threshold, np.ones((3, 3), bool))
    if not 0 < count <= 20 * _MOST_PARTS:
        return
    boxes = _letters(relief, beyond, labels, count)
    if 0 < len(boxes.top) <= _MOST_PARTS:
        yield from lines_of(boxes)
        yield from (line.turned() for line in lines_of(boxes.turned()))


def _letters(relief: Grey, beyond: Grey, labels: npt.NDArray[np.int32], count: int) -> Boxes:
    """The parts that have the size and the thin strokes of a letter, with what tells letters from anatomy."""
    sides = np.array([(s[0].start, s[0].stop, s[1].start, s[1].stop) for s in ndimage.find_objects(labels)], np.int32)
    heights, widths = sides[:, 1] - sides[:, 0], sides[:, 3] - sides[:, 2]
    tall = np.maximum(heights, widths)
    depth = ndimage.distance_transform_cdt(labels > 0, "chessboard")
    where = np.flatnonzero(labels)
    part, value, deep = labels.ravel()[where] - 1, relief.ravel()[where], depth.ravel()[where]
    stroke = np.zeros(count)
    np.maximum.at(stroke, part, 2.0 * deep - 1)
    top = np.zeros(count)
    np.maximum.at(top, part, value)
    area = np.bincount(part, minlength=count)
    even = np.bincount(part, value > _FULL * top[part], count) / area
    edge = deep == 1
    edges = np.maximum(np.bincount(part[edge], minlength=count), 1)
    sharp = 1 - np.bincount(part[edge], beyond.ravel()[where][edge], count) / edges / top
    fits = (tall >= _LEAST_HEIGHT - 1) & (tall <= _MOST_HEIGHT) & (stroke <= 0.34 * tall + 1.5)
    chosen = np.flatnonzero(fits)
    fill = area / (heights * widths)
    first, last, left, right = sides.T
    return Boxes(first, last, left, right, top, fill, even, sharp, stroke).at(chosen)


def _region(line: Line, scale: int, shape: tuple[int, ...]) -> TextRegion:
    """In pixels of the whole picture, with a margin for what the threshold cut off."""
    margin = scale * max(1, (line.bottom - line.top) // 6)
    top, left = max(0, line.top * scale - margin), max(0, line.left * scale - margin)
    bottom, right = min(shape[0], line.bottom * scale + margin), min(shape[1], line.right * scale + margin)
    return TextRegion(left, top, right - left, bottom - top, round(line.confidence, 3))


def _merged(found: list[TextRegion]) -> list[TextRegion]:
    """Boxes that overlap become one: the same line is found at several levels."""
    merged: list[TextRegion] = []
    for region in sorted(found, key=lambda region: -region.width * region.height):
        for index, other in enumerate(merged):
            if _overlap(region, other):
                merged[index] = _joined(region, other)
                break
        else:
            merged.append(region)
    return merged if len(merged) == len(found) else _merged(merged)


def _overlap(one: TextRegion, other: TextRegion) -> bool:
    return (
        one.x < other.x + other.width
        and other.x < one.x + one.width
        and one.y < other.y + other.height
        and other.y < one.y + one.height
    )


def _joined(one: TextRegion, other: TextRegion) -> TextRegion:
    left, top = min(one.x, other.x), min(one.y, other.y)
    right, bottom = (
        max(one.x + one.width, other.x + other.width),
        max(one.y + one.height, other.y + other.height),
    )
    return TextRegion(left, top, right - left, bottom - top, max(one.confidence, other.confidence))
