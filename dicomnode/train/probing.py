"""Labelled planes on the network grid of one model, to probe it with: the same for every probe of a stress test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dicomnode.detectors.contract import Array, Mask
from dicomnode.detectors.ensemble import batch_of
from dicomnode.detectors.methods.contract import Planes
from dicomnode.detectors.preprocess import Prepared
from dicomnode.detectors.residual import ResidualDetector, score_planes
from dicomnode.errors import ConfigError
from dicomnode.train.datasets import Picture, read_plane, stacks_of, truth_of
from dicomnode.train.statistics import Bools, Indices, deciles

LEAST_SHARE = 0.002
"""Share of the grid that an outline must cover to be pointed at."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Planes to probe a model with. ``abnormal``: shape (n,). ``truths``: outlines, shape of the planes, empty where
    not known or too small. ``strata``: tenths of the position in the series, all 0 for projections."""

    planes: Planes
    abnormal: Bools
    truths: Mask
    strata: Indices

    def part(self, rows: Sequence[int]) -> Planes:
        """Some of the planes."""
        return self.planes.chosen(rows)

    def with_images(self, images: Array) -> Planes:
        """The same planes with other grey values, shape (n, size, size)."""
        return replace(self.planes, images=images.astype(np.float32))


def probe_of(
    detector: ResidualDetector, pictures: Sequence[Picture], unit: float, limit: int, *, stacked: bool = False
) -> Probe:
    """Up to ``limit`` usable planes of the labels 0 and 1, as many of either as there are, evenly over the list.

    ``stacked``: the model needs neighbours, so that whole series are taken until there are enough planes. ``unit``:
    modality units per grey value. Raises ConfigError without usable planes of both labels, or for unreadable pictures.
    """
    labelled = [picture for picture in pictures if picture.label in (0, 1)]
    order = _whole_series(labelled) if stacked else _by_turns(labelled)
    found: list[tuple[Picture, Prepared, Mask]] = []
    for group in order:
        if len(found) >= limit:
            break
        for picture in group:
            plane = read_plane(picture, unit)
            prepared = detector.prepare(plane)
            if isinstance(prepared, Prepared):
                found.append((picture, prepared, _truth(picture, prepared, plane.shape)))
    if len({picture.label for picture, _, _ in found}) < 2:
        raise ConfigError("a stress test needs usable pictures with label 0 and with label 1")
    return _probe(found)


def raw_scores(detector: ResidualDetector, planes: Planes) -> tuple[Array, Bools]:
    """The raw plane scores, mean of the folds, and which planes are called abnormal at 1 - alpha; both shape (n,)."""
    raws = score_planes(detector.ensemble, detector.calibration, planes).plane_raws
    level = 1.0 - detector.calibration.alpha - 1e-9
    called = [
        detector.calibration.plane_score_of([float(one) for one in raws[:, i]]) >= level for i in range(len(planes))
    ]
    return raws.mean(axis=0), np.array(called, dtype=bool)


def _by_turns(pictures: Sequence[Picture]) -> list[list[Picture]]:
    """Pictures alone, abnormal and normal ones by turns, each evenly over the list whatever part is taken."""
    either = [_spread_out([picture for picture in pictures if picture.label == label]) for label in (1, 0)]
    turns = list(zip(*either, strict=False))
    rest = max(either, key=len)[len(turns) :]
    return [[picture] for pair in turns for picture in pair] + [[picture] for picture in rest]


def _spread_out(pictures: Sequence[Picture]) -> list[Picture]:
    """The same pictures in a fixed random order."""
    return [pictures[i] for i in np.random.default_rng(0).permutation(len(pictures))]


def _whole_series(pictures: Sequence[Picture]) -> list[list[Picture]]:
    groups = [[pictures[i] for i in stack] for stack in stacks_of(pictures)]
    either = [[group for group in groups if any(one.label == 1 for one in group) is own] for own in (True, False)]
    order = [group for pair in zip(*either, strict=False) for group in pair]
    return order + max(either, key=len)[len(order) // 2 :]


def _truth(picture: Picture, prepared: Prepared, shape: tuple[int, int]) -> Mask:
    size = prepared.image.shape[0]
    outline = truth_of(picture, shape) if picture.label == 1 else None
    if outline is None:
        return np.zeros((size, size), dtype=bool)
    truth = prepared.from_plane(outline.astype(np.float32)) > 0.5
    return truth if truth.mean() >= LEAST_SHARE else np.zeros_like(truth)


def _probe(found: Sequence[tuple[Picture, Prepared, Mask]]) -> Probe:
    pictures, prepared, truths = (
        [one for one, _, _ in found],
        [one for _, one, _ in found],
        [one for _, _, one in found],
    )
    planes = batch_of(prepared, stacks_of(pictures))
    positions = [picture.position for picture in pictures]
    placed = [position for position in positions if position is not None]
    strata = deciles(np.array(placed)) if len(placed) == len(positions) else np.zeros(len(positions), dtype=np.intp)
    return Probe(planes, np.array([picture.label == 1 for picture in pictures]), np.stack(truths), strata)
