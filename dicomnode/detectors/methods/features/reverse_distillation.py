"""Reverse distillation: a student gives back the teacher's features from a narrow code (Deng & Li 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dicomnode.detectors.methods.backbones.frozen import FrozenBackbone
from dicomnode.detectors.methods.contract import Family, MethodEntry, Regime
from dicomnode.detectors.methods.drawing import Drawn
from dicomnode.detectors.methods.features.frozen_method import FrozenMethod, FrozenSettings
from dicomnode.detectors.methods.features.scoring import blurred, masked_max
from dicomnode.detectors.methods.fitting import Player, parameters


class ReverseSettings(FrozenSettings):
    """The teacher's stages are ``layers``; the code has twice the channels of the last at half its side."""

    batch: int = 16


class ReverseNetwork(nn.Module):
    """``forward``: the teacher's and the student's features, one tensor per stage, shapes (n, c, h, w).

    The code sees all stages brought to half the side of the deepest (multi-scale fusion and one-class embedding);
    the student goes back up from the code alone.
    """

    def __init__(self, settings: ReverseSettings) -> None:
        super().__init__()
        self.backbone = FrozenBackbone(settings.backbone, settings.layers, settings.zoom)
        channels = self.backbone.channels
        self.gather = nn.ModuleList(_layer(c, channels[-1]) for c in channels)
        self.embed = nn.Sequential(
            _layer(len(channels) * channels[-1], channels[-1]), _layer(channels[-1], 2 * channels[-1], stride=2)
        )
        widths = [2 * channels[-1], *channels[::-1]]
        self.rises = nn.ModuleList(nn.Sequential(_layer(a, b), _layer(b, b)) for a, b in pairwise(widths))
        self.heads = nn.ModuleList(nn.Conv2d(c, c, 1) for c in channels[::-1])

    def forward(self, planes: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        with torch.set_grad_enabled(planes.requires_grad):
            teacher = self.backbone(planes)
        deepest = teacher[-1].shape[-2:]
        parts = [gather(F.adaptive_avg_pool2d(s, deepest)) for gather, s in zip(self.gather, teacher, strict=True)]
        deep = self.embed(torch.cat(parts, dim=1))
        student: list[Tensor] = []
        for rise, head, goal in zip(self.rises, self.heads, teacher[::-1], strict=True):
            deep = rise(F.interpolate(deep, size=goal.shape[-2:], mode="bilinear", align_corners=False))
            student.insert(0, head(deep))
        return teacher, student


class ReverseDistillation(FrozenMethod[ReverseSettings]):
    """Loss: 1 - cosine of the flattened features, summed over the stages (eq. 2). Map: 1 - cosine at every place,
    summed over the stages (eq. 1 and 3). Score: its largest value inside the organ."""

    network: ReverseNetwork

    def make(self) -> ReverseNetwork:
        return ReverseNetwork(self.settings)

    def players(self) -> Sequence[Player]:
        learned = parameters(self.network.gather, self.network.embed, self.network.rises, self.network.heads)
        return (Player("student", learned, self._loss, self.settings.learning_rate, betas=(0.5, 0.999)),)

    def _loss(self, drawn: Drawn) -> Tensor:
        teacher, student = self.network(drawn.healthy)
        parts = [
            1.0 - F.cosine_similarity(a.flatten(1), b.flatten(1)).mean() for a, b in zip(teacher, student, strict=True)
        ]
        return torch.stack(parts).sum()

    def judge_batch(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        size = images.shape[-2:]
        total = torch.zeros_like(images)
        for a, b in zip(*self.network(images), strict=True):
            away = (1.0 - F.cosine_similarity(a, b)).clamp(min=0.0)[:, None]
            total = total + F.interpolate(away, size=size, mode="bilinear", align_corners=False)
        maps = blurred(total, self.settings.smooth)
        return masked_max(maps, masks), maps


def _layer(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


METHODS = (
    MethodEntry(
        "reverse-distillation",
        Family.FEATURES,
        Regime.SEMI_SUPERVISED,
        ("002-39",),
        "Deng & Li, CVPR 2022, eq. 1 to 3",
        "largest sum over the stages of 1 - cosine between the teacher's and the student's features, 0 to 2 per stage",
        ReverseSettings,
        ReverseDistillation,
        explains="difference of teacher and student features",
    ),
)
