"""A small subset that stays close to everything: greedy k-centre selection (PatchCore, algorithm 1)."""

from __future__ import annotations

import torch
from torch import Tensor

PROJECTED = 128
"""Dimensions after the random projection that speeds the selection up (Johnson-Lindenstrauss)."""


def coreset(rows: Tensor, count: int, noise: torch.Generator) -> Tensor:
    """Indices of ``count`` of the ``rows``, shape (n, c): each next one is the farthest from those chosen.

    All indices when there are not more rows. ``noise``: on the CPU.
    """
    if count >= len(rows):
        return torch.arange(len(rows), device=rows.device)
    small = rows
    if rows.shape[1] > PROJECTED:
        projection = torch.randn(rows.shape[1], PROJECTED, generator=noise) / PROJECTED**0.5
        small = rows @ projection.to(rows.device)
    chosen = torch.zeros(count, dtype=torch.int64, device=rows.device)
    chosen[0] = torch.randint(0, len(rows), (1,), generator=noise).to(rows.device)
    nearest = (small - small[chosen[0]]).square().sum(dim=1)
    for i in range(1, count):
        chosen[i] = nearest.argmax()
        nearest = torch.minimum(nearest, (small - small[chosen[i]]).square().sum(dim=1))
    return chosen
