"""A Volume as a NIfTI file, and a label map from one. nibabel comes with the extra ``bundles``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dicomnode.detectors.contract import Volume
from dicomnode.detectors.hosted.exchange import Unreadable
from dicomnode.detectors.hosted.grid import Affine, Labels, grid_of, voxels
from dicomnode.errors import ConfigError

IMAGE = "image_0000.nii.gz"
"""The name that nnU-Net wants of the first channel of a case; others do not mind."""


def require_nibabel() -> None:
    """Raises ConfigError when nibabel is missing."""
    try:
        import nibabel  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise ConfigError('NIfTI needs nibabel: pip install "dicomnode[bundles]"') from error


def write_nifti(volume: Volume, folder: Path) -> Path:
    """Write the stack as ``image_0000.nii.gz``, float32 in modality units, nothing but pixels and geometry.

    Raises ValueError for a Volume that is no regular stack.
    """
    import nibabel

    grid = grid_of(volume)
    if isinstance(grid, str):
        raise ValueError(grid)
    path = folder / IMAGE
    image = nibabel.Nifti1Image(voxels(volume), grid.affine)  # type: ignore[no-untyped-call]
    image.header.set_xyzt_units("mm")  # type: ignore[no-untyped-call]
    nibabel.save(image, path)
    return path


def read_nifti(path: Path) -> tuple[Labels, Affine]:
    """Values and affine of a label map. Raises Unreadable."""
    import nibabel

    try:
        image: Any = nibabel.load(path)
        values = np.asarray(image.dataobj)
    except (OSError, ValueError, EOFError, nibabel.filebasedimages.ImageFileError) as error:
        raise Unreadable("the NIfTI file cannot be read") from error
    return np.rint(np.nan_to_num(values.astype(np.float64))).astype(np.int32), np.asarray(image.affine, np.float64)
