"""Random training batches: turned, moved, zoomed, mirrored and brightened planes or stacks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dicomnode.detectors.methods.contract import Augmentation, Material, Planes


@dataclass(frozen=True, slots=True)
class Drawn:
    """One training batch. ``healthy``: shape (n, channels, size, size), 0..1; ``mixed``: the same of the mixed set,
    None when there is none. ``noise``: the generator for everything random that a loss needs. ``truth``: where the
    planes of ``mixed`` are abnormal, shape (n, 1, size, size), 0..1, None when it is not known."""

    healthy: Tensor
    noise: torch.Generator
    mixed: Tensor | None = None
    truth: Tensor | None = None


Draw = Callable[[torch.Generator], Drawn]
"""Gives the next batch, on the CPU."""


def at_size(images: Tensor, size: int) -> Tensor:
    """``images``, shape (n, c, side, side), averaged down (or interpolated up) to ``size``."""
    side = images.shape[-1]
    if side == size:
        return images
    if side % size == 0:
        return F.avg_pool2d(images, side // size)
    return F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False, antialias=True)


def plane_pool(planes: Planes, size: int) -> Tensor:
    """All planes as one tensor, shape (n, 1, size, size)."""
    return at_size(torch.from_numpy(np.ascontiguousarray(planes.images)).float()[:, None], size)


def stack_pool(planes: Planes, size: int, depth: int) -> Tensor:
    """Every run of ``depth`` neighbouring planes as channels, shape (m, depth, size, size); m may be 0."""
    pool = plane_pool(planes, size)[:, 0]
    runs = [list(stack[i : i + depth]) for stack in planes.stacks for i in range(len(stack) - depth + 1)]
    return pool[torch.tensor(runs)] if runs else pool.new_zeros((0, depth, size, size))


def draw_planes(material: Material, size: int, batch: int, augmentation: Augmentation) -> Draw:
    """Batches of single planes; healthy and mixed are drawn independently of each other."""
    mixed = None if material.mixed is None else plane_pool(material.mixed, size)
    return draw_from(plane_pool(material.healthy, size), mixed, batch, augmentation)


def draw_stacks(material: Material, size: int, depth: int, batch: int, augmentation: Augmentation) -> Draw:
    """Batches of ``depth`` neighbouring planes as channels; all planes of a run are changed alike."""
    return draw_from(stack_pool(material.healthy, size, depth), None, batch, augmentation)


def draw_from(healthy: Tensor, mixed: Tensor | None, batch: int, augmentation: Augmentation) -> Draw:
    """Batches of ``batch`` rows of the pools, shape (m, channels, size, size), drawn with replacement."""

    def draw(noise: torch.Generator) -> Drawn:
        rows = augment(_rows(healthy, batch, noise), augmentation, noise)
        others = None if mixed is None else augment(_rows(mixed, batch, noise), augmentation, noise)
        return Drawn(rows, noise, others)

    return draw


def _rows(pool: Tensor, batch: int, noise: torch.Generator) -> Tensor:
    return pool[torch.randint(0, len(pool), (max(2, min(batch, len(pool))),), generator=noise)]


def augment(batch: Tensor, limits: Augmentation, noise: torch.Generator) -> Tensor:
    """Changed copies of ``batch``, shape (n, c, size, size), 0..1."""
    n = len(batch)
    angle = math.radians(limits.rotate) * between(n, noise)
    zoom = 1.0 + limits.zoom * between(n, noise)
    flip = torch.where(torch.rand(n, generator=noise) < 0.5, -1.0, 1.0) if limits.mirror else torch.ones(n)
    shift = limits.shift * 2 * torch.stack([between(n, noise), between(n, noise)], dim=1)
    turn = torch.stack([zoom * torch.cos(angle) * flip, -zoom * torch.sin(angle), shift[:, 0]], dim=1)
    rise = torch.stack([zoom * torch.sin(angle) * flip, zoom * torch.cos(angle), shift[:, 1]], dim=1)
    grid = F.affine_grid(torch.stack([turn, rise], dim=1), list(batch.shape), align_corners=False)
    moved = F.grid_sample(batch, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    gain = 1.0 + limits.gain * between(n, noise)
    return (moved * gain[:, None, None, None]).clamp(0.0, 1.0)


def between(n: int, noise: torch.Generator) -> Tensor:
    """n numbers between -1 and 1."""
    return 2.0 * torch.rand(n, generator=noise) - 1.0
