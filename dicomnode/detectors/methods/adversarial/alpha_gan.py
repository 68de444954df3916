"""α-GAN: an auto-encoder whose planes and codes each have a discriminator."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from dicomnode.detectors.methods.adversarial.critics import FeatureCritic, judged_fake, judged_real
from dicomnode.detectors.methods.adversarial.duel import CodedSettings, Duel
from dicomnode.detectors.methods.adversarial.generators import CodeToPlane, PlaneToCode
from dicomnode.detectors.methods.contract import Family, MethodEntry, Regime
from dicomnode.detectors.methods.drawing import Drawn
from dicomnode.detectors.methods.fitting import Player
from dicomnode.detectors.methods.torch_method import masked_mean


class AlphaGanSettings(CodedSettings):
    """``content``: λ, weight of the mean absolute error beside the discriminators. ``score`` has one meaning here."""

    content: float = Field(default=40.0, ge=0)


class AlphaGan(Duel[AlphaGanSettings]):
    """L_E = λ|x - x̂| - log C(E(x)); L_G = λ|x - x̂| - log D(x̂) - log D(G(z)) (Rosca et al., algorithm 1).

    D tells planes from x̂ = G(E(x)) and G(z); C tells z ~ N(0, 1) from E(x). Score: mean |x - x̂| over the organ.
    """

    judging = ("encoder", "generator")

    def make(self) -> nn.Module:
        own = self.settings
        hidden = 4 * own.width
        return nn.ModuleDict(
            {
                "encoder": PlaneToCode(own.size, own.code, own.width),
                "generator": CodeToPlane(own.size, own.code, own.width),
                "planes": FeatureCritic(own.size, 1, own.width),
                "codes": nn.Sequential(nn.Linear(own.code, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, 1)),
            }
        )

    def players(self) -> Sequence[Player]:
        return (
            self.player(("planes", "codes"), self._discriminators_loss),
            self.player(("encoder",), self._encoder_loss),
            self.player(("generator",), self._generator_loss),
        )

    def _answers(self, drawn: Drawn) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """z, E(x), x̂ and G(z)."""
        drawn_codes = torch.randn(len(drawn.healthy), self.settings.code, generator=drawn.noise)
        codes = drawn_codes.to(drawn.healthy.device)
        found: Tensor = self.parts["encoder"](drawn.healthy)
        return codes, found, self.parts["generator"](found), self.parts["generator"](codes)

    def _discriminators_loss(self, drawn: Drawn) -> Tensor:
        planes, of_codes = self.parts["planes"], self.parts["codes"]
        codes, found, rebuilt, made = (answer.detach() for answer in self._answers(drawn))
        of_planes = judged_real(planes(drawn.healthy)) + (judged_fake(planes(rebuilt)) + judged_fake(planes(made))) / 2
        return of_planes + judged_real(of_codes(codes)) + judged_fake(of_codes(found))

    def _encoder_loss(self, drawn: Drawn) -> Tensor:
        found: Tensor = self.parts["encoder"](drawn.healthy)
        fooled = judged_real(self.parts["codes"](found))
        return self._content(drawn, self.parts["generator"](found)) + fooled

    def _generator_loss(self, drawn: Drawn) -> Tensor:
        planes = self.parts["planes"]
        _, _, rebuilt, made = self._answers(drawn)
        return self._content(drawn, rebuilt) + judged_real(planes(rebuilt)) + judged_real(planes(made))

    def _content(self, drawn: Drawn, rebuilt: Tensor) -> Tensor:
        return self.settings.content * (drawn.healthy - rebuilt).abs().mean()

    def judge_batch(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        residual = (images - self.parts["generator"](self.parts["encoder"](images))).abs()
        return masked_mean(residual, masks), residual * masks


METHODS = (
    MethodEntry(
        "alpha-gan",
        Family.ADVERSARIAL,
        Regime.SEMI_SUPERVISED,
        ("002-6",),
        "Rosca et al., α-GAN, 2017, algorithm 1; Nakao et al., Journal of Digital Imaging 34, 2021",
        "mean of |x - x̂|, in parts of the grey range",
        AlphaGanSettings,
        AlphaGan,
    ),
)
