"""Planes that are already on the accelerator: moved once, judged by every method of every fold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dicomnode.detectors.methods.contract import Planes


@dataclass(frozen=True, slots=True)
class PlacedPlanes(Planes):
    """Planes with their tensors, shape (n, 1, size, size), float32. ``tensor``: the images, ``inside``: the organ."""

    tensor: Tensor | None = None
    inside: Tensor | None = None


def placed(planes: Planes, accelerator: str) -> PlacedPlanes:
    """``planes`` on ``accelerator``: one copy each, from pinned memory where that helps."""
    tensor, inside = tensors_of(planes)
    return PlacedPlanes(
        planes.images,
        planes.masks,
        planes.stacks,
        planes.labels,
        tensor=_moved(tensor, accelerator),
        inside=_moved(inside, accelerator).float(),
    )


def tensors_of(planes: Planes) -> tuple[Tensor, Tensor]:
    """Images and masks as tensors where they are; shape (n, 1, size, size)."""
    if isinstance(planes, PlacedPlanes) and planes.tensor is not None and planes.inside is not None:
        return planes.tensor, planes.inside
    images = torch.from_numpy(np.ascontiguousarray(planes.images, dtype=np.float32))[:, None]
    return images, torch.from_numpy(np.ascontiguousarray(planes.masks))[:, None].float()


def _moved(rows: Tensor, accelerator: str) -> Tensor:
    if accelerator.startswith("cuda"):
        return rows.pin_memory().to(accelerator, non_blocking=True)
    return rows.to(accelerator)
