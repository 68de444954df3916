"""A regular stack as a SimpleITK image, for resampling and measuring in patient coordinates."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from dicomnode.detect.geometry import Vector, same_orientation, stacking_axis
from dicomnode.detect.volume_terms import NotAnalysable
from dicomnode.detectors.contract import Volume

_OFF_GRID_MM = 0.1


def to_image(volume: Volume) -> sitk.Image:
    """The Volume as a float32 image; index (column, row, plane), physical points in mm, LPS (PS3.3 C.7.6.2.1.1).

    Raises NotAnalysable when the planes form no rectangular grid: uneven spacing, different sizes, or a stack that
    a gantry tilt has sheared.
    """
    first = volume.planes[0]
    if volume.slice_spacing is None or first.spacing is None or first.position is None or first.orientation is None:
        raise NotAnalysable("the planes are not evenly spaced")
    row, column = np.array(first.orientation[:3]), np.array(first.orientation[3:])
    normal = stacking_axis(first.orientation)
    _require_grid(volume, normal * volume.slice_spacing)
    image = sitk.GetImageFromArray(np.stack([plane.pixels for plane in volume.planes]))
    image.SetSpacing((first.spacing[1], first.spacing[0], volume.slice_spacing))  # type: ignore[no-untyped-call]
    image.SetOrigin(first.position)  # type: ignore[no-untyped-call]
    image.SetDirection(np.column_stack([row, column, normal]).ravel().tolist())  # type: ignore[no-untyped-call]
    return image


def _require_grid(volume: Volume, step: Vector) -> None:
    first = volume.planes[0]
    tolerance = max(_OFF_GRID_MM, 0.1 * float(np.linalg.norm(step)))
    for index, plane in enumerate(volume.planes):
        if plane.position is None or plane.orientation is None or first.orientation is None:
            raise NotAnalysable("a plane has no position")
        if plane.shape != first.shape or not same_orientation(plane.orientation, first.orientation):
            raise NotAnalysable("the planes differ in size or orientation")
        off = np.asarray(plane.position) - np.asarray(first.position or plane.position) - index * step
        if float(np.linalg.norm(off)) > tolerance:
            raise NotAnalysable("the stack is sheared (gantry tilt): it is no rectangular grid")
