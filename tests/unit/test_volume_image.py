"""A regular stack as a SimpleITK image keeps the physical place of every pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dicomnode.detect.volume import NotAnalysable
from dicomnode.detect.volume_image import to_image
from dicomnode.detectors.contract import Plane
from tests.unit.volume_fixtures import load, radiograph, slice_at, stack

COS, SIN = float(np.cos(np.radians(25))), float(np.sin(np.radians(25)))
ORIENTATIONS = {
    "transverse": [1, 0, 0, 0, 1, 0],
    "sagittal": [0, 1, 0, 0, 0, -1],
    "coronal": [1, 0, 0, 0, 0, -1],
    "oblique": [COS, 0, -SIN, 0, 1, 0],
    "flipped": [-1, 0, 0, 0, 1, 0],
}


def point(plane: Plane, column: int, row: int) -> np.ndarray:
    """PS3.3 C.7.6.2.1.1, equation C.7.6.2.1-1."""
    assert plane.position
    assert plane.orientation
    assert plane.spacing
    along_row, along_column = np.array(plane.orientation[:3]), np.array(plane.orientation[3:])
    return np.array(plane.position) + along_row * plane.spacing[1] * column + along_column * plane.spacing[0] * row


@pytest.mark.parametrize("orientation", ORIENTATIONS.values(), ids=ORIENTATIONS.keys())
def test_every_index_lies_where_dicom_says(tmp_path: Path, orientation: list[float]) -> None:
    normal = np.cross(orientation[:3], orientation[3:])
    slices = [
        slice_at(
            0, i + 1, ImageOrientationPatient=orientation, ImagePositionPatient=list([3, -7, 11] + 2.5 * i * normal)
        )
        for i in range(4)
    ]
    volume = load(tmp_path, slices).volume
    picture = to_image(volume)
    assert picture.GetSize() == (10, 8, 4)
    for index, plane in enumerate(volume.planes):
        for column, row in ((0, 0), (9, 0), (0, 7), (4, 6)):
            place = picture.TransformIndexToPhysicalPoint((column, row, index))
            assert np.allclose(place, point(plane, column, row), atol=1e-6)
            assert picture.GetPixel(column, row, index) == plane.pixels[row, column]


def test_what_is_no_rectangular_grid_has_no_image(tmp_path: Path) -> None:
    with pytest.raises(NotAnalysable, match="sheared"):
        to_image(load(tmp_path, stack(4, ImageOrientationPatient=[1, 0, 0, 0, COS, -SIN])).volume)
    with pytest.raises(NotAnalysable, match="evenly spaced"):
        to_image(load(tmp_path, [radiograph()]).volume)
    with pytest.raises(NotAnalysable, match="evenly spaced"):
        to_image(load(tmp_path, stack(1)).volume)
