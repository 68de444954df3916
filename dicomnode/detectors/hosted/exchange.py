"""What an external program left: one segmentation, as NIfTI or as DICOM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dicomnode.detectors.contract import Mask, Volume
from dicomnode.detectors.hosted.grid import by_plane, grid_of, onto_grid
from dicomnode.errors import Permanent


class Unreadable(Permanent):
    """An answer that cannot be used; the text quotes nothing of it."""


def read_segmentation(
    folder: Path, volume: Volume, written: Mapping[str, int], indices: Sequence[int]
) -> dict[int, Mask]:
    """Label index to mask, shape (planes, rows, columns), from the one ``.nii``, ``.nii.gz`` or ``.dcm`` in ``folder``.

    ``written``: SOP Instance UIDs that the program was given, with their planes. Raises Unreadable.
    """
    from dicomnode.detectors.hosted.exchange_dicom import read_dicom_segmentation
    from dicomnode.detectors.hosted.exchange_nifti import read_nifti

    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    nifti = [path for path in files if path.name.endswith((".nii", ".nii.gz"))]
    dicom = [path for path in files if path.suffix == ".dcm"]
    if len(nifti) + len(dicom) != 1:
        raise Unreadable(f"it left {len(nifti)} NIfTI and {len(dicom)} DICOM files; one is expected")
    if dicom:
        return read_dicom_segmentation(dicom[0], volume, written, indices)
    grid = grid_of(volume)
    if isinstance(grid, str):
        raise Unreadable(grid)
    labels, affine = read_nifti(nifti[0])
    if labels.ndim != 3:
        raise Unreadable(f"the NIfTI file has {labels.ndim} axes, a label map has three")
    values = by_plane(onto_grid(labels, affine, grid))
    return {index: np.asarray(values == index, bool) for index in indices}
