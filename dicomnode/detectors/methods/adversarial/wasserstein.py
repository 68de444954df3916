"""The losses of a Wasserstein critic with gradient penalty (WGAN-GP; Gulrajani et al., NeurIPS 2017)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Critic = Callable[[Tensor], Tensor]
"""Gives numbers, shape (n, ...), larger for what looks real."""


def critic_loss(critic: Critic, real: Tensor, fake: Tensor, penalty: float, noise: torch.Generator) -> Tensor:
    """E D(fake) - E D(real) + penalty * E (‖∇D(x̂)‖₂ - 1)². Both of shape (n, channels, size, size)."""
    wasserstein: Tensor = critic(fake).mean() - critic(real).mean()
    return wasserstein + penalty * gradient_penalty(critic, real, fake, noise)


def gradient_penalty(critic: Critic, real: Tensor, fake: Tensor, noise: torch.Generator) -> Tensor:
    """E (‖∇D(x̂)‖₂ - 1)² at x̂ = α real + (1 - α) fake, α of each sample drawn from U(0, 1).

    A critic with a map of patches counts by the sum of its map. In float32 whatever the autocast: squares of a
    gradient in bfloat16 have two digits. Of sets of different sizes the shorter counts.
    """
    with torch.autocast(real.device.type, enabled=False):
        n = min(len(real), len(fake))
        alpha = torch.rand((n,) + (1,) * (real.dim() - 1), generator=noise).to(real.device)
        between = (alpha * real[:n].float() + (1 - alpha) * fake[:n].float()).detach().requires_grad_(True)  # noqa: FBT003
        slope = torch.autograd.grad(critic(between).sum(), between, create_graph=True)[0]
        squares = slope.flatten(1).square().sum(1)
        return ((squares + 1e-12).sqrt() - 1.0).square().mean()  # 1e-12: the root has no slope at 0
