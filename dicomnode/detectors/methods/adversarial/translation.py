"""Methods that translate a plane to its healthy likeness, taught by a healthy and an unlabelled mixed set."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from pydantic import Field
from torch import Tensor, nn

from dicomnode.detectors.methods.adversarial.critics import PatchCritic
from dicomnode.detectors.methods.adversarial.duel import Duel, signed
from dicomnode.detectors.methods.adversarial.generators import Translator
from dicomnode.detectors.methods.adversarial.pseudo_auc import aucp
from dicomnode.detectors.methods.adversarial.wasserstein import critic_loss
from dicomnode.detectors.methods.contract import Material, Planes, Run, Settings
from dicomnode.detectors.methods.drawing import Drawn
from dicomnode.detectors.methods.fitting import Player, Selection
from dicomnode.detectors.methods.torch_method import masked_mean
from dicomnode.errors import ConfigError


class TranslationSettings(Settings):
    """The defaults are the recipe of HealthyGAN; on a CPU take a smaller size, width, blocks and steps.

    ``steps``: steps of the critic; the generator moves in each ``n_critic``-th. ``width``, ``blocks``: channels of
    the generator's first layer and its residual blocks. ``critic_width``, ``critic_layers``: the same of the critic.
    ``channels``: how often the grey plane is repeated at the input (the recipe: 3 of a colour file; grey needs 1).
    ``penalty``: λ_gp. ``identity``: λ_id. ``select_every``: steps between two looks at AUCp; ``select_planes``: of
    each set, the most that are looked at.
    """

    size: int = Field(default=256, ge=16, le=512, multiple_of=4)
    steps: int = Field(default=400_000, ge=1)
    batch: int = Field(default=16, ge=1)
    learning_rate: float = Field(default=1e-4, gt=0)
    width: int = Field(default=64, ge=1)
    blocks: int = Field(default=6, ge=0)
    critic_width: int = Field(default=64, ge=1)
    critic_layers: int = Field(default=6, ge=1)
    n_critic: int = Field(default=2, ge=1)
    channels: int = Field(default=1, ge=1, le=3)
    penalty: float = Field(default=10.0, ge=0)
    identity: float = Field(default=1.0, ge=0)
    select_every: int = Field(default=10_000, ge=1)
    select_planes: int = Field(default=2000, ge=2)


T = TypeVar("T", bound=TranslationSettings)


class Translation(Duel[T]):
    """WGAN-GP between planes translated from the mixed set and healthy planes; the state with the best AUCp is kept.

    Inside, planes are -1..1. The map is half the absolute difference of a plane and its translation (so it is in
    parts of the grey range), the score its mean over the organ: over a mask of the whole plane, the papers' mean.
    """

    mask_channels = 0

    @abstractmethod
    def translated(self, images: Tensor) -> Tensor:
        """The healthy likeness of ``images``, shape (n, channels, size, size), -1..1."""

    @abstractmethod
    def generator_loss(self, mixed: Tensor, healthy: Tensor) -> Tensor:
        """L_G of two batches, shape (n, channels, size, size), -1..1."""

    def make(self) -> nn.Module:
        own = self.settings
        outputs = own.channels + self.mask_channels
        return nn.ModuleDict(
            {
                "generator": Translator(own.size, own.channels, outputs, own.width, own.blocks),
                "critic": PatchCritic(own.size, own.channels, own.critic_width, own.critic_layers),
            }
        )

    def players(self) -> Sequence[Player]:
        own = self.settings
        return (
            self.player(("critic",), self._critic_loss),
            self.player(("generator",), lambda drawn: self.generator_loss(*self._pair(drawn)), own.n_critic),
        )

    def _pair(self, drawn: Drawn) -> tuple[Tensor, Tensor]:
        """The mixed and the healthy batch as the network sees them."""
        if drawn.mixed is None:
            raise ConfigError(NEEDS_MIXED)
        return self.seen(drawn.mixed), self.seen(drawn.healthy)

    def seen(self, images: Tensor) -> Tensor:
        """Planes 0..1, shape (n, 1, size, size), as the network sees them: -1..1, ``channels`` times."""
        return signed(images).expand(-1, self.settings.channels, -1, -1)

    def _critic_loss(self, drawn: Drawn) -> Tensor:
        mixed, healthy = self._pair(drawn)
        fake = self.translated(mixed).detach()
        return critic_loss(self.parts["critic"], healthy, fake, self.settings.penalty, drawn.noise)

    def fit(self, material: Material, run: Run) -> None:
        if material.mixed is None or len(material.mixed) < 2:
            raise ConfigError(NEEDS_MIXED)
        super().fit(material, run)

    def selection(self, material: Material) -> Selection | None:
        if material.mixed is None:
            return None
        healthy, mixed = self._looked_at(material.healthy), self._looked_at(material.mixed)
        return Selection(lambda: aucp(self.score(healthy), self.score(mixed)), self.settings.select_every)

    def _looked_at(self, planes: Planes) -> Planes:
        most = self.settings.select_planes
        if len(planes) <= most:
            return planes
        return planes.chosen([int(index) for index in np.linspace(0, len(planes) - 1, most)])

    def judge_batch(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        seen = self.seen(images)
        maps = (seen - self.translated(seen)).abs().mean(1, keepdim=True) / 2
        return masked_mean(maps, masks), maps


NEEDS_MIXED = "this method learns from a healthy and from an unlabelled mixed set: there is no mixed set"
