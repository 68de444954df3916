"""The 3-D auto-encoder: gives back runs of neighbouring planes instead of single ones."""

from __future__ import annotations

from itertools import pairwise

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from dicomnode.detectors.methods.autoencoders.neighbours import JUDGE_RUNS, NeighbourMethod, Stacks, runs_over
from dicomnode.detectors.methods.contract import Family, Material, MethodEntry, Regime, Run
from dicomnode.detectors.methods.drawing import Draw, Drawn, draw_from, plane_pool
from dicomnode.detectors.methods.residual import ResidualSettings


class Ae3dSettings(ResidualSettings):
    """``depth``: planes in a run, a multiple of 4. ``code``: channels of the code, a grid of a quarter of the depth
    and a sixteenth of the side."""

    depth: int = Field(default=8, ge=4, le=64)
    code: int = Field(default=8, ge=1)
    batch: int = Field(default=8, ge=1)

    @field_validator("depth")
    @classmethod
    def _quartered(cls, depth: int) -> int:
        if depth % 4:
            raise ValueError("depth is a multiple of 4 planes")
        return depth


class VolumeAutoEncoder(nn.Module):
    """Four times down and up in the plane, twice across planes; shape (n, 1, depth, size, size), 0..1, in and out."""

    def __init__(self, size: int, width: int, code: int) -> None:
        super().__init__()
        if size % 16:
            raise ValueError("the size is a multiple of 16")
        w = width
        widths, across = [1, w, 2 * w, 4 * w, 4 * w], [False, True, True, False]
        self.encoder = nn.Sequential(*(_down(a, b, z) for (a, b), z in zip(pairwise(widths), across, strict=True)))
        self.to_code = nn.Conv3d(4 * w, code, 1)
        self.from_code = nn.Sequential(nn.Conv3d(code, 4 * w, 1), nn.LeakyReLU(0.1))
        back = [*widths[:0:-1], w]
        self.decoder = nn.Sequential(*(_up(a, b, z) for (a, b), z in zip(pairwise(back), across, strict=True)))
        self.head = nn.Conv3d(w, 1, 3, padding=1)

    def forward(self, runs: Tensor) -> Tensor:
        back: Tensor = self.head(self.decoder(self.from_code(self.to_code(self.encoder(runs)))))
        return back


class Ae3d(NeighbourMethod[Ae3dSettings]):
    """Loss and map: (x - x̂)²; a plane in several runs gets the mean of its maps."""

    def make(self) -> nn.Module:
        return VolumeAutoEncoder(self.settings.size, self.settings.width, self.settings.code)

    def draw(self, material: Material, run: Run) -> Draw:
        """Runs of the healthy stacks; short stacks are filled with their last plane, as they are when judged."""
        depth, healthy = self.settings.depth, material.healthy
        every = [list(stack[i : i + depth]) for stack in healthy.stacks for i in range(len(stack) - depth + 1)]
        short = [runs_over(stack, depth)[0] for stack in healthy.stacks if len(stack) < depth]
        pool = plane_pool(healthy, self.settings.size)[:, 0][torch.tensor(every + short)]
        return draw_from(pool, None, self.settings.batch, run.augmentation)

    def loss(self, drawn: Drawn) -> Tensor:
        runs = drawn.healthy[:, None]
        squared: Tensor = ((runs - self.network(runs)) ** 2).mean()
        return squared

    def stack_maps(self, pool: Tensor, stacks: Stacks) -> Tensor:
        runs = torch.tensor([run for stack in stacks for run in runs_over(stack, self.settings.depth)])
        total, seen = torch.zeros_like(pool), pool.new_zeros(len(pool))
        for rows in torch.split(runs.to(pool.device), JUDGE_RUNS):
            planes = pool[rows]
            squared = (planes - self.network(planes[:, None])[:, 0]) ** 2
            total.index_add_(0, rows.flatten(), squared.flatten(0, 1))
            seen.index_add_(0, rows.flatten(), torch.ones_like(rows.flatten(), dtype=seen.dtype))
        return total / seen[:, None, None]


def _down(inputs: int, outputs: int, across: bool) -> nn.Sequential:
    kernel, stride = ((4, 4, 4), (2, 2, 2)) if across else ((3, 4, 4), (1, 2, 2))
    return nn.Sequential(
        nn.Conv3d(inputs, outputs, kernel, stride, padding=1, bias=False), nn.BatchNorm3d(outputs), nn.LeakyReLU(0.1)
    )


def _up(inputs: int, outputs: int, across: bool) -> nn.Sequential:
    kernel, stride = ((4, 4, 4), (2, 2, 2)) if across else ((3, 4, 4), (1, 2, 2))
    return nn.Sequential(
        nn.ConvTranspose3d(inputs, outputs, kernel, stride, padding=1, bias=False),
        nn.BatchNorm3d(outputs),
        nn.LeakyReLU(0.1),
    )


METHODS = (
    MethodEntry(
        "ae-3d",
        Family.AUTOENCODER,
        Regime.SEMI_SUPERVISED,
        ("002-13",),
        "Sato et al., SPIE Medical Imaging 2018 (3-D convolutional AE of emergency head CT)",
        "mean of (x - x̂)² of the plane within its runs, in squared parts of the grey range",
        Ae3dSettings,
        Ae3d,
        stacked=True,
    ),
)
