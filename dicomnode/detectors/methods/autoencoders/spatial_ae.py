"""Spatial auto-encoder: the code keeps its place in the plane, and skips carry fine detail through dropout."""

from __future__ import annotations

from itertools import pairwise

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from dicomnode.detectors.methods.autoencoders.convolutions import down, up
from dicomnode.detectors.methods.contract import Family, MethodEntry, Regime
from dicomnode.detectors.methods.drawing import Drawn
from dicomnode.detectors.methods.residual import ResidualMethod, ResidualSettings


class SpatialAeSettings(ResidualSettings):
    """``code``: channels of the code, a grid of a sixteenth of the side. ``skips``: how many skips there are,
    counted from the code; 3 reaches the grid of half the side. ``dropout``: share of a skip's values dropped while
    training, so that it cannot copy its input."""

    code: int = Field(default=8, ge=1)
    skips: int = Field(default=1, ge=0, le=3)
    dropout: float = Field(default=0.5, ge=0, lt=1)


class SkipAutoEncoder(nn.Module):
    """Four times down and up with a spatial code; shape (n, 1, size, size), 0..1, in and out."""

    def __init__(self, settings: SpatialAeSettings) -> None:
        super().__init__()
        if settings.size % 16:
            raise ValueError("the size is a multiple of 16")
        w = settings.width
        widths = [w, 2 * w, 4 * w, 4 * w]
        self.dropout, self.skips = settings.dropout, settings.skips
        self.encoder = nn.ModuleList(down(a, b) for a, b in pairwise([1, *widths]))
        self.to_code = nn.Conv2d(4 * w, settings.code, 1)
        self.from_code = nn.Sequential(nn.Conv2d(settings.code, 4 * w, 1), nn.LeakyReLU(0.1))
        back = [4 * w, 4 * w, 2 * w, w, w]
        self.decoder = nn.ModuleList(up(a, b) for a, b in pairwise(back))
        self.merge = nn.ModuleList(nn.Conv2d(2 * c, c, 1) for c in back[1 : 1 + settings.skips])
        self.head = nn.Conv2d(w, 1, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        levels = []
        grid = images
        for block in self.encoder:
            grid = block(grid)
            levels.append(grid)
        grid = self.from_code(self.to_code(grid))
        for depth, block in enumerate(self.decoder):
            grid = block(grid)
            if depth < self.skips:
                skip = F.dropout(levels[-2 - depth], self.dropout, training=self.training)
                grid = self.merge[depth](torch.cat([grid, skip], dim=1))
        back: Tensor = self.head(grid)
        return back


class SpatialAe(ResidualMethod[SpatialAeSettings]):
    """Loss and map: |x - x̂|."""

    def make(self) -> nn.Module:
        return SkipAutoEncoder(self.settings)

    def loss(self, drawn: Drawn) -> Tensor:
        return self.residual(drawn.healthy).mean()

    def residual(self, images: Tensor) -> Tensor:
        difference: Tensor = images - self.network(images)
        return difference.abs()


METHODS = (
    MethodEntry(
        "spatial-ae",
        Family.AUTOENCODER,
        Regime.SEMI_SUPERVISED,
        ("002-25",),
        "Baur et al., ISBI 2020 (skip-autoencoders with dropout on the skips)",
        "mean of |x - x̂|, in parts of the grey range",
        SpatialAeSettings,
        SpatialAe,
    ),
)
