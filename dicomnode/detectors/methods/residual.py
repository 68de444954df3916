"""What the methods share whose map is a deviation from a reconstruction: one loss, one map, one score rule."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TypeVar

import torch
from pydantic import Field, field_validator
from torch import Tensor
from torch.nn import functional as F

from dicomnode.detectors.methods.contract import Settings
from dicomnode.detectors.methods.drawing import Drawn
from dicomnode.detectors.methods.fitting import Player, parameters
from dicomnode.detectors.methods.torch_method import TorchMethod


class ResidualSettings(Settings):
    """``width``: channels of the first layer. ``share``: the score is the mean of this share of the organ's pixels,
    those of the largest map values; 1 is the mean of all. ``smooth``: side of the mean filter of the map, odd,
    pixels of the method's grid; 1 for none."""

    width: int = Field(default=16, ge=1, le=128)
    share: float = Field(default=1.0, gt=0, le=1)
    smooth: int = Field(default=1, ge=1, le=31)

    @field_validator("smooth")
    @classmethod
    def _odd(cls, smooth: int) -> int:
        if smooth % 2 == 0:
            raise ValueError("smooth is an odd number of pixels")
        return smooth


R = TypeVar("R", bound=ResidualSettings)


class ResidualMethod(TorchMethod[R]):
    """One network, one loss; the map is ``residual`` smoothed, the score the mean of its top share in the organ."""

    @abstractmethod
    def loss(self, drawn: Drawn) -> Tensor:
        """What the network makes small, one number."""

    @abstractmethod
    def residual(self, images: Tensor) -> Tensor:
        """How far ``images``, shape (n, 1, size, size), are from healthy; same shape, not negative."""

    def players(self) -> Sequence[Player]:
        return (Player("network", parameters(self.network), self.loss, self.settings.learning_rate),)

    def judge_batch(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        heat = smoothed(self.residual(images), self.settings.smooth)
        return top_mean(heat, masks, self.settings.share), heat


def smoothed(values: Tensor, side: int) -> Tensor:
    """``values``, shape (n, c, size, size), under a mean filter of ``side`` pixels, odd; zeros beyond the edge."""
    return values if side == 1 else F.avg_pool2d(values, side, stride=1, padding=side // 2)


def top_mean(values: Tensor, masks: Tensor, share: float) -> Tensor:
    """The mean of the greatest ``share`` of ``values`` inside ``masks``, at least of one pixel; shape (n,).

    Both (n, 1, size, size); values are not negative. A small lesion moves the mean of a whole organ little; it
    moves the top share. 0 where a mask is empty.
    """
    inside = masks.flatten(1)
    ranked = (values.flatten(1) * inside).sort(dim=1, descending=True).values
    count = (inside.sum(1) * share).ceil().clamp(min=1.0)
    ranks = torch.arange(ranked.shape[1], device=ranked.device)
    return (ranked * (ranks[None] < count[:, None])).sum(1) / count
