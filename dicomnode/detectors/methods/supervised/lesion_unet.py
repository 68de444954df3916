"""A small U-Net that finds synthetic lesions in healthy planes: trained without one labelled picture."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, Protocol

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from dicomnode.detectors.contract import Array
from dicomnode.detectors.methods.autoencoders.convolutions import block
from dicomnode.detectors.methods.classical.windows import shrunk
from dicomnode.detectors.methods.contract import (
    Augmentation,
    Family,
    Material,
    MethodEntry,
    Planes,
    Regime,
    Run,
    Settings,
)
from dicomnode.detectors.methods.drawing import Draw, Drawn, augment
from dicomnode.detectors.methods.fitting import Player, parameters
from dicomnode.detectors.methods.supervised.blobs import Blobs
from dicomnode.detectors.methods.supervised.flair_lesions import FlairLesions
from dicomnode.detectors.methods.supervised.haemorrhage import Haemorrhages
from dicomnode.detectors.methods.supervised.painting import Random
from dicomnode.detectors.methods.torch_method import TorchMethod
from dicomnode.errors import ConfigError


class Lesions(Protocol):
    """Makes training pairs from healthy planes."""

    def make(self, draw: Random, share: float = ...) -> tuple[Array, Array]:
        """One image, 0..1, and the outline of its lesions, 0 or 1; both (size, size)."""
        ...


class LesionUNetSettings(Settings):
    """``lesions``: what is painted. ``share``: share of the organ whose mean probability is the score.

    ``dice``: weight of the Dice loss beside the cross-entropy.
    """

    width: int = Field(default=16, ge=2, le=128)
    lesions: Literal["blobs", "haemorrhage", "flair"] = "blobs"
    share: float = Field(default=0.02, gt=0, le=1)
    dice: float = Field(default=0.5, ge=0)

    @field_validator("size")
    @classmethod
    def _divisible(cls, size: int) -> int:
        if size % 16:
            raise ValueError("the size is a multiple of 16")
        return size


class UNet(nn.Module):
    """Logits of "painted" per pixel, shape (n, 1, size, size) in and out; works at half resolution, three levels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = [width, 2 * width, 3 * width, 4 * width]
        self.enter = nn.Sequential(block(4, widths[0]), block(widths[0], widths[0]))
        self.down = nn.ModuleList(nn.Sequential(block(a, b), block(b, b)) for a, b in pairwise(widths))
        self.up = nn.ModuleList(block(a + b, a) for a, b in pairwise(widths))
        self.leave = nn.Conv2d(widths[0], 4, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        levels = [self.enter(F.pixel_unshuffle(images, 2))]
        for down in self.down:
            levels.append(down(F.max_pool2d(levels[-1], 2)))
        features = levels.pop()
        for up in reversed(self.up):
            features = up(torch.cat([levels.pop(), F.interpolate(features, scale_factor=2.0)], dim=1))
        return F.pixel_shuffle(self.leave(features), 2)


class LesionUNet(TorchMethod[LesionUNetSettings]):
    """Loss: binary cross-entropy and Dice of the painted outline; map: the probability of a lesion.

    The score is the mean of the greatest ``share`` of the map inside the organ.
    """

    def make(self) -> nn.Module:
        return UNet(self.settings.width)

    def draw(self, material: Material, run: Run) -> Draw:
        maker = lesion_maker(self.settings.lesions, shrunk(material.healthy, self.settings.size))
        limits = Augmentation(run.augmentation.mirror, run.augmentation.rotate, zoom=0.1, gain=0.0)

        def draw(noise: torch.Generator) -> Drawn:
            random = np.random.default_rng(int(torch.randint(2**62, (1,), generator=noise)))
            pairs = [maker.make(random) for _ in range(self.settings.batch)]
            both = augment(torch.from_numpy(np.stack([np.stack(pair) for pair in pairs])), limits, noise)
            return Drawn(both[:, :1], noise, both[:, :1], both[:, 1:])

        return draw

    def players(self) -> Sequence[Player]:
        return (Player("u-net", parameters(self.network), self._loss, self.settings.learning_rate),)

    def _loss(self, drawn: Drawn) -> Tensor:
        if drawn.mixed is None or drawn.truth is None:
            raise ConfigError("a batch without outlines")
        logits = self.network(drawn.mixed).float()
        found = torch.sigmoid(logits)
        overlap = (2 * (found * drawn.truth).sum() + 1.0) / (found.sum() + drawn.truth.sum() + 1.0)
        loss: Tensor = F.binary_cross_entropy_with_logits(logits, drawn.truth) + self.settings.dice * (1.0 - overlap)
        return loss

    def judge_batch(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        maps = torch.sigmoid(self.network(images)) * masks
        return top_share(maps, masks, self.settings.share), maps


def lesion_maker(kind: str, planes: Planes) -> Lesions:
    """The painter of ``kind``: "haemorrhage", "flair" or "blobs"."""
    if kind == "haemorrhage":
        return Haemorrhages(planes)
    return FlairLesions(planes) if kind == "flair" else Blobs(planes)


def top_share(maps: Tensor, masks: Tensor, share: float) -> Tensor:
    """The mean of the greatest ``share`` of each map inside its organ, shape (n,); 0 without an organ."""
    means = []
    for plane, mask in zip(maps[:, 0], masks[:, 0], strict=True):
        inside = plane[mask > 0]
        count = max(1, round(share * inside.numel()))
        means.append(inside.topk(count).values.mean() if inside.numel() else plane.new_zeros(()))
    return torch.stack(means)


METHODS = (
    MethodEntry(
        "lesion-unet",
        Family.SUPERVISED,
        Regime.SUPERVISED,
        ("000-6", "000-13", "001-1"),
        "synthetic lesions in healthy planes (winning entries of MOOD; methods.md 2.3), U-Net",
        "mean probability of a lesion over the highest share of the organ, not calibrated",
        LesionUNetSettings,
        LesionUNet,
    ),
)
