"""The nearest healthy patch: what a finding would look like if the model had found it healthy.

Patches of the same Series are compared, never those of training images: a training image is another patient's.
After PatchCore (Roth et al., CVPR 2022), whose score is a distance to the nearest healthy patch, here on grey values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from dicomnode.detectors.contract import Array, Finding, NearestHealthy, PlaneResult, Region
from dicomnode.detectors.preprocess import Prepared

Indices = npt.NDArray[np.intp]
SIDE = 24
"""Side of a patch in pixels of the network grid; a quarter of a grid that is smaller than four patches."""
MOST_PLANES, MOST_PATCHES, YARDSTICK = 24, 2500, 48
"""Planes that are searched, healthy patches on them, and healthy patches that tell the usual distance, at most."""
LEAST_PATCHES = 8
PLACE_WEIGHT = 0.5
"""What a gap of a whole grid side between two places counts, in the unit of the distance."""


@dataclass(frozen=True, slots=True)
class Searched:
    """The planes of one Series that a model has judged. ``indices``: their places in the Volume, rising.

    ``heats``: shape (n, size, size), 0..1, on the network grid; ``healthy``: heat below which a pixel is healthy.
    """

    indices: Sequence[int]
    planes: Sequence[Prepared]
    heats: Array
    healthy: float


@dataclass(frozen=True, slots=True)
class _Patches:
    """``plane``: row of ``Searched``; ``corner``: (row, column) of the upper left pixel, shape (m, 2); ``values``:
    shape (m, pixels), in standard deviations of the organ."""

    plane: Indices
    corner: Indices
    values: Array


def with_nearest(
    findings: tuple[Finding, ...], searched: Searched, results: Sequence[PlaneResult]
) -> tuple[Finding, ...]:
    """``findings`` with the nearest healthy patch of each, as far as there is one. ``results``: of all planes.

    The same input gives the same answer; the work is bounded whatever the Series.
    """
    size = searched.heats.shape[-1]
    side = patch_side(size)
    strongest = [max(own.regions, key=lambda region: (region.score, int(region.mask.sum()))) for own in findings]
    rows = {index: row for row, index in enumerate(searched.indices)}
    if not findings or any(region.plane not in rows for region in strongest):
        return findings
    spread = _spread(searched)
    healthy = _healthy_patches(searched, _chosen_rows(searched, [rows[one.plane] for one in strongest]), side, spread)
    if len(healthy.plane) < LEAST_PATCHES:
        return findings
    places = np.array([_corner(one, results[one.plane], searched.planes[rows[one.plane]], side) for one in strongest])
    asked = _cut(searched, np.array([rows[one.plane] for one in strongest]), places, side, spread)
    reach = max(len({region.plane for region in own.regions}) for own in findings)
    usual = _usual(healthy, searched, side, size, reach)
    answers = []
    for index, (finding, region) in enumerate(zip(findings, strongest, strict=True)):
        distances, costs = _compared(asked, index, healthy, searched, side, size, 1)
        best = int(np.argmin(costs))
        if not np.isfinite(costs[best]) or not np.isfinite(usual):
            answers.append(finding)
            continue
        row = int(healthy.plane[best])
        nearest = NearestHealthy(
            region.plane,
            _on_plane(asked.corner[index], searched.planes[rows[region.plane]], side, size),
            searched.indices[row],
            _on_plane(healthy.corner[best], searched.planes[row], side, size),
            round(float(distances[best]), 3),
            round(usual, 3),
            len(healthy.plane),
        )
        answers.append(replace(finding, nearest=nearest))
    return tuple(answers)


def patch_side(size: int) -> int:
    """Side of a patch on a network grid of ``size`` pixels; even."""
    return max(4, min(SIDE, size // 4) // 2 * 2)


def _spread(searched: Searched) -> float:
    """Standard deviation of the grey values of the organ, over at most so many planes as are searched."""
    rows = _evenly(len(searched.planes), MOST_PLANES)
    inside = np.concatenate([searched.planes[i].image[searched.planes[i].mask] for i in rows])
    return max(float(inside.std()), 1e-3) if inside.size else 1.0


def _evenly(count: int, most: int) -> Indices:
    """At most ``most`` of the numbers below ``count``, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.intp))


def _chosen_rows(searched: Searched, own: Sequence[int]) -> Indices:
    """The planes to search: those of the findings and their neighbours first, then evenly spaced ones."""
    n = len(searched.planes)
    near = [row + step for step in (0, 1, -1, 2, -2) for row in own if 0 <= row + step < n]
    first = list(dict.fromkeys(near))[: MOST_PLANES // 2]
    return np.union1d(first, _evenly(n, MOST_PLANES - len(first))).astype(np.intp)


def _healthy_patches(searched: Searched, rows: Indices, side: int, spread: float) -> _Patches:
    """Patches inside the organ of these planes without any heat of a region in them, on a grid of steps."""
    size, step = searched.heats.shape[-1], max(1, side // 6)
    starts = np.arange(0, size - side + 1, step)
    planes, corners = [], []
    for row in rows:
        hot = (searched.heats[row] >= searched.healthy).astype(np.float32)
        inside = searched.planes[row].mask.astype(np.float32)
        usable = (_sums(hot, side) < 0.5) & (_sums(inside, side) >= 0.75 * side * side)
        found = np.argwhere(usable[np.ix_(starts, starts)]) * step
        planes.append(np.full(len(found), row, dtype=np.intp))
        corners.append(found.astype(np.intp))
    plane, corner = np.concatenate(planes), np.concatenate(corners)
    if len(plane) > MOST_PATCHES:
        kept = _evenly(len(plane), MOST_PATCHES)
        plane, corner = plane[kept], corner[kept]
    return _cut(searched, plane, corner, side, spread)


def _sums(values: Array, side: int) -> npt.NDArray[np.float64]:
    """Sum over the square of ``side`` pixels that starts at each place, shape (size - side + 1,) * 2."""
    table = np.pad(values.astype(np.float64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    sums: npt.NDArray[np.float64] = (
        table[side:, side:] - table[:-side, side:] - table[side:, :-side] + table[:-side, :-side]
    )
    return sums


def _cut(searched: Searched, plane: Indices, corner: Indices, side: int, spread: float) -> _Patches:
    """Patches at these places, averaged over 2 x 2 pixels: noise of single pixels says nothing on likeness."""
    values = np.zeros((len(plane), side // 2, side // 2), np.float32)
    for row in np.unique(plane):
        own = np.flatnonzero(plane == row)
        windows = sliding_window_view(searched.planes[row].image, (side, side))
        patches = windows[corner[own, 0], corner[own, 1]]
        values[own] = patches.reshape(len(own), side // 2, 2, side // 2, 2).mean(axis=(2, 4))
    return _Patches(plane, corner, values.reshape(len(plane), (side // 2) ** 2) / np.float32(spread))


def _corner(region: Region, result: PlaneResult, prepared: Prepared, side: int) -> tuple[int, int]:
    """Upper left pixel of the patch around the hottest place of ``region``, moved inside the grid where it must."""
    heat = np.where(region.mask, result.heat, -1.0)
    hottest = np.argwhere(heat >= heat.max() - 1e-6)
    middle = hottest[int(np.argmin(((hottest - hottest.mean(axis=0)) ** 2).sum(axis=1)))]
    size = prepared.image.shape[0]
    row, column = (place - side / 2 for place in prepared.point_on_grid(middle[0] + 0.5, middle[1] + 0.5))
    return int(np.clip(round(row), 0, size - side)), int(np.clip(round(column), 0, size - side))


def _compared(
    asked: _Patches, index: int, healthy: _Patches, searched: Searched, side: int, size: int, reach: int
) -> tuple[Array, Array]:
    """Distance of one patch to every healthy one, and the same with what a far place costs, both shape (m,).

    The other side of the organ counts as the same place. Patches that overlap it on a plane closer than ``reach``
    cost infinitely much.
    """
    distances = np.sqrt(np.mean((healthy.values - asked.values[index]) ** 2, axis=1))
    here = asked.corner[index]
    mirrored = np.array([here[0], size - side - here[1]])
    gaps = np.minimum(*(np.hypot(*(healthy.corner - place).T) for place in (here, mirrored)))
    numbers = np.asarray(searched.indices)
    close = np.abs(numbers[healthy.plane] - numbers[asked.plane[index]]) < reach
    overlapping = (np.abs(healthy.corner - here) < side).all(axis=1) & close
    costs = distances + PLACE_WEIGHT * gaps / size
    return distances, np.where(overlapping, np.inf, costs).astype(np.float32)


def _usual(healthy: _Patches, searched: Searched, side: int, size: int, reach: int) -> float:
    """The median distance of healthy patches to their nearest, found as that of a finding is; nan without any.

    ``reach``: a finding of so many planes has no healthy tissue at its own place on the next ones; neither have they.
    """
    found = []
    for index in _evenly(len(healthy.plane), YARDSTICK):
        distances, costs = _compared(healthy, int(index), healthy, searched, side, size, reach)
        best = int(np.argmin(costs))
        if np.isfinite(costs[best]):
            found.append(float(distances[best]))
    return float(np.median(found)) if found else float("nan")


def _on_plane(corner: Indices, prepared: Prepared, side: int, size: int) -> tuple[float, float, float, float]:
    """The patch at ``corner`` in pixels of its plane: (column0, row0, column1, row1); upright around the middle of a
    patch that a registration has turned."""
    row, column = prepared.point_on_plane(float(corner[0]) + side / 2, float(corner[1]) + side / 2)
    down, across = (side / 2 * length / size for length in (prepared.box.height, prepared.box.width))
    return round(column - across, 2), round(row - down, 2), round(column + across, 2), round(row + down, 2)
