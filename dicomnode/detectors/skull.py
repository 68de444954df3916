"""The inside of the skull on one axial CT plane, also where the bone leaves gaps (orbits, skull base, vertex)."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from dicomnode.detectors.contract import Array, Mask

BONE = 0.92
"""Share of the 80 HU window from which a pixel is bone."""
_SOFT = 0.1
_FULL = 0.25
"""Share of the head from which what bone surrounds is taken for the whole inside."""
_SOLID = 0.35
"""Share of bone in the head from which its inside is small for good reason (skull base)."""
_WIDE_GAPS = (10, 20)
_NECK = 9.0
_MOSTLY_SOFT = 0.4
_RIM_OF_BONE = 0.6


def inside_skull(work: Array, head: Mask) -> Mask:
    """What bone surrounds, without the bone but with dense islands (blood); shape (rows, columns) as ``work``.

    ``work``: share of the 80 HU window, 0..1, at most 256 pixels a side. ``head``: the head without holes. Gaps are
    closed with growing width until the inside fills a quarter of the head. Where the skull is too open for that, it
    is the widest soft part, if bone lies along most of its rim; else the greatest inside that was found.
    """
    if not head.any():
        return np.zeros_like(head)
    part = _around(head)
    inside = np.zeros_like(head)
    inside[part] = _inside(work[part], head[part])
    return inside


def largest(mask: Mask) -> Mask:
    """The largest connected part of ``mask``."""
    labels, n = ndimage.label(mask)
    if n < 2:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels == int(sizes.argmax())  # type: ignore[no-any-return]


def _around(head: Mask) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(head.any(axis=1)), np.flatnonzero(head.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _inside(work: Array, head: Mask) -> Mask:
    bone, area = (work >= BONE) & head, int(head.sum())
    soft = head & ~bone & (work > _SOFT)
    narrow = ndimage.binary_closing(np.pad(bone, 8), iterations=4)[8:-8, 8:-8]
    found = [_filled(narrow, soft)]
    if found[0].sum() >= _FULL * area or bone.sum() > _SOLID * area:
        return found[0]
    for radius in _WIDE_GAPS:
        found.append(_filled(_closed(bone, radius), soft))
        if found[-1].sum() >= _FULL * area:
            return found[-1]
    widest = _widest(soft, bone)
    if widest.sum() >= _MOSTLY_SOFT * area and _lined(widest, bone):
        return widest
    return max(found, key=lambda mask: int(mask.sum()))


def _filled(closed: Mask, soft: Mask) -> Mask:
    """The largest soft part that ``closed`` bone surrounds, its holes filled."""
    inside = ndimage.binary_fill_holes(closed) & soft
    core = largest(ndimage.binary_opening(inside, iterations=2))
    return ndimage.binary_fill_holes(core)  # type: ignore[no-any-return]


def _closed(bone: Mask, radius: int) -> Mask:
    """``bone`` closed over gaps of up to twice ``radius`` pixels, by a disc."""
    pad = radius + 2
    grown = ndimage.distance_transform_edt(~np.pad(bone, pad)) <= radius
    return (ndimage.distance_transform_edt(grown) > radius)[pad:-pad, pad:-pad] | bone  # type: ignore[no-any-return]


def _widest(soft: Mask, bone: Mask) -> Mask:
    """The soft part around its widest place, cut off at necks narrower than twice 9 pixels."""
    seed = largest(ndimage.distance_transform_edt(soft) > _NECK)
    if not seed.any():
        return seed
    part = (ndimage.distance_transform_edt(~seed) <= _NECK) & soft
    return ndimage.binary_fill_holes(part) & ~bone  # type: ignore[no-any-return]


def _lined(core: Mask, bone: Mask) -> bool:
    rim = core & ~ndimage.binary_erosion(core, iterations=2)
    return bool((ndimage.distance_transform_edt(~bone)[rim] <= 4).mean() >= _RIM_OF_BONE)
