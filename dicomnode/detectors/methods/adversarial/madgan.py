"""MADGAN: the next three planes of a series from three; what differs from the expectation is abnormal."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from dicomnode.detectors.methods.adversarial.attention import SelfAttention
from dicomnode.detectors.methods.adversarial.critics import FeatureCritic
from dicomnode.detectors.methods.adversarial.duel import Duel
from dicomnode.detectors.methods.adversarial.wasserstein import critic_loss
from dicomnode.detectors.methods.contract import (
    Family,
    Judgement,
    Material,
    MethodEntry,
    Planes,
    Regime,
    Run,
    Settings,
)
from dicomnode.detectors.methods.drawing import Draw, Drawn, at_size, augment, plane_pool
from dicomnode.detectors.methods.fitting import Player
from dicomnode.detectors.methods.torch_method import masked_mean
from dicomnode.errors import ConfigError

RUN = 3
"""Planes in, and planes out."""
AT_ONCE = 16
"""Runs judged at once."""


class MadganSettings(Settings):
    """``content``: weight of the mean absolute error (the paper's 100). ``penalty``: of the critic's gradient."""

    size: int = Field(default=64, ge=16, le=512, multiple_of=4)
    steps: int = Field(default=20_000, ge=1)
    learning_rate: float = Field(default=2e-4, gt=0)
    width: int = Field(default=32, ge=1, le=128)
    n_critic: int = Field(default=1, ge=1)
    content: float = Field(default=100.0, ge=0)
    penalty: float = Field(default=10.0, ge=0)


class NextPlanes(nn.Module):
    """Three planes to the next three, shape (n, 3, size, size), 0..1: a U-Net with self-attention where it is deep."""

    def __init__(self, width: int) -> None:
        super().__init__()
        w = width
        self.enter = _block(nn.Conv2d(RUN, w, 3, padding=1), w)
        self.middle = _block(nn.Conv2d(w, 2 * w, 4, stride=2, padding=1), 2 * w)
        self.deep = nn.Sequential(
            _block(nn.Conv2d(2 * w, 4 * w, 4, stride=2, padding=1), 4 * w),
            SelfAttention(4 * w),
            _block(nn.ConvTranspose2d(4 * w, 2 * w, 4, stride=2, padding=1), 2 * w),
        )
        self.rise = _block(nn.ConvTranspose2d(4 * w, w, 4, stride=2, padding=1), w)
        self.leave = nn.Conv2d(2 * w, RUN, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        top = self.enter(images)
        half = self.middle(top)
        back = self.rise(torch.cat([self.deep(half), half], dim=1))
        answer: Tensor = self.leave(torch.cat([back, top], dim=1))
        return answer.sigmoid()


class Madgan(Duel[MadganSettings]):
    """L_G = -E D(x̂) + 100 |x - x̂|, L_D of WGAN-GP (section "MADGAN-based reconstruction"); runs both ways.

    A plane is expected from every run before and behind it that reaches it, its map is the squared difference to
    their mean, its score the mean of the map over the organ. Runs over an end of the series repeat the end plane at
    the input, so every plane of a series of two or more has an answer.
    """

    def make(self) -> nn.Module:
        own = self.settings
        return nn.ModuleDict({"generator": NextPlanes(own.width), "critic": FeatureCritic(own.size, RUN, own.width)})

    def players(self) -> Sequence[Player]:
        return (
            self.player(("critic",), self._critic_loss),
            self.player(("generator",), self._generator_loss, self.settings.n_critic),
        )

    def draw(self, material: Material, run: Run) -> Draw:
        """Six neighbouring planes as channels, in either order."""
        own, pool = self.settings, plane_pool(material.healthy, self.settings.size)[:, 0]
        runs = both_ways(material.healthy.stacks)

        def draw(noise: torch.Generator) -> Drawn:
            chosen = runs[torch.randint(0, len(runs), (max(2, own.batch),), generator=noise)]
            return Drawn(augment(pool[chosen], run.augmentation, noise), noise)

        return draw

    def _critic_loss(self, drawn: Drawn) -> Tensor:
        expected = self.parts["generator"](drawn.healthy[:, :RUN]).detach()
        return critic_loss(self.parts["critic"], drawn.healthy[:, RUN:], expected, self.settings.penalty, drawn.noise)

    def _generator_loss(self, drawn: Drawn) -> Tensor:
        expected: Tensor = self.parts["generator"](drawn.healthy[:, :RUN])
        content = (drawn.healthy[:, RUN:] - expected).abs().mean()
        fooled: Tensor = self.parts["critic"](expected).mean()
        return self.settings.content * content - fooled

    def judge(self, planes: Planes) -> Judgement:
        own, full = self.settings.size, planes.size
        with torch.inference_mode():
            residual = (plane_pool(planes, own) - self.expected(planes)).square()
            inside = at_size(torch.from_numpy(planes.masks)[:, None].float(), own) > 0.5
            scores, maps = masked_mean(residual, inside.float()), residual
            if own != full:
                maps = nn.functional.interpolate(maps, size=(full, full), mode="bilinear", align_corners=False)
        return Judgement(scores.numpy(), maps[:, 0].numpy())

    def expected(self, planes: Planes) -> Tensor:
        """Every plane as its neighbours let expect it, shape (n, 1, size, size). ConfigError without neighbours."""
        pool, runs = plane_pool(planes, self.settings.size)[:, 0], both_ways(planes.stacks)
        if any(len(stack) < 2 for stack in planes.stacks):
            raise ConfigError(NEEDS_NEIGHBOURS)
        total, count = torch.zeros_like(pool), torch.zeros(len(pool), 1, 1)
        for start in range(0, len(runs), AT_ONCE):
            part = runs[start : start + AT_ONCE]
            answer: Tensor = self.parts["generator"](pool[part[:, :RUN]].to(self.accelerator)).float().cpu()
            within = part[:, RUN:] != part[:, RUN - 1 : -1]  # beyond the end the last plane is only repeated
            total.index_add_(0, part[:, RUN:][within], answer[within])
            count.index_add_(0, part[:, RUN:][within], torch.ones(int(within.sum()), 1, 1))
        return (total / count)[:, None]

    def judge_batch(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002 - part of the seam
        """A batch without its series cannot be judged: ``judge`` sees to it."""
        raise ConfigError(NEEDS_NEIGHBOURS)


NEEDS_NEIGHBOURS = "this method expects a plane from its neighbours: every series has at least two planes"


def both_ways(stacks: Sequence[tuple[int, ...]]) -> Tensor:
    """Indices of all runs of six planes, shape (m, 6), upwards and downwards; an end plane is repeated.

    No run has a plane both among its first and its last three. Raises ConfigError when no series has two planes.
    """
    ways = [ordered for stack in stacks for ordered in (stack, stack[::-1])]
    runs = [
        [way[min(max(start + k, 0), len(way) - 1)] for k in range(2 * RUN)]
        for way in ways
        for start in range(1 - RUN, len(way) - RUN)
    ]
    if not runs:
        raise ConfigError(NEEDS_NEIGHBOURS)
    return torch.tensor(runs)


def _block(layer: nn.Module, width: int) -> nn.Sequential:
    return nn.Sequential(layer, nn.GroupNorm(1, width), nn.LeakyReLU(0.2))


METHODS = (
    MethodEntry(
        "madgan",
        Family.ADVERSARIAL,
        Regime.SEMI_SUPERVISED,
        ("002-31",),
        "Han et al., MADGAN, BMC Bioinformatics 22, 2021",
        "mean of (x - x̂)², x̂ as expected from neighbouring planes, in squared parts of the grey range",
        MadganSettings,
        Madgan,
        stacked=True,
        explains="residual map (plane minus what its neighbours foretell)",
    ),
)
