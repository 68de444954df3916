"""ALOCC: a refiner that takes noise out of healthy planes, and a detector that sees what it cannot refine."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from dicomnode.detectors.methods.adversarial.critics import FeatureCritic, judged_fake, judged_real
from dicomnode.detectors.methods.adversarial.duel import CodedSettings, Duel, answered
from dicomnode.detectors.methods.adversarial.generators import CodeToPlane, PlaneToCode
from dicomnode.detectors.methods.contract import Family, MethodEntry, Regime
from dicomnode.detectors.methods.drawing import Drawn
from dicomnode.detectors.methods.fitting import Player


class AloccSettings(CodedSettings):
    """``noise``: sd of the noise, in parts of the grey range. ``rebuilding``: λ, weight of the squared error."""

    noise: float = Field(default=0.155, ge=0)
    rebuilding: float = Field(default=0.4, ge=0)


class Alocc(Duel[AloccSettings]):
    """L_R+D = log D(x) + log(1 - D(R(x̃))), L_R = mean (x - R(x̃))² (eq. 3-5); score 1 - D(R(x)) (eq. 7).

    The paper stops when the error is small; here the steps are told. The map is |x - R(x)|.
    """

    judging = ("encoder", "decoder", "detector")

    def make(self) -> nn.Module:
        own = self.settings
        return nn.ModuleDict(
            {
                "encoder": PlaneToCode(own.size, own.code, own.width),
                "decoder": CodeToPlane(own.size, own.code, own.width),
                "detector": FeatureCritic(own.size, 1, own.width),
            }
        )

    def players(self) -> Sequence[Player]:
        return (
            self.player(("detector",), self._detector_loss),
            self.player(("encoder", "decoder"), self._refiner_loss),
        )

    def refined(self, images: Tensor) -> Tensor:
        """R(x), shape of ``images``."""
        answer: Tensor = self.parts["decoder"](self.parts["encoder"](images))
        return answer

    def _noisy(self, drawn: Drawn) -> Tensor:
        noise = torch.randn(drawn.healthy.shape, generator=drawn.noise).to(drawn.healthy.device)
        return drawn.healthy + self.settings.noise * noise

    def _detector_loss(self, drawn: Drawn) -> Tensor:
        detector = self.parts["detector"]
        fake = self.refined(self._noisy(drawn)).detach()
        return judged_real(detector(drawn.healthy)) + judged_fake(detector(fake))

    def _refiner_loss(self, drawn: Drawn) -> Tensor:
        refined = self.refined(self._noisy(drawn))
        error = F.mse_loss(refined, drawn.healthy)
        return judged_real(self.parts["detector"](refined)) + self.settings.rebuilding * error

    def judge_batch(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        refined = self.refined(images)
        logits: Tensor = self.parts["detector"](refined)[:, 0]
        return answered(self.settings, (-logits).sigmoid(), (images - refined).abs(), masks)


METHODS = (
    MethodEntry(
        "alocc",
        Family.ADVERSARIAL,
        Regime.SEMI_SUPERVISED,
        ("003",),
        "Sabokrou et al., ALOCC, CVPR 2018, eq. 3-7",
        "1 - D(R(x)), how sure the detector is that the refined plane is not healthy, 0..1",
        AloccSettings,
        Alocc,
    ),
)
