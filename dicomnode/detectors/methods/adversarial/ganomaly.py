"""GANomaly: encoder, decoder, second encoder; healthy is what comes back to its own code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from dicomnode.detectors.methods.adversarial.critics import FeatureCritic, judged_fake, judged_real
from dicomnode.detectors.methods.adversarial.duel import CodedSettings, Duel, answered
from dicomnode.detectors.methods.adversarial.generators import CodeToPlane, PlaneToCode
from dicomnode.detectors.methods.contract import Family, MethodEntry, Regime
from dicomnode.detectors.methods.drawing import Drawn
from dicomnode.detectors.methods.fitting import Player


class GanomalySettings(CodedSettings):
    """``features``, ``content``, ``codes``: weights of the three losses of the generator (the paper's 1, 50, 1)."""

    features: float = Field(default=1.0, ge=0)
    content: float = Field(default=50.0, ge=0)
    codes: float = Field(default=1.0, ge=0)


class Ganomaly(Duel[GanomalySettings]):
    """L = w_adv ‖f(x) - f(x̂)‖² + w_con |x - x̂| + w_enc ‖z - ẑ‖² (eq. 1-4); score mean |z - ẑ| (eq. 5).

    z = E(x), x̂ = D(z), ẑ = Ê(x̂); f: features of the discriminator. The map is |x - x̂|.
    """

    judging = ("encoder", "decoder", "second")

    def make(self) -> nn.Module:
        own = self.settings
        return nn.ModuleDict(
            {
                "encoder": PlaneToCode(own.size, own.code, own.width),
                "decoder": CodeToPlane(own.size, own.code, own.width),
                "second": PlaneToCode(own.size, own.code, own.width),
                "discriminator": FeatureCritic(own.size, 1, own.width),
            }
        )

    def players(self) -> Sequence[Player]:
        return (
            self.player(("discriminator",), self._discriminator_loss),
            self.player(("encoder", "decoder", "second"), self._generator_loss),
        )

    def _discriminator_loss(self, drawn: Drawn) -> Tensor:
        discriminator = self.parts["discriminator"]
        fake = self._way(drawn.healthy)[1].detach()
        return judged_real(discriminator(drawn.healthy)) + judged_fake(discriminator(fake))

    def _generator_loss(self, drawn: Drawn) -> Tensor:
        own, real = self.settings, drawn.healthy
        code, fake, again = self._way(real)
        features = cast("FeatureCritic", self.parts["discriminator"]).features
        matched = F.mse_loss(features(fake), features(real))
        content = (real - fake).abs().mean()
        return own.features * matched + own.content * content + own.codes * F.mse_loss(again, code)

    def _way(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """z, x̂ and ẑ."""
        code: Tensor = self.parts["encoder"](images)
        fake: Tensor = self.parts["decoder"](code)
        return code, fake, self.parts["second"](fake)

    def judge_batch(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        code, fake, again = self._way(images)
        return answered(self.settings, (code - again).abs().mean(1), (images - fake).abs(), masks)


METHODS = (
    MethodEntry(
        "ganomaly",
        Family.ADVERSARIAL,
        Regime.SEMI_SUPERVISED,
        ("002-30",),
        "Akcay et al., GANomaly, ACCV 2018, eq. 1-5",
        "mean of |z - ẑ|, distance of the code of a plane and of its reconstruction",
        GanomalySettings,
        Ganomaly,
    ),
)
