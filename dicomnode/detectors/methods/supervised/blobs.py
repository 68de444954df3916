"""Synthetic lesions of no particular kind, for any modality: one ragged blob, mostly brighter than its surroundings."""

from __future__ import annotations

import numpy as np
import torch

from dicomnode.detectors.contract import Array
from dicomnode.detectors.methods.contract import Planes
from dicomnode.detectors.methods.supervised.lesions import BlobRule, paste_blobs
from dicomnode.detectors.methods.supervised.painting import Random


class Blobs:
    """Makes training pairs from healthy planes: the image with or without a blob, and its outline."""

    def __init__(self, planes: Planes, rule: BlobRule | None = None) -> None:
        self._planes, self._rule = planes, rule or BlobRule()

    def make(self, draw: Random, share: float = 0.55) -> tuple[Array, Array]:
        """One image, 0..1, and the outline of its blob, 0 or 1; both (size, size). ``share``: images with a blob."""
        index = int(draw.integers(len(self._planes)))
        image = self._planes.images[index].astype(np.float32)
        if draw.random() >= share:
            return image, np.zeros_like(image)
        noise = torch.Generator().manual_seed(int(draw.integers(2**62)))
        organ = torch.from_numpy(np.ascontiguousarray(self._planes.masks[index])).float()[None, None]
        changed, truth = paste_blobs(torch.from_numpy(image)[None, None], organ, self._rule, noise)
        return changed[0, 0].numpy(), truth[0, 0].numpy()
