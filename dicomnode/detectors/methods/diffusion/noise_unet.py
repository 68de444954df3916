"""A small U-Net that foretells the noise in a plane."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class NoiseUNet(nn.Module):
    """U-Net on half, a quarter and an eighth of the side, told the share of noise (Ho et al., NeurIPS 2020, app. B).

    ``forward`` takes noisy planes, shape (n, 1, size, size), and their steps, shape (n,), and answers their noise,
    shape (n, 1, size, size). The outer level works on 2 x 2 pixels as channels: a quarter of the cost. Raises
    ValueError when the size is not a multiple of 8 or the width not one of 4.
    """

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        if size % 8:
            raise ValueError("the size is a multiple of 8")
        if width % 4:
            raise ValueError("the width is a multiple of 4")
        w, told = width, 4 * width
        self.width = width
        self.tell = nn.Sequential(nn.Linear(width, told), nn.SiLU(), nn.Linear(told, told), nn.SiLU())
        self.enter = nn.Conv2d(4, w, 3, padding=1)
        self.top = _Block(w, w, told)
        self.middle = _Block(w, 2 * w, told)
        self.deep = nn.ModuleList([_Block(2 * w, 4 * w, told), _Block(4 * w, 2 * w, told)])
        self.rise = _Block(4 * w, w, told)
        self.leave = _Block(2 * w, w, told)
        self.head = nn.Conv2d(w, 4, 3, padding=1)

    def forward(self, noisy: Tensor, steps: Tensor) -> Tensor:
        told = self.tell(_waves(steps, self.width))
        top = self.top(self.enter(F.pixel_unshuffle(noisy, 2)), told)
        middle = self.middle(F.avg_pool2d(top, 2), told)
        deep = F.avg_pool2d(middle, 2)
        for block in self.deep:
            deep = block(deep, told)
        middle = self.rise(torch.cat([F.interpolate(deep, scale_factor=2.0), middle], dim=1), told)
        top = self.leave(torch.cat([F.interpolate(middle, scale_factor=2.0), top], dim=1), told)
        return F.pixel_shuffle(self.head(top), 2)


class _Block(nn.Module):
    """Two convolutions with group normalisation around a residual path; the step shifts the channels between."""

    def __init__(self, inputs: int, outputs: int, told: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.GroupNorm(4, inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1))
        self.shift = nn.Linear(told, outputs)
        self.second = nn.Sequential(nn.GroupNorm(4, outputs), nn.SiLU(), nn.Conv2d(outputs, outputs, 3, padding=1))
        self.past = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, grid: Tensor, told: Tensor) -> Tensor:
        inner = self.first(grid) + self.shift(told)[:, :, None, None]
        result: Tensor = self.past(grid) + self.second(inner)
        return result


def _waves(steps: Tensor, width: int) -> Tensor:
    """Sines and cosines of the steps, shape (n, width) (Vaswani et al. 2017, section 3.5)."""
    rate = torch.exp(-math.log(10000.0) * torch.arange(width // 2, device=steps.device) / (width // 2))
    angle = steps.float()[:, None] * rate
    return torch.cat([angle.sin(), angle.cos()], dim=1)
