"""``lung-features``: opacity map, distance from normal and healthy-against-mixed on one frozen backbone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from dicomnode.detectors.methods.backbones.frozen import Name
from dicomnode.detectors.methods.contract import (
    Family,
    Material,
    MethodEntry,
    Planes,
    Regime,
    Run,
    Tensors,
)
from dicomnode.detectors.methods.drawing import at_size, plane_pool
from dicomnode.detectors.methods.features.frozen_method import FrozenMethod, FrozenSettings
from dicomnode.detectors.methods.features.lung_heads import (
    Distance,
    Linear,
    Matrix,
    RidgeSums,
    balanced,
    fit_distance,
    weighted_ridge,
)
from dicomnode.detectors.methods.features.lung_network import GridPlan, LungNetwork, moments, pooled
from dicomnode.detectors.methods.features.lung_opacities import LungPicture, made_up
from dicomnode.detectors.methods.fitting import Player
from dicomnode.errors import ConfigError

PARTS = 5
"""Parts of the healthy planes of which each is left out once to learn level and spread of the readings."""
_WALK = 16
_LEAST_REFERENCE = 20
_REFERENCE_SHARE = 0.6


class LungFeaturesSettings(FrozenSettings):
    """``size``: planes are averaged down to it, which takes away what the size of a file tells. ``zoom``: and
    enlarged again by it. ``steps``, ``batch``: made-up pictures are steps times batch. ``blocks``: outputs of
    MobileNetV2 that are read. ``cells``: side of their grid. ``top_share``: cells that make the opacity score.
    ``ridge``, ``mixed_ridge``: penalties of the regressions. ``components``: of the distance. ``reference``:
    projection whose pictures are the normal of the distance. ``opacity``, ``mixed``, ``distance``: weights in the
    score; without ``mixed`` no mixed set is needed."""

    size: int = Field(default=64, ge=32, le=512)
    zoom: int = Field(default=4, ge=1, le=8)
    steps: int = Field(default=50, ge=1)
    backbone: Name = "mobilenet-v2"
    blocks: tuple[int, ...] = (6, 10, 13, 17)
    cells: int = Field(default=16, ge=4, le=64)
    top_share: float = Field(default=40 / 256, gt=0, le=1)
    ridge: float = Field(default=0.01, gt=0)
    mixed_ridge: float = Field(default=1.0, gt=0)
    components: int = Field(default=80, ge=1)
    reference: str = "PA"
    opacity: float = Field(default=1.0, ge=0)
    mixed: float = Field(default=1.0, ge=0)
    distance: float = Field(default=1.0, ge=0)

    @model_validator(mode="after")
    def _readable(self) -> Self:
        if self.backbone != "mobilenet-v2":
            raise ValueError("backbone is mobilenet-v2")
        if (
            list(self.blocks) != sorted(set(self.blocks))
            or not set(self.blocks) <= set(range(1, 18))
            or not self.blocks
        ):
            raise ValueError("blocks are rising numbers from 1 to 17")
        if self.opacity + self.mixed + self.distance <= 0:
            raise ValueError("one of opacity, mixed and distance is above 0")
        return self

    @property
    def plan(self) -> GridPlan:
        top = max(1, round(self.top_share * self.cells**2))
        return GridPlan(self.blocks, self.cells, self.zoom, self.components, top)


@dataclass(frozen=True, slots=True)
class Collected:
    """Features of n planes, shape (n, …). ``opacity``: the opacity score, shape (n,)."""

    pooled: Matrix
    moments: Matrix
    opacity: Matrix


class LungFeatures(FrozenMethod[LungFeaturesSettings]):
    """Score: sum of the readings, each in healthy standard deviations. Map: opacity per cell, its positive part."""

    network: LungNetwork

    def make(self) -> LungNetwork:
        return LungNetwork(self.settings.plan)

    def players(self) -> Sequence[Player]:
        return ()

    def resize(self, tensors: Tensors) -> None:
        axes = tensors.get("distance_axes")
        if axes is not None and axes.ndim == 2:
            self.network.distance_axes = torch.zeros(axes.shape)
            self.network.distance_centre = torch.zeros(axes.shape[0])
            self.network.distance_side = torch.zeros(axes.shape[0])

    def judge_batch(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002 - part of the seam
        with torch.autocast(images.device.type, enabled=False):
            grid = self.network(images.float())
            weights = images.new_tensor([self.settings.opacity, self.settings.mixed, self.settings.distance]).float()
            scores = self.network.readings(grid) @ weights
            maps = self.network.opacity(grid).clamp(min=0.0)[:, None]
        return scores, F.interpolate(maps, size=images.shape[-2:], mode="bilinear", align_corners=False)

    def fit(self, material: Material, run: Run) -> None:
        if len(material.healthy) < 2 * PARTS:
            raise ConfigError(f"lung-features needs {2 * PARTS} healthy planes")
        if self.settings.mixed > 0 and material.mixed is None:
            raise ConfigError("lung-features learns from a mixed set too, unless its setting mixed is 0")
        self.network = self.make()
        self.before_fit(material)
        self.to(run.accelerator)
        with torch.no_grad():
            self._learn_opacity(material.healthy, run)
            self._learn_healthy(material, run)
        self.to("cpu")

    def _learn_opacity(self, healthy: Planes, run: Run) -> None:
        """The opacity reading, from made-up opacities in the healthy planes."""
        pictures, reference = self._pictures(healthy)
        rng, sums = np.random.default_rng(run.seed), RidgeSums()
        steps = run.steps or self.settings.steps
        for step in range(steps):
            drawn = [made_up(pictures[_draw(reference, rng)], rng) for _ in range(self.settings.batch)]
            images, truths = (torch.from_numpy(np.stack(rows)).float()[:, None] for rows in zip(*drawn, strict=True))
            targets = F.adaptive_avg_pool2d(truths, self.settings.cells).flatten().double().numpy()
            for first in range(0, len(images), _WALK):
                grid = self._grid(at_size(images[first : first + _WALK], self.settings.size))
                rows = grid.permute(0, 2, 3, 1).flatten(0, 2).double().cpu().numpy()
                cells = self.settings.cells**2
                sums.add(rows, targets[first * cells : first * cells + len(rows)])
            _tell(run, 0.7 * (step + 1) / steps)
        _take(self.network.opacity_weights, self.network.opacity_bias, sums.solved(self.settings.ridge))

    def _pictures(self, healthy: Planes) -> tuple[list[LungPicture], npt.NDArray[np.bool_]]:
        """The planes that show both lungs, at twice the method's size, and which are of the reference projection."""
        side = 2 * self.settings.size
        images = plane_pool(healthy, side)[:, 0].numpy()
        fields = healthy.masks if healthy.fields is None else healthy.fields
        lungs = (at_size(torch.from_numpy(fields)[:, None].float(), side)[:, 0] > 0.5).numpy()
        halves = (lungs[:, :, : side // 2], lungs[:, :, side // 2 :])
        both = np.all([half.mean(axis=(1, 2)) > 0.03 for half in halves], axis=0)
        if not both.any():
            raise ConfigError("no healthy plane shows both lungs")
        chosen = np.flatnonzero(both)
        return [LungPicture(images[i], lungs[i]) for i in chosen], self._is_reference(healthy)[chosen]

    def _learn_healthy(self, material: Material, run: Run) -> None:
        """The two other readings, and level and spread of all three."""
        healthy, mirrored = (self._collect(material.healthy, flip) for flip in (False, True))
        _tell(run, 0.8)
        mixed = None
        if material.mixed is not None and self.settings.mixed > 0:
            mixed = [self._collect(material.mixed, flip) for flip in (False, True)]
        _tell(run, 0.95)
        reference = self._is_reference(material.healthy)
        heads = _Heads(self.settings, healthy, mirrored, reference, mixed, _views(material.mixed, self.settings))
        everything = np.arange(len(reference))
        self._take_distance(heads.distance(everything))
        _take(self.network.mixed_weights, self.network.mixed_bias, heads.against_mixed(everything))
        for place, scores in enumerate(heads.left_out_scores()):
            self.network.level[place] = float(scores.mean())
            self.network.spread[place] = max(float(scores.std()), 1e-6)

    def _take_distance(self, distance: Distance) -> None:
        for name in ("scale", "mean", "axes", "centre", "side"):
            value = torch.from_numpy(getattr(distance, name)).float().to(self.accelerator)
            setattr(self.network, f"distance_{name}", value)
        self.network.distance_limit.fill_(distance.limit)

    def _collect(self, planes: Planes, flip: bool) -> Collected:
        images, parts = plane_pool(planes, self.settings.size), []
        for first in range(0, len(images), _WALK):
            grid = self._grid(images[first : first + _WALK].flip(3) if flip else images[first : first + _WALK])
            parts.append((pooled(grid), moments(grid), self.network.top(self.network.opacity(grid))))
        joined = (torch.cat(rows).double().cpu().numpy() for rows in zip(*parts, strict=True))
        return Collected(*joined)

    def _grid(self, images: Tensor) -> Tensor:
        grid: Tensor = self.network(images.to(self.accelerator))
        return grid

    def _is_reference(self, planes: Planes) -> npt.NDArray[np.bool_]:
        """Which planes are of the reference projection; all of them when too few are."""
        found = _views(planes, self.settings) == 1
        return found if found.sum() >= _LEAST_REFERENCE else np.ones(len(planes), dtype=bool)


@dataclass(frozen=True, slots=True)
class _Heads:
    """Fits the two readings of real planes on some of the healthy ones, ``chosen``."""

    settings: LungFeaturesSettings
    healthy: Collected
    mirrored: Collected
    reference: npt.NDArray[np.bool_]
    mixed: list[Collected] | None
    mixed_views: npt.NDArray[np.int64]

    def distance(self, chosen: npt.NDArray[np.int64]) -> Distance:
        own = self.healthy.pooled[chosen], self.mirrored.pooled[chosen]
        return fit_distance(*own, self.reference[chosen], self.settings.components)

    def left_out_scores(self) -> tuple[Matrix, Matrix, Matrix, Matrix]:
        """Opacity, mixed and distance scores of the healthy planes, the latter two by fits without them.

        The distance twice: of planes that look like the reference projection, and of those like the other.
        """
        everything = np.arange(len(self.reference))
        against, away, other = (np.zeros(len(everything)) for _ in range(3))
        for part in np.array_split(everything, PARTS):
            rest = np.setdiff1d(everything, part)
            against[part] = self.against_mixed(rest)(self.healthy.moments[part])
            distance = self.distance(rest)
            away[part] = distance(self.healthy.pooled[part])
            other[part] = distance.other(self.healthy.pooled[part])
        groups = [away[other == side] for side in (0, 1)]
        usual, unusual = (group if len(group) >= _LEAST_REFERENCE else away for group in groups)
        return self.healthy.opacity, against, usual, unusual

    def against_mixed(self, chosen: npt.NDArray[np.int64]) -> Linear:
        """A regression of healthy 0, mixed 1 that cannot gain by telling the projections apart."""
        if self.mixed is None:
            return Linear(np.zeros(self.healthy.moments.shape[1]), 0.0)
        rows = [self.healthy.moments[chosen], self.mixed[0].moments]
        turned = [self.mirrored.moments[chosen], self.mixed[1].moments]
        targets = np.concatenate([np.zeros(len(chosen)), np.ones(len(rows[1]))])
        views = np.concatenate([self.reference[chosen].astype(np.int64), self.mixed_views])
        features = np.concatenate([*rows, *turned])
        weights = balanced(targets, views)
        penalty = self.settings.mixed_ridge * features.shape[1]
        return weighted_ridge(features, np.tile(targets, 2), np.tile(weights, 2), penalty)


def _views(planes: Planes | None, settings: LungFeaturesSettings) -> npt.NDArray[np.int64]:
    """1 for planes of the reference projection, 0 for others or unknown ones."""
    if planes is None:
        return np.zeros(0, dtype=np.int64)
    views = planes.views or ("",) * len(planes)
    return np.array([int(view.upper() == settings.reference.upper()) for view in views], dtype=np.int64)


def _draw(reference: npt.NDArray[np.bool_], rng: np.random.Generator) -> int:
    """A row, of the reference projection in 60 of 100 draws."""
    wanted = np.flatnonzero(reference == (rng.random() < _REFERENCE_SHARE))
    return int(rng.choice(wanted if len(wanted) else np.arange(len(reference))))


def _take(weights: Tensor, bias: Tensor, head: Linear) -> None:
    weights.copy_(torch.from_numpy(head.weights))
    bias.fill_(head.bias)


def _tell(run: Run, share: float) -> None:
    if run.progress is not None:
        run.progress("features", share)


METHODS = (
    MethodEntry(
        "lung-features",
        Family.FEATURES,
        Regime.HEALTHY_AND_MIXED,
        ("002-39",),
        "own: frozen MobileNetV2 (Sandler et al. 2018), ridge regressions, Mahalanobis distance (Ledoit & Wolf 2004)",
        "sum of opacity, healthy-against-mixed and distance from normal, each in healthy standard deviations",
        LungFeaturesSettings,
        LungFeatures,
        explains="opacity map (learned from made-up opacities)",
    ),
)
