"""AnoVAEGAN: a variational auto-encoder with a code that keeps its place, sharpened by a discriminator."""

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


class AnoVaeGanSettings(CodedSettings):
    """``code``: channels of a code of size / 16 x size / 16. ``divergence``, ``adversarial``: weights of the KL
    divergence (per pixel of the plane) and of the discriminator beside the mean absolute error."""

    divergence: float = Field(default=1e-3, ge=0)
    adversarial: float = Field(default=0.01, ge=0)


class AnoVaeGan(Duel[AnoVaeGanSettings]):
    """L = mean |x - x̂| + w_KL KL(q(z|x) ‖ N(0, 1)) - w_adv log D(x̂); score mean |x - x̂| over the organ.

    The discriminator sees planes and reconstructions (Baur et al., 2018, section 2.2). Judged at the mean of q.
    """

    judging = ("encoder", "decoder")

    def make(self) -> nn.Module:
        own = self.settings
        side = own.size // 16
        return nn.ModuleDict(
            {
                "encoder": PlaneToCode(own.size, 2 * own.code, own.width, spatial=side),
                "decoder": CodeToPlane(own.size, own.code, own.width, spatial=side),
                "discriminator": FeatureCritic(own.size, 1, own.width),
            }
        )

    def players(self) -> Sequence[Player]:
        return (
            self.player(("discriminator",), self._discriminator_loss),
            self.player(("encoder", "decoder"), self._loss),
        )

    def _spread(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(z|x)."""
        mean, log_variance = self.parts["encoder"](images).chunk(2, dim=1)
        return mean, log_variance.clamp(-10.0, 10.0)

    def _drawn_back(self, drawn: Drawn, mean: Tensor, log_variance: Tensor) -> Tensor:
        noise = torch.randn(mean.shape, generator=drawn.noise).to(mean.device)
        answer: Tensor = self.parts["decoder"](mean + noise * (log_variance / 2).exp())
        return answer

    def _discriminator_loss(self, drawn: Drawn) -> Tensor:
        discriminator = self.parts["discriminator"]
        fake = self._drawn_back(drawn, *self._spread(drawn.healthy)).detach()
        return judged_real(discriminator(drawn.healthy)) + judged_fake(discriminator(fake))

    def _loss(self, drawn: Drawn) -> Tensor:
        own, real = self.settings, drawn.healthy
        mean, log_variance = self._spread(real)
        fake = self._drawn_back(drawn, mean, log_variance)
        divergence = (mean.square() + log_variance.exp() - log_variance - 1).sum() / (2 * real.numel())
        fooled = judged_real(self.parts["discriminator"](fake))
        return (real - fake).abs().mean() + own.divergence * divergence + own.adversarial * fooled

    def judge_batch(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        residual = (images - self.parts["decoder"](self._spread(images)[0])).abs()
        return masked_mean(residual, masks), residual


METHODS = (
    MethodEntry(
        "anovaegan",
        Family.ADVERSARIAL,
        Regime.SEMI_SUPERVISED,
        ("002-28",),
        "Baur et al., AnoVAEGAN, BrainLes 2018",
        "mean of |x - x̂|, in parts of the grey range",
        AnoVaeGanSettings,
        AnoVaeGan,
    ),
)
