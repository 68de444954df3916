"""How much noise each step of a diffusion has, and the way back without chance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

LENGTH = 1000
"""Steps of the whole diffusion (Ho et al., NeurIPS 2020, section 4)."""

NoiseKind = Literal["gaussian", "octaves"]
Foretell = Callable[[Tensor, Tensor], Tensor]


def signal_shares(where: torch.device) -> Tensor:
    """ᾱ of every step, shape (1000,): the share of the variance that is signal; beta from 1e-4 to 0.02 evenly."""
    return torch.cumprod(1.0 - torch.linspace(1e-4, 0.02, LENGTH, device=where, dtype=torch.float64), dim=0).float()


def blend(planes: Tensor, noise: Tensor, share: Tensor) -> Tensor:
    """sqrt(ᾱ) x + sqrt(1 - ᾱ) noise (Ho et al., eq. 4). ``share``: ᾱ, shape (n,) or one number."""
    share = share.view(-1, 1, 1, 1)
    return share.sqrt() * planes + (1.0 - share).sqrt() * noise


def way_back(start: int, count: int) -> list[int]:
    """``count`` steps from ``start`` down, as even as whole steps can be; fewer when ``start`` is below ``count``."""
    return sorted({round(start * i / count) for i in range(1, count + 1)}, reverse=True)


def denoise(noisy: Tensor, steps: Sequence[int], foretell: Foretell) -> Tensor:
    """The plane behind ``noisy`` by DDIM without chance (Song et al., ICLR 2021, eq. 12 with sigma 0).

    ``noisy``: shape (n, 1, size, size) at ``steps[0]``, grey values -1..1 when clean. ``foretell``: noise of planes
    at steps.
    """
    shares = signal_shares(noisy.device)
    planes, clean = noisy, noisy
    for here, there in pairwise([*steps, -1]):
        noise = foretell(planes, torch.full((len(planes),), here, device=planes.device))
        clean = ((planes - (1.0 - shares[here]).sqrt() * noise) / shares[here].sqrt()).clamp(-1.0, 1.0)
        if there >= 0:
            planes = blend(clean, noise, shares[there])
    return clean


def draw_noise(shape: tuple[int, int, int, int], chance: torch.Generator, kind: NoiseKind) -> Tensor:
    """Noise of variance 1, on the CPU. ``octaves``: sum of Gaussian noise on grids each half as fine as the last,
    weighed 0.8 each time: like simplex noise it also hides what is larger than a few pixels (Wyatt et al. 2022)."""
    total = torch.randn(shape, generator=chance)
    if kind == "gaussian":
        return total
    weight, side = 0.8, shape[-1] // 2
    while side >= 2:
        coarse = torch.randn((*shape[:2], side, side), generator=chance)
        total = total + weight * F.interpolate(coarse, size=shape[-2:], mode="bilinear", align_corners=False)
        weight, side = 0.8 * weight, side // 2
    return total / total.flatten(1).std(dim=1).view(-1, 1, 1, 1)
