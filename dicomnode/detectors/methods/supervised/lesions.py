"""Synthetic lesions: healthy planes with blobs that are brighter or darker than they should be, and their outlines.

Foreign-patch training as in the MOOD challenge's winning entries; "real + synthetic" of Zinga (methods.md 001-1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dicomnode.detectors.methods.contract import Planes


@dataclass(frozen=True, slots=True)
class BlobRule:
    """What the blobs are like. ``radius``: least and greatest, share of the side. ``contrast``: least and greatest
    change of grey. ``bright``: share of blobs that are brighter than their surroundings."""

    radius: tuple[float, float] = (0.06, 0.22)
    contrast: tuple[float, float] = (0.08, 0.45)
    bright: float = 0.8


def paste_blobs(images: Tensor, organs: Tensor, rule: BlobRule, noise: torch.Generator) -> tuple[Tensor, Tensor]:
    """``images`` with one irregular blob each inside ``organs``, and the blobs 0..1.

    Shapes (n, 1, size, size), grey 0..1, organs 0 or 1. A plane without an organ stays as it is.
    """
    shape = irregular_discs(organs, rule.radius, noise)
    n = len(images)
    sign = torch.where(torch.rand(n, generator=noise) < rule.bright, 1.0, -1.0)
    low, high = rule.contrast
    contrast = sign * (low + (high - low) * torch.rand(n, generator=noise))
    texture = 1.0 + 0.3 * coarse_field(images.shape, 8, noise)
    changed = (images + contrast[:, None, None, None] * shape * texture).clamp(0.0, 1.0)
    return changed, (shape > 0.5).float()


def irregular_discs(organs: Tensor, radius: tuple[float, float], noise: torch.Generator) -> Tensor:
    """One soft blob per plane, 0..1, centred in its organ and cut to it; shape of ``organs``."""
    n, _, size, _ = organs.shape
    centres = torch.stack([_a_place(organ[0], noise) for organ in organs])
    axis = torch.arange(size, dtype=torch.float32)
    rows, columns = torch.meshgrid(axis, axis, indexing="ij")
    low, high = (size * share for share in radius)
    extent = low + (high - low) * torch.rand(n, 1, 1, generator=noise)
    stretch = 0.7 + 0.6 * torch.rand(n, 1, 1, generator=noise)
    r, c = (rows - centres[:, 0, None, None]) * stretch, (columns - centres[:, 1, None, None]) / stretch
    ragged = 1.0 + 0.35 * coarse_field((n, 1, size, size), 4, noise)[:, 0]
    inside = 1.0 - torch.sqrt(r**2 + c**2) / (extent * ragged.clamp(min=0.3))
    soft = torch.sigmoid(inside * (3.0 + 12.0 * torch.rand(n, 1, 1, generator=noise)))
    return soft[:, None] * organs


def coarse_field(shape: torch.Size | tuple[int, ...], cells: int, noise: torch.Generator) -> Tensor:
    """Smooth Gaussian noise of sd about 1, ``cells`` cells a side, brought up to ``shape`` (n, 1, size, size)."""
    small = torch.randn(shape[0], 1, cells, cells, generator=noise)
    return F.interpolate(small, size=tuple(shape[-2:]), mode="bicubic", align_corners=False)


def with_blobs(planes: Planes, seed: int, rule: BlobRule | None = None) -> Planes:
    """Abnormal copies of ``planes``, labelled 1, drawn with ``seed``."""
    noise = torch.Generator().manual_seed(seed)
    images = torch.from_numpy(np.ascontiguousarray(planes.images))[:, None]
    organs = torch.from_numpy(np.ascontiguousarray(planes.masks)).float()[:, None]
    changed, _ = paste_blobs(images, organs, rule or BlobRule(), noise)
    return Planes(changed[:, 0].numpy(), planes.masks, planes.stacks, np.ones(len(planes), np.int8))


def _a_place(organ: Tensor, noise: torch.Generator) -> Tensor:
    inside = organ.nonzero()
    if len(inside) == 0:
        return torch.tensor([0.0, 0.0])
    return inside[int(torch.randint(0, len(inside), (1,), generator=noise))].float()
