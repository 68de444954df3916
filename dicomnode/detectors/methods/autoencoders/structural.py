"""Structural similarity (SSIM) of two images, pixel by pixel."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_STABLE = (0.01**2, 0.03**2)
"""C1 and C2 for a grey range of 1 (Wang et al., IEEE TIP 2004, after eq. 13)."""


def ssim_map(one: Tensor, other: Tensor, window: int) -> Tensor:
    """SSIM at every pixel, shape (n, 1, size, size), -1..1 (Wang et al., IEEE TIP 2004, eq. 13).

    ``one``, ``other``: same shape, 0..1. ``window``: side of the Gaussian window, odd, sd 1.5 pixels. In full
    precision even under autocast: its variances are differences of nearly equal numbers.
    """
    with torch.autocast(one.device.type, enabled=False):
        x, y = one.float(), other.float()
        mean_x, mean_y = _local(x, window), _local(y, window)
        var_x = _local(x * x, window) - mean_x**2
        var_y = _local(y * y, window) - mean_y**2
        cov = _local(x * y, window) - mean_x * mean_y
        light = (2 * mean_x * mean_y + _STABLE[0]) / (mean_x**2 + mean_y**2 + _STABLE[0])
        return light * (2 * cov + _STABLE[1]) / (var_x + var_y + _STABLE[1])


def _local(images: Tensor, window: int) -> Tensor:
    """The weighted mean around every pixel; the image is mirrored at its edges."""
    place = torch.arange(window, device=images.device, dtype=images.dtype) - window // 2
    bell = torch.exp(-(place**2) / (2 * 1.5**2))
    bell = bell / bell.sum()
    edge = window // 2
    padded = F.pad(images, (edge, edge, edge, edge), mode="reflect")
    return F.conv2d(F.conv2d(padded, bell.view(1, 1, 1, -1)), bell.view(1, 1, -1, 1))
