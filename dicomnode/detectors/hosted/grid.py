"""Where the voxels of a Volume are: as one array with an affine, and back from another grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from dicomnode.detectors.contract import Array, Volume

Affine = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int32]
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, slots=True)
class Grid:
    """``affine``: 4 x 4, voxel index (column, row, plane) to mm in RAS, as NIfTI has it; ``shape``: in that order."""

    affine: Affine
    shape: tuple[int, int, int]


def grid_of(volume: Volume) -> Grid | str:
    """The grid of a regular stack, or why ``volume`` has none.

    DICOM's patient axes are LPS (PS3.3 C.7.6.2.1.1), NIfTI's RAS: the first two axes change their sign.
    """
    first, last = volume.planes[0], volume.planes[-1]
    if first.position is None or last.position is None or first.orientation is None or first.spacing is None:
        return "the images have no place in the patient; this model needs slices"
    if len({plane.shape for plane in volume.planes}) > 1:
        return "the images differ in size"
    if len(volume.planes) < 2 or volume.slice_spacing is None:
        return "the images form no regular stack; this model needs a volume"
    affine = np.eye(4)
    affine[:3, 0] = np.array(first.orientation[:3]) * first.spacing[1]
    affine[:3, 1] = np.array(first.orientation[3:]) * first.spacing[0]
    affine[:3, 2] = (np.array(last.position) - np.array(first.position)) / (len(volume.planes) - 1)
    affine[:3, 3] = first.position
    rows, columns = first.shape
    return Grid(_LPS_TO_RAS @ affine, (columns, rows, len(volume.planes)))


def voxels(volume: Volume) -> Array:
    """The pixels of a stack as one array in the order of its grid: (column, row, plane), float32."""
    stack = np.stack([plane.pixels for plane in volume.planes])
    return np.ascontiguousarray(stack.transpose(2, 1, 0), dtype=np.float32)


def by_plane(labels: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """An array in the order of the grid, (column, row, plane), as the planes have it: (plane, row, column)."""
    return labels.transpose(2, 1, 0)


def onto_grid(labels: Labels, affine: Affine, grid: Grid) -> Labels:
    """Label values on another grid, brought to ``grid`` by nearest neighbour; 0 where the other grid does not reach."""
    if labels.shape == grid.shape and np.allclose(affine, grid.affine, atol=1e-3):
        return labels
    step = np.linalg.inv(affine) @ grid.affine
    moved: Labels = ndimage.affine_transform(
        labels, step[:3, :3], step[:3, 3], output_shape=grid.shape, order=0, mode="constant", cval=0
    )
    return moved
