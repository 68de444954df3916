"""From heat maps to regions with closed outlines, and from regions on neighbouring planes to findings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.measure import approximate_polygon, find_contours

from dicomnode.detectors.contract import Array, Finding, Mask, Plane, Region

MAX_REGIONS_PER_PLANE = 5
MAX_FINDINGS = 20


@dataclass(frozen=True, slots=True)
class RegionRule:
    """``heat``: from where a pixel belongs to a region. ``min_pixels``: smaller regions are left out."""

    heat: float
    min_pixels: float


def plane_regions(index: int, plane: Plane, heat: Array, rule: RegionRule) -> list[Region]:
    """The regions of one plane, greatest heat mass first, at most five.

    ``heat``: shape of the plane. A region is an 8-connected part of heat >= ``rule.heat`` with its holes filled.
    """
    labels, n = ndimage.label(heat >= rule.heat, structure=np.ones((3, 3)))
    if n == 0:
        return []
    numbers = np.arange(1, n + 1)
    areas = ndimage.sum_labels(np.ones_like(heat), labels, numbers)
    mass = ndimage.sum_labels(heat, labels, numbers)
    large = [int(i) for i in np.argsort(-mass, kind="stable") if areas[i] >= rule.min_pixels]
    chosen = large[:MAX_REGIONS_PER_PLANE]
    return [region_of(index, plane, heat, labels == numbers[i]) for i in chosen]


def hottest_region(index: int, plane: Plane, heat: Array, min_pixels: float) -> Region:
    """The region around the greatest heat of a plane, grown downwards until it has ``min_pixels`` pixels."""
    seed = np.unravel_index(int(np.argmax(heat)), heat.shape)
    peak = float(heat[seed])
    part = np.zeros(heat.shape, dtype=bool)
    for share in (0.99, 0.97, 0.95, 0.9, 0.8, 0.7, 0.5):
        labels, _ = ndimage.label(heat >= share * peak, structure=np.ones((3, 3)))
        part = labels == labels[seed]
        if part.sum() >= min_pixels:
            break
    return region_of(index, plane, heat, part)


def region_of(index: int, plane: Plane, heat: Array, part: Mask) -> Region:
    """A Region from its mask, holes filled."""
    mask: Mask = ndimage.binary_fill_holes(part)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    area = None
    if plane.spacing is not None:
        area = float(mask.sum()) * plane.spacing[0] * plane.spacing[1]
    return Region(
        plane=index,
        mask=mask,
        contour=outline(mask),
        box=(float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)),
        score=float(heat[mask].max()),
        area_mm2=area,
    )


def outline(mask: Mask) -> Array:
    """The outer outline of a connected mask, shape (n, 2), (column, row) in SCOORD coordinates, closed.

    The half-level isoline of the mask (marching squares), thinned to a tolerance of 0.4 pixels. In SCOORD
    coordinates the centre of the top-left pixel is (0.5, 0.5) (PS3.3 C.18.6.1.2), hence the shift by 0.5.
    """
    top, left = int(np.flatnonzero(mask.any(axis=1))[0]), int(np.flatnonzero(mask.any(axis=0))[0])
    padded = np.pad(mask[ndimage.find_objects(mask.astype(np.int8))[0]].astype(np.float32), 1)
    # "high": diagonal neighbours are one region, as in the 8-connected labelling
    longest = max(find_contours(padded, 0.5, fully_connected="high"), key=len)  # type: ignore[no-untyped-call]
    thin = approximate_polygon(longest, 0.4)  # type: ignore[no-untyped-call]
    points = thin[:, ::-1] - 1.0 + 0.5 + np.array([left, top])
    rows, columns = mask.shape
    points = np.clip(points, 0.0, (columns, rows))
    points[-1] = points[0]
    closed: Array = points.astype(np.float32)
    return closed


def link_findings(regions: Sequence[Region], prefix: str, *, stacked: bool) -> tuple[Finding, ...]:
    """Regions that overlap on neighbouring planes become one finding; greatest score first, at most 20.

    ``stacked``: whether plane numbers that differ by one are neighbours in space. Tracking ids are ``prefix-1``, ….
    """
    groups = list(range(len(regions)))
    for i, first in enumerate(regions):
        for j in range(i + 1, len(regions)):
            if stacked and _touch(first, regions[j]):
                _join(groups, i, j)
    members: dict[int, list[Region]] = {}
    for i, region in enumerate(regions):
        members.setdefault(_root(groups, i), []).append(region)
    ordered = sorted(members.values(), key=_rank)[:MAX_FINDINGS]
    return tuple(
        Finding(f"{prefix}-{number}", tuple(sorted(group, key=lambda r: (r.plane, r.box))), max(r.score for r in group))
        for number, group in enumerate(ordered, start=1)
    )


def _rank(group: Sequence[Region]) -> tuple[float, float, int]:
    best = max(region.score for region in group)
    return -round(best, 3), -float(sum(region.mask.sum() for region in group)), group[0].plane


def _touch(first: Region, second: Region) -> bool:
    if abs(first.plane - second.plane) != 1 or first.mask.shape != second.mask.shape:
        return False
    return bool((first.mask & second.mask).any())


def _root(groups: list[int], i: int) -> int:
    while groups[i] != i:
        i = groups[i]
    return i


def _join(groups: list[int], i: int, j: int) -> None:
    groups[_root(groups, j)] = _root(groups, i)
