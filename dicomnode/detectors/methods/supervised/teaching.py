"""What supervised methods are taught with: labelled abnormal planes where there are some, synthetic ones where not."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dicomnode.detectors.methods.contract import Augmentation, Material, Planes
from dicomnode.detectors.methods.drawing import Draw, Drawn, at_size, augment, plane_pool
from dicomnode.detectors.methods.supervised.lesions import BlobRule, paste_blobs, with_blobs


def examples(material: Material, seed: int) -> Planes:
    """Healthy planes (label 0), then as many abnormal ones (label 1): the labelled ones, or synthetic ones."""
    abnormal = material.abnormal if material.abnormal is not None else with_blobs(material.healthy, seed)
    healthy = material.healthy
    n = len(healthy)
    return Planes(
        np.concatenate([healthy.images, abnormal.images]),
        np.concatenate([healthy.masks, abnormal.masks]),
        (*healthy.stacks, *(tuple(i + n for i in stack) for stack in abnormal.stacks)),
        np.concatenate([np.zeros(n, np.int8), np.ones(len(abnormal), np.int8)]),
    )


def draw_examples(
    material: Material, size: int, batch: int, augmentation: Augmentation, rule: BlobRule, *, synthetic: float
) -> Draw:
    """Batches of healthy planes and as many abnormal ones (``Drawn.mixed``) with their outlines (``truth``).

    ``synthetic``: share of abnormal rows that are healthy planes with a synthetic lesion; all of them where no plane
    is labelled abnormal. Real abnormal rows have no outline: ``truth`` is nan there.
    """
    half = max(2, batch // 2)
    healthy, organs = plane_pool(material.healthy, size), _organ_pool(material.healthy, size)
    real = None if material.abnormal is None else plane_pool(material.abnormal, size)

    def draw(noise: torch.Generator) -> Drawn:
        rows = torch.randint(0, len(healthy), (half,), generator=noise)
        both = augment(torch.cat([healthy[rows], organs[rows]], dim=1), augmentation, noise)
        clean, organ = both[:, :1], (both[:, 1:] > 0.5).float()
        abnormal, truth = paste_blobs(clean, organ, rule, noise)
        if real is not None:
            abnormal, truth = _partly_real(abnormal, truth, real, augmentation, noise, synthetic)
        other = augment(healthy[torch.randint(0, len(healthy), (half,), generator=noise)], augmentation, noise)
        return Drawn(other, noise, abnormal, truth)

    return draw


def _partly_real(
    made: Tensor, truth: Tensor, real: Tensor, limits: Augmentation, noise: torch.Generator, synthetic: float
) -> tuple[Tensor, Tensor]:
    n = len(made)
    own = augment(real[torch.randint(0, len(real), (n,), generator=noise)], limits, noise)
    keep = (torch.rand(n, generator=noise) < synthetic)[:, None, None, None]
    unknown = torch.full_like(truth, float("nan"))
    return torch.where(keep, made, own), torch.where(keep, truth, unknown)


def _organ_pool(planes: Planes, size: int) -> Tensor:
    organs = torch.from_numpy(np.ascontiguousarray(planes.masks)).float()[:, None]
    return (at_size(organs, size) > 0.5).float()
