"""The face of a head in CT or MR, removed from the skin inwards (option 113102 of CID 7050).

Classical and cautious: what lies below the line of the brows, in front, and within 15 mm of the surface, becomes air;
with it all that is in front of the surface there, for noise in air repeats its outline. Ears, teeth deeper than that
and the shape of the skull stay. It makes recognition harder and proves nothing about it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK
from scipy import ndimage

from dicomnode.errors import Permanent

Mask = npt.NDArray[np.bool_]
Volume = npt.NDArray[Any]
DEPTH_MM = 15.0
_KEEP_MM = 4.0
"""Around the brain nothing is touched."""
_GRID_MM = 3.0
_LEAST_SLICES, _LEAST_HEIGHT_MM = 20, 150.0
_LEAST_LENGTH_MM, _MOST_LENGTH_MM = 120.0, 300.0
_BROWS = 0.45
"""How far the brows lie below the vertex, in lengths of the head from front to back."""
_FRONT = 0.42
"""How far back from its foremost point the face reaches, in lengths of the head."""
_SKIN_HU, _BONE_HU = -300.0, 300.0
_BRAIN_HU = (0.0, 100.0)


class NotAWholeHead(Permanent):
    """The volume is none of which this could take the face; the text says why and holds no patient data."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """``directions``: rows are the unit vectors, in patient coordinates (x left, y back, z up), along which slices,
    rows and columns go on; ``spacing``: mm along each (PS3.3 C.7.6.2.1.1)."""

    directions: npt.NDArray[np.float64]
    spacing: tuple[float, float, float]


def face(volume: Volume, geometry: Geometry, modality: str) -> Mask:
    """Which voxels of ``volume`` (slices, rows, columns) must become air.

    CT in HU, MR in any unit. Raises NotAWholeHead when it is not a head from above the chin to the vertex.
    """
    if len(volume) < _LEAST_SLICES:
        raise NotAWholeHead("it has too few slices")
    order, flipped = _to_patient(geometry)
    spacing = tuple(geometry.spacing[axis] for axis in order)
    turned = np.flip(volume.transpose(order), tuple(flipped))
    factors = [step / _GRID_MM for step in spacing]
    coarse = ndimage.zoom(turned.astype(np.float32), factors, order=1, grid_mode=True, mode="nearest")
    found = _coarse_face(coarse, modality)
    fine: npt.NDArray[np.float32] = ndimage.zoom(
        found.astype(np.float32), np.array(turned.shape) / found.shape, order=1, grid_mode=True, mode="nearest"
    )
    found = np.flip(fine > 0.5, tuple(flipped))
    return np.ascontiguousarray(found.transpose(np.argsort(order)))


def _to_patient(geometry: Geometry) -> tuple[list[int], list[int]]:
    """The order of axes, and those to flip, after which they go up, back and left."""
    closest = np.abs(geometry.directions)
    order, flipped = [], []
    for place, patient_axis in enumerate((2, 1, 0)):
        axis = int(np.argmax(closest[:, patient_axis]))
        if axis in order:
            raise NotAWholeHead("its axes do not agree with those of the patient")
        order.append(axis)
        if geometry.directions[axis, patient_axis] < 0:
            flipped.append(place)
    return order, flipped


def _coarse_face(volume: npt.NDArray[np.float32], modality: str) -> Mask:
    """On a grid of 3 mm whose axes go up, back and left."""
    head = _head(volume, modality)
    up, back, _ = (np.flatnonzero(head.any(axis=other)) for other in ((1, 2), (0, 2), (0, 1)))
    height, length = _GRID_MM * len(up), _GRID_MM * _length(head)
    if not _LEAST_LENGTH_MM <= length <= _MOST_LENGTH_MM:
        raise NotAWholeHead("no head of a usual size is found")
    if height < _LEAST_HEIGHT_MM:
        raise NotAWholeHead("it does not reach from the face to the vertex")
    areas = head.sum(axis=(1, 2))
    if areas[-1] > 0.5 * areas.max():
        raise NotAWholeHead("the vertex is cut off")
    brows = int(up[-1] - _BROWS * length / _GRID_MM)
    reach = int(_FRONT * length / _GRID_MM)
    depth = ndimage.distance_transform_edt(np.pad(head, 1, constant_values=True)[1:-1, 1:-1, 1:-1], _GRID_MM)
    region = np.zeros(head.shape, bool)
    first = int(back[0])
    region[: brows + 1, : first + reach] = True
    return np.asarray(region & (depth <= DEPTH_MM) & ~_brain(volume, head, modality))


def _length(head: Mask) -> int:
    """The greatest extent from front to back in the upper half, where no neck and no shoulders are."""
    up = np.flatnonzero(head.any(axis=(1, 2)))
    upper = head[(up[0] + up[-1]) // 2 :]
    return int(upper.any(axis=2).sum(axis=1).max())


def _head(volume: npt.NDArray[np.float32], modality: str) -> Mask:
    """The largest body without holes: skin and all that is inside."""
    sitk: Any = SimpleITK
    image = sitk.GetImageFromArray(volume)
    body = image > (
        _SKIN_HU
        if modality == "CT"
        else _skin_of_mr(volume, sitk.GetArrayFromImage(sitk.OtsuThreshold(image, 0, 1, 128)) > 0)
    )
    body = sitk.BinaryMorphologicalOpening(sitk.Cast(body, sitk.sitkUInt8), (1, 1, 1))
    parts = sitk.RelabelComponent(sitk.ConnectedComponent(body))
    largest = sitk.BinaryMorphologicalClosing(sitk.Cast(parts == 1, sitk.sitkUInt8), (3, 3, 3))
    head = np.asarray(sitk.GetArrayFromImage(largest)).astype(bool)
    if not head.any():
        raise NotAWholeHead("no head is found")
    return np.stack([ndimage.binary_fill_holes(layer) for layer in head])


def _skin_of_mr(volume: npt.NDArray[np.float32], bright: Mask) -> float:
    """Above the air by a seventh of what bright tissue is: cortical bone must not cut the brain off the skin."""
    air, tissue = float(np.median(volume[~bright])), float(np.median(volume[bright]))
    return air + (tissue - air) / 7


def _brain(volume: npt.NDArray[np.float32], head: Mask, modality: str) -> Mask:
    """What must stay: in CT the soft tissue inside the skull with a margin, in MR what lies deep in the head."""
    if modality != "CT":
        return np.asarray(ndimage.distance_transform_edt(head, _GRID_MM) > DEPTH_MM + _KEEP_MM)
    skull = ndimage.binary_closing(volume > _BONE_HU, iterations=2)
    inside = np.stack([ndimage.binary_fill_holes(layer) for layer in skull]) & ~skull
    soft = inside & (volume > _BRAIN_HU[0]) & (volume < _BRAIN_HU[1])
    labels, count = ndimage.label(ndimage.binary_opening(soft))
    if not count:
        raise NotAWholeHead("no brain is found inside a skull")
    largest = labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    return np.asarray(ndimage.distance_transform_edt(~largest, _GRID_MM) <= _KEEP_MM + _GRID_MM)
