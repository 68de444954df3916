"""The gap test on Image Position (Patient) along the slice normal (PS3.3 C.7.6.2.1.1), in mm. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from dicomnode.dicom.summary import Header

GAP_RATIO = 1.5
SAME_POSITION_MM = 0.01
SAME_DIRECTION = 1e-3
MIN_POSITIONS = 3
Vector = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Gap:
    """The widest spacing of a stack, and the median one; both in mm."""

    spacing: float
    median: float


def gap_in_stack(headers: Sequence[Header]) -> Gap | None:
    """The widest gap between neighbouring slices, or None when there is none or nothing can be said.

    A gap is a spacing over 1.5 times the median. Where slice thickness varies within the Series, it has to exceed
    1.5 times the thicker neighbour too. Slices of several orientations (localisers) are not one stack.
    """
    slices = _slices(headers)
    if len(slices) < MIN_POSITIONS:
        return None
    spacings = [(after[0] - before[0], max(before[1], after[1])) for before, after in pairwise(slices)]
    middle = median(spacing for spacing, _ in spacings)
    varies = len({thickness for _, thickness in slices}) > 1
    gaps = [
        spacing
        for spacing, thickness in spacings
        if spacing > GAP_RATIO * middle and not (varies and spacing <= GAP_RATIO * thickness)
    ]
    return Gap(max(gaps), middle) if gaps else None


def _slices(headers: Sequence[Header]) -> list[tuple[float, float]]:
    """Distinct (distance along the normal, thickness), sorted; empty when the slices are no single stack."""
    normal: Vector | None = None
    found: list[tuple[float, float]] = []
    for header in headers:
        position, cosines = _floats(header, "ImagePositionPatient", 3), _floats(header, "ImageOrientationPatient", 6)
        if position is None or cosines is None:
            return []
        here = _cross(cosines)
        normal = normal or here
        if any(abs(a - b) > SAME_DIRECTION for a, b in zip(normal, here, strict=True)):
            return []
        thickness = _floats(header, "SliceThickness", 1) or [0.0]
        found.append((sum(a * b for a, b in zip(position, normal, strict=True)), thickness[0]))
    return _distinct(sorted(found))


def _distinct(slices: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    kept: list[tuple[float, float]] = []
    for entry in slices:
        if not kept or entry[0] - kept[-1][0] > SAME_POSITION_MM:
            kept.append(entry)
    return kept


def _floats(header: Header, keyword: str, count: int) -> list[float] | None:
    values = header.get(keyword, ())
    if len(values) != count or any(isinstance(value, str) for value in values):
        return None
    return [float(value) for value in values]


def _cross(cosines: Sequence[float]) -> Vector:
    a, b = cosines[:3], cosines[3:]
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]
