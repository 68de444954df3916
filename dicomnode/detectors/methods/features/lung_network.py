"""A frozen MobileNetV2 over pictures of the lungs, and three linear readings of it as one module."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dicomnode.detectors.methods.backbones.frozen import FrozenBackbone
from dicomnode.detectors.methods.backbones.mobilenet_v2 import GROUPS

HEADS = ("opacity", "mixed", "distance")
"""The readings, in their order."""
BLOCK_CHANNELS = tuple(channels for _, channels, count, _ in GROUPS for _ in range(count))
"""Channels behind each of the 17 blocks of MobileNetV2."""
_REGIONS = 3


@dataclass(frozen=True, slots=True)
class GridPlan:
    """``blocks``: whose outputs are read, 1 to 17. ``cells``: side of the grid they are brought to. ``zoom``: planes
    are enlarged so many times before they enter. ``components``: of the distance. ``top``: cells that make a score."""

    blocks: tuple[int, ...]
    cells: int
    zoom: int
    components: int
    top: int

    @property
    def channels(self) -> int:
        return sum(BLOCK_CHANNELS[block - 1] for block in self.blocks)


class BlockBackbone(FrozenBackbone):
    """MobileNetV2 read after chosen blocks; planes, shape (n, 1, size, size), 0..1, are enlarged bicubically."""

    def __init__(self, blocks: tuple[int, ...], zoom: int) -> None:
        super().__init__("mobilenet-v2", (1, 2, 3, 4), zoom)
        self.blocks = blocks
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, planes: Tensor) -> list[Tensor]:
        if self.zoom > 1:
            planes = F.interpolate(planes, scale_factor=float(self.zoom), mode="bicubic", align_corners=False)
        deep = (planes.clamp(0.0, 1.0) - self.mean[None, :, None, None]) / self.sd[None, :, None, None]
        outputs = []
        for place, block in enumerate(self.network.get_submodule("features").children()):
            deep = block(deep)
            if place in self.blocks:
                outputs.append(deep)
        return outputs


class LungNetwork(nn.Module):
    """``forward``: planes, shape (n, 1, size, size), 0..1, to features (n, channels, cells, cells).

    Buffers: the readings of ``lung_heads`` and, per head, healthy mean (``level``) and standard deviation
    (``spread``); the fourth is the distance of planes that look like the other projection, which lie farther away
    when healthy. Kernels of the linear readings are vectors, so that they are kept as float32.
    """

    opacity_weights: Tensor
    opacity_bias: Tensor
    mixed_weights: Tensor
    mixed_bias: Tensor
    distance_scale: Tensor
    distance_mean: Tensor
    distance_axes: Tensor
    distance_centre: Tensor
    distance_side: Tensor
    distance_limit: Tensor
    level: Tensor
    spread: Tensor

    def __init__(self, plan: GridPlan) -> None:
        super().__init__()
        self.plan = plan
        self.backbone = BlockBackbone(plan.blocks, plan.zoom)
        d, k, pooled = plan.channels, plan.components, plan.channels * _REGIONS**2
        shapes = {
            "opacity_weights": (d,), "opacity_bias": (), "mixed_weights": (2 * d,), "mixed_bias": (),
            "distance_scale": (pooled,), "distance_mean": (pooled,), "distance_axes": (k, pooled),
            "distance_centre": (k,), "distance_side": (k,), "distance_limit": (), "level": (4,), "spread": (4,),
        }  # fmt: skip
        for name, shape in shapes.items():
            self.register_buffer(
                name, torch.ones(shape) if name in {"distance_scale", "spread"} else torch.zeros(shape)
            )

    def forward(self, planes: Tensor) -> Tensor:
        parts = torch.split(planes, 1 if planes.device.type == "cpu" else len(planes))
        return torch.cat([self._grid(part) for part in parts])

    def _grid(self, planes: Tensor) -> Tensor:
        """One plane at a time stays in the processor's cache, which is three times as fast there."""
        side = (self.plan.cells, self.plan.cells)
        return torch.cat([_on_cells(stage, side) for stage in self.backbone(planes)], dim=1)

    def opacity(self, grid: Tensor) -> Tensor:
        """How visible an opacity is in every cell, shape (n, cells, cells); negative where less than none."""
        return torch.einsum("nchw,c->nhw", grid, self.opacity_weights) + self.opacity_bias

    def top(self, cells: Tensor) -> Tensor:
        """The mean of the highest cells, shape (n,)."""
        return cells.flatten(1).topk(self.plan.top, dim=1).values.mean(dim=1)

    def readings(self, grid: Tensor) -> Tensor:
        """The three scores in healthy standard deviations from the healthy mean, shape (n, 3), as ``HEADS``."""
        mixed = moments(grid) @ self.mixed_weights + self.mixed_bias
        away = (pooled(grid) / self.distance_scale - self.distance_mean) @ self.distance_axes.T - self.distance_centre
        distance = away.square().sum(dim=1).clamp(min=1e-6).log()
        standard = (distance[:, None] - self.level[2:]) / self.spread[2:]
        other = away @ self.distance_side > self.distance_limit
        two = (torch.stack([self.top(self.opacity(grid)), mixed], dim=1) - self.level[:2]) / self.spread[:2]
        return torch.cat([two, torch.where(other, standard[:, 1], standard[:, 0])[:, None]], dim=1)


def moments(grid: Tensor) -> Tensor:
    """Mean and standard deviation of every channel, shape (n, 2 c)."""
    return torch.cat([grid.mean(dim=(2, 3)), grid.std(dim=(2, 3), unbiased=False)], dim=1)


def pooled(grid: Tensor) -> Tensor:
    """Every channel averaged over 3 x 3 overlapping regions, shape (n, 9 c)."""
    return F.adaptive_avg_pool2d(grid, _REGIONS).flatten(1)


def _on_cells(stage: Tensor, side: tuple[int, int]) -> Tensor:
    if stage.shape[-1] >= side[0]:
        return F.adaptive_avg_pool2d(stage, side)
    return F.interpolate(stage, size=side, mode="bilinear", align_corners=False)
