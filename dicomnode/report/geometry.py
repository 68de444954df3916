"""Spacing, aspect and orientation of a source image, as result objects state them (PS3.3 C.7.6.1, C.7.6.2, C.7.6.3)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import gcd, isfinite

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from dicomnode.detectors.contract import Plane

DIRECTIONS = re.compile(r"(?:[LR]|[AP]|[HF]){1,3}\Z")
"""One value of Patient Orientation (PS3.3 C.7.6.1.1.1)."""

_LETTERS = ("RL", "AP", "FH")
_LEAST_COSINE = 0.05


def decimal(value: float) -> str:
    """``value`` as VR DS (PS3.5 6.2): as exact as 16 characters allow."""
    texts = (f"{value:.{digits}g}" for digits in range(15, 0, -1))
    return next(text for text in texts if len(text) <= 16)


def number(header: Dataset, keyword: str) -> float | None:
    """A single numeric value of the source, None when it is absent, empty or no number."""
    try:
        value = float(header.get(keyword) or 0)
    except (TypeError, ValueError):
        return None
    return value if isfinite(value) and value > 0 else None


def pixel_distance(plane: Plane, header: Dataset) -> tuple[float, float] | None:
    """(row, column) distance in mm: the plane's own, else at the detector (Imager Pixel Spacing), else None.

    The second is no size in the patient and must not be written as Pixel Spacing.
    """
    if plane.spacing is not None:
        return plane.spacing
    try:
        values = [float(value) for value in header.get("ImagerPixelSpacing") or ()]
    except (TypeError, ValueError):
        return None
    return (values[0], values[1]) if len(values) == 2 and min(values) > 0 else None


def aspect_ratio(plane: Plane, header: Dataset) -> list[int] | None:
    """Pixel Aspect Ratio (0028,0034) as vertical, horizontal; None for square or unknown pixels."""
    distance = pixel_distance(plane, header)
    if distance is None:
        return None
    vertical, horizontal = (round(value * 1000) for value in distance)
    if not vertical or not horizontal or abs(vertical / horizontal - 1) <= 0.001:
        return None
    divisor = gcd(vertical, horizontal)
    return [vertical // divisor, horizontal // divisor]


def patient_orientation(plane: Plane, header: Dataset) -> list[str]:
    """Patient Orientation (0020,0020) of ``plane``; see ``orientation_of``."""
    return orientation_of(header, plane.orientation)


def orientation_of(header: Dataset, cosines: Sequence[float] | None) -> list[str]:
    """The source's Patient Orientation where it is one, else from its direction cosines (C.7.6.1.1.1), else []."""
    stated = header.get("PatientOrientation")
    directions = [str(value) for value in stated] if isinstance(stated, MultiValue | list) else []
    if len(directions) == 2 and all(DIRECTIONS.match(direction) for direction in directions):
        return directions
    if cosines is None or len(cosines) != 6:
        return []
    return [_letters(cosines[:3]), _letters(cosines[3:])]


def _letters(direction: Sequence[float]) -> str:
    order = sorted(range(3), key=lambda axis: -abs(direction[axis]))
    return "".join(_LETTERS[axis][direction[axis] > 0] for axis in order if abs(direction[axis]) > _LEAST_COSINE)


def slice_thickness(plane: Plane, header: Dataset) -> float | None:
    """Slice Thickness in mm: of the plane's frame in an enhanced source, else of the Instance; None when not stated."""
    measures = functional_group(header, plane.frame, "PixelMeasuresSequence")
    return (number(measures, "SliceThickness") if measures else None) or number(header, "SliceThickness")


def functional_group(header: Dataset, frame: int | None, keyword: str) -> Dataset | None:
    """The item of a functional group of ``frame``, its own or the shared one (PS3.3 C.7.6.16.1); None: it has none."""
    own = list(header.get("PerFrameFunctionalGroupsSequence") or ())[frame - 1 : frame] if frame else []
    for groups in (*own, *(header.get("SharedFunctionalGroupsSequence") or ())):
        for item in groups.get(keyword) or ():
            return Dataset(item)
    return None
