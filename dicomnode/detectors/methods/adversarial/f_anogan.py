"""f-AnoGAN: a Wasserstein generator of healthy planes, then an encoder into its codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from dicomnode.detectors.methods.adversarial.critics import FeatureCritic
from dicomnode.detectors.methods.adversarial.duel import CodedSettings, Duel, answered
from dicomnode.detectors.methods.adversarial.generators import CodeToPlane, PlaneToCode
from dicomnode.detectors.methods.adversarial.wasserstein import critic_loss
from dicomnode.detectors.methods.contract import Family, MethodEntry, Regime
from dicomnode.detectors.methods.drawing import Drawn
from dicomnode.detectors.methods.fitting import Player
from dicomnode.detectors.methods.torch_method import masked_mean


class FAnoganSettings(CodedSettings):
    """``n_critic``: critic steps for each of the generator. ``penalty``: of the gradient. ``kappa``: weight of the
    features in loss and score. ``first``: share of the steps that the generator learns in; the encoder has the rest.
    """

    n_critic: int = Field(default=5, ge=1)
    penalty: float = Field(default=10.0, ge=0)
    kappa: float = Field(default=1.0, ge=0)
    first: float = Field(default=0.6, gt=0, lt=1)


class FAnogan(Duel[FAnoganSettings]):
    """The encoder learns by izi_f: mean (x - x̂)² + κ mean (f(x) - f(x̂))², x̂ = G(E(x)) (eq. 4).

    The score is the same figure (eq. 5), its first part inside the organ; the map is |x - x̂| (eq. 6).
    """

    judging = ("generator", "critic", "encoder")

    def make(self) -> nn.Module:
        own = self.settings
        return nn.ModuleDict(
            {
                "generator": CodeToPlane(own.size, own.code, own.width),
                "critic": FeatureCritic(own.size, 1, own.width),
                "encoder": PlaneToCode(own.size, own.code, own.width),
            }
        )

    def players(self) -> Sequence[Player]:
        own = self.settings
        critic = self.player(("critic",), self._critic_loss)
        generator = self.player(("generator",), self._generator_loss, own.n_critic)
        encoder = self.player(("encoder",), self._encoder_loss)
        return replace(critic, until=own.first), replace(generator, until=own.first), replace(encoder, since=own.first)

    def _made(self, drawn: Drawn) -> Tensor:
        codes = torch.randn(len(drawn.healthy), self.settings.code, generator=drawn.noise)
        made: Tensor = self.parts["generator"](codes.to(drawn.healthy.device))
        return made

    def _critic_loss(self, drawn: Drawn) -> Tensor:
        fake = self._made(drawn).detach()
        return critic_loss(self.parts["critic"], drawn.healthy, fake, self.settings.penalty, drawn.noise)

    def _generator_loss(self, drawn: Drawn) -> Tensor:
        loss: Tensor = -self.parts["critic"](self._made(drawn)).mean()
        return loss

    def _encoder_loss(self, drawn: Drawn) -> Tensor:
        rebuilt = self._rebuilt(drawn.healthy)
        return F.mse_loss(rebuilt, drawn.healthy) + self.settings.kappa * self._apart(drawn.healthy, rebuilt).mean()

    def _rebuilt(self, images: Tensor) -> Tensor:
        # tanh keeps codes where the generator has seen most of its own
        rebuilt: Tensor = self.parts["generator"](2.0 * self.parts["encoder"](images).tanh())
        return rebuilt

    def _apart(self, images: Tensor, rebuilt: Tensor) -> Tensor:
        """Mean squared difference of the critic's features, shape (n,)."""
        features = cast("FeatureCritic", self.parts["critic"]).features
        apart: Tensor = (features(images) - features(rebuilt)).square().mean(1)
        return apart

    def judge_batch(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        rebuilt = self._rebuilt(images)
        squared = masked_mean((images - rebuilt).square(), masks)
        own = squared + self.settings.kappa * self._apart(images, rebuilt)
        return answered(self.settings, own, (images - rebuilt).abs(), masks)


METHODS = (
    MethodEntry(
        "f-anogan",
        Family.ADVERSARIAL,
        Regime.SEMI_SUPERVISED,
        ("002-3", "002-39"),
        "Schlegl et al., f-AnoGAN, Medical Image Analysis 54, 2019, eq. 4-6",
        "mean (x - x̂)² + κ mean (f(x) - f(x̂))², residuals of the plane and of the critic's features",
        FAnoganSettings,
        FAnogan,
    ),
)
