"""From distances on a feature grid to maps and scores."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def raised(grid: Tensor, size: int, sigma: float) -> Tensor:
    """``grid``, shape (n, 1, h, w), brought to ``size`` pixels and smoothed; shape (n, 1, size, size)."""
    return blurred(F.interpolate(grid, size=(size, size), mode="bilinear", align_corners=False), sigma)


def blurred(maps: Tensor, sigma: float) -> Tensor:
    """``maps``, shape (n, 1, h, w), smoothed by a Gaussian of ``sigma`` pixels; the edges are continued."""
    reach = min(max(1, round(3 * sigma)), maps.shape[-1] - 1)
    steps = torch.arange(-reach, reach + 1, dtype=maps.dtype, device=maps.device)
    weights = torch.exp(-0.5 * (steps / sigma) ** 2)
    weights = weights / weights.sum()
    rows = F.conv2d(F.pad(maps, (0, 0, reach, reach), mode="replicate"), weights[None, None, :, None])
    return F.conv2d(F.pad(rows, (reach, reach, 0, 0), mode="replicate"), weights[None, None, None, :])


def masked_max(maps: Tensor, masks: Tensor) -> Tensor:
    """The largest of ``maps`` inside ``masks``, both (n, 1, h, w), maps not negative; shape (n,), 0 where empty."""
    return (maps * masks).flatten(1).amax(dim=1)


def on_grid(masks: Tensor, rows: int, columns: int) -> Tensor:
    """Where a cell of a grid has some organ: ``masks``, shape (n, 1, size, size), as float (n, 1, rows, columns)."""
    return (F.adaptive_max_pool2d(masks, (rows, columns)) > 0).float()
