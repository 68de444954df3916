"""Where planes lie: the axis of a stack, its spacing, gaps and shear (PS3.3 C.7.6.2.1.1). Millimetres, LPS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from dicomnode.detect.volume_terms import NotAnalysable

Vector = npt.NDArray[np.float64]
Orientation = tuple[float, float, float, float, float, float]

SAME_PLACE_MM = 0.02
"""Planes closer than this along the normal lie at the same place (positions are decimal strings, often rounded)."""
_SAME_DIRECTION = float(np.cos(np.radians(1.0)))
_UNIT_TOLERANCE = 0.01
_UNEVEN, _JUMP, _RUN = 0.1, 1.5, 3
_SHEAR_DEGREES = 0.5


@dataclass(frozen=True, slots=True)
class Spot:
    """What the spacing test knows of one plane. ``thickness``: Slice Thickness in mm; ``number``: Instance Number."""

    position: tuple[float, float, float]
    number: int | None = None
    thickness: float | None = None
    between: float | None = None


@dataclass(frozen=True, slots=True)
class StackReport:
    """``spacing``: mm along the normal when the planes are evenly spaced, else None. ``notes``: for the report."""

    spacing: float | None
    notes: tuple[str, ...] = ()


def is_orientation(values: Sequence[float]) -> bool:
    """Whether the six values are two orthogonal unit vectors (PS3.3 C.7.6.2.1.1), within 0.01."""
    row, column = np.asarray(values[:3], float), np.asarray(values[3:], float)
    deviation = (abs(row @ row - 1), abs(column @ column - 1), abs(row @ column))
    return bool(max(deviation) <= 2 * _UNIT_TOLERANCE)


def same_orientation(one: Orientation, other: Orientation) -> bool:
    """Whether rows and columns point the same way, within 1 degree."""
    rows = np.dot(one[:3], other[:3])
    columns = np.dot(one[3:], other[3:])
    return bool(min(rows, columns) >= _SAME_DIRECTION)


def stacking_axis(orientation: Orientation) -> Vector:
    """The unit normal of the planes, in the sense in which a Volume is ordered.

    Transverse planes: feet to head; coronal: anterior to posterior; sagittal: right to left. For oblique planes
    the largest component decides, and the head axis wins a tie.
    """
    normal = np.cross(orientation[:3], orientation[3:])
    normal = normal / np.linalg.norm(normal)
    weights = np.abs(normal) + np.array([0.0, 1e-4, 2e-4])
    sign = 1.0 if normal[int(np.argmax(weights))] > 0 else -1.0
    return np.asarray(normal * sign)


def along(axis: Vector, positions: Sequence[tuple[float, float, float]]) -> Vector:
    """Distance of each position along ``axis`` in mm, shape (n,)."""
    return np.asarray(positions, dtype=np.float64).reshape(-1, 3) @ axis


def places(distances: Vector) -> tuple[tuple[int, ...], ...]:
    """Indices of planes that lie at one place, place by place in ascending order."""
    found: list[list[int]] = []
    last = 0.0
    for index in (int(i) for i in np.argsort(distances, kind="stable")):
        if found and distances[index] - last < SAME_PLACE_MM:
            found[-1].append(index)
        else:
            found.append([index])
            last = float(distances[index])
    return tuple(tuple(place) for place in found)


def examine_stack(axis: Vector, spots: Sequence[Spot]) -> StackReport:
    """Judge the spacing of planes in ascending order along ``axis``, each at a place of its own.

    Even spacing: no plane is off the even grid by more than a tenth of the spacing. A step of 1.5 times the usual
    one or more is a gap, unless the scanner left it on purpose: the Instance Numbers go on without a jump; or,
    where the numbers say nothing, Slice Thickness fills the step or it is one of three or more equal steps. Such
    a stack and one of uneven smaller steps has no spacing and a note.
    Raises NotAnalysable for a gap: a result on a stack with missing planes would claim more than was seen.
    """
    if len(spots) == 1:
        return StackReport(None, ("single slice",))
    distances = along(axis, [spot.position for spot in spots])
    steps = np.diff(distances)
    even = _evenly_spaced(distances)
    if even is None:
        _refuse_gaps(steps, spots)
    else:
        _refuse_thinned_pair(even, spots)
    shear, aligned = _shear(axis, spots)
    notes = list(shear)
    if even is None:
        notes.append(f"slice spacing varies from {steps.min():.2f} to {steps.max():.2f} mm")
    elif (between := _stated_spacing(spots)) and even >= _JUMP * between:
        notes.append(f"slices lie {even:.2f} mm apart where the header says {between:.2f} mm: slices may be missing")
    return StackReport(even if aligned else None, tuple(notes))


def _evenly_spaced(distances: Vector) -> float | None:
    spacing = float(distances[-1] - distances[0]) / (len(distances) - 1)
    grid = distances[0] + spacing * np.arange(len(distances))
    off = float(np.abs(distances - grid).max())
    uneven = float(np.abs(np.diff(distances) - spacing).max())
    return spacing if off <= _UNEVEN * spacing and uneven <= 2 * _UNEVEN * spacing else None


def _usual_step(steps: Vector) -> float:
    return float(np.sort(steps)[(len(steps) - 1) // 2])


def _refuse_gaps(steps: Vector, spots: Sequence[Spot]) -> None:
    usual = _usual_step(steps)
    jumps = [int(i) for i in np.flatnonzero(steps >= _JUMP * usual)]
    for index in jumps:
        if not _on_purpose(index, jumps, steps, spots):
            missing = max(1, round(float(steps[index]) / usual) - 1)
            raise NotAnalysable(
                f"slice gap: {missing} {'slice' if missing == 1 else 'slices'} missing between slices {index + 1} and "
                f"{index + 2} ({steps[index]:.2f} mm apart, the others {usual:.2f} mm)"
            )


def _on_purpose(index: int, jumps: Sequence[int], steps: Vector, spots: Sequence[Spot]) -> bool:
    consecutive = _numbers_go_on(index, jumps, spots)
    if consecutive is not None:
        return consecutive
    thickness = min(spots[index].thickness or 0.0, spots[index + 1].thickness or 0.0)
    if thickness >= 0.9 * steps[index]:
        return True
    like = [i for i in jumps if abs(steps[i] - steps[index]) <= _UNEVEN * steps[index]]
    return any(set(range(start, start + _RUN)) <= set(like) for start in range(index - _RUN + 1, index + 1))


def _numbers_go_on(index: int, jumps: Sequence[int], spots: Sequence[Spot]) -> bool | None:
    """Whether the Instance Number advances over a jump as it does elsewhere; None when the numbers say nothing."""
    numbers = [spot.number for spot in spots]
    advances = [None if a is None or b is None else b - a for a, b in pairwise(numbers)]
    regular = {advance for i, advance in enumerate(advances) if i not in jumps}
    if len(regular) != 1 or None in regular or 0 in regular or advances[index] is None:
        return None
    return advances[index] in regular


def _stated_spacing(spots: Sequence[Spot]) -> float:
    return max(spot.between or 0.0 for spot in spots)


def _refuse_thinned_pair(step: float, spots: Sequence[Spot]) -> None:
    """Two planes alone show no gap; Spacing Between Slices does (PS3.3 C.8.3.1)."""
    between = _stated_spacing(spots)
    if len(spots) == 2 and between > 0 and step >= _JUMP * between:
        raise NotAnalysable(f"slice gap: the two slices lie {step:.2f} mm apart where the header says {between:.2f} mm")


def _shear(axis: Vector, spots: Sequence[Spot]) -> tuple[tuple[str, ...], bool]:
    """Notes on planes that shift sideways, and whether the stack is a parallelepiped."""
    offsets = np.asarray([spot.position for spot in spots]) - np.asarray(spots[0].position)
    heights = offsets @ axis
    sideways = offsets - np.outer(heights, axis)
    slope = sideways[-1] / heights[-1]
    wander = float(np.linalg.norm(sideways - np.outer(heights, slope), axis=1).max())
    if wander > 1.0:
        return (f"slices shift sideways unevenly, by up to {wander:.1f} mm",), False
    tilt = float(np.degrees(np.arctan(np.linalg.norm(slope))))
    return (
        (f"gantry tilt of {tilt:.1f} degrees: slices are analysed as acquired",) if tilt >= _SHEAR_DEGREES else ()
    ), True
