"""VAE: a variational auto-encoder, judged by its residual, its KL divergence or gradients of its bound."""

from __future__ import annotations

from typing import Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from dicomnode.detectors.methods.autoencoders.convolutions import CodedAutoEncoder
from dicomnode.detectors.methods.contract import Family, MethodEntry, Regime
from dicomnode.detectors.methods.drawing import Drawn
from dicomnode.detectors.methods.residual import ResidualMethod, ResidualSettings, smoothed


class VaeSettings(ResidualSettings):
    """``latent``: size of the code. ``beta``: weight of the KL divergence (nats) beside the mean squared error; 0.001
    at grey values 0..1 is about the 0.005 of Cai et al. 2025 at -1..1.

    ``score``: rec, the squared residual; kl, the divergence of the plane; combined, |x - x̂| |∂KL/∂x|; elbo,
    |∂(squared error + beta KL)/∂x|.
    """

    score: Literal["rec", "kl", "combined", "elbo"] = "rec"
    latent: int = Field(default=16, ge=1)
    beta: float = Field(default=0.001, ge=0)


class RecSettings(VaeSettings):
    """Settings of ``vae``."""

    score: Literal["rec"] = "rec"


class KlSettings(VaeSettings):
    """Settings of ``vae-kl``; gradients are rough, so the map is smoothed."""

    score: Literal["kl"] = "kl"
    smooth: int = Field(default=5, ge=1, le=31)


class GradientSettings(VaeSettings):
    """Settings of ``vae-gradient``; gradients are rough, so the map is smoothed."""

    score: Literal["combined", "elbo"] = "combined"
    smooth: int = Field(default=5, ge=1, le=31)


class Vae(ResidualMethod[VaeSettings]):
    """Loss: mean squared error + beta KL(q(z|x) ‖ N(0, 1)); judged at the mean of q, so without chance."""

    def __init__(self, settings: VaeSettings) -> None:
        super().__init__(settings)
        self.needs_gradient = settings.score != "rec"

    def make(self) -> nn.Module:
        return CodedAutoEncoder(self.settings.size, self.settings.width, self.settings.latent, codes=2)

    def loss(self, drawn: Drawn) -> Tensor:
        mean, log_variance = self._posterior(drawn.healthy)
        chance = torch.randn(mean.shape, generator=drawn.noise).to(mean.device)
        back = self._net.decode(mean + torch.exp(0.5 * log_variance) * chance)
        return ((drawn.healthy - back) ** 2).mean() + self.settings.beta * divergence(mean, log_variance).mean()

    def residual(self, images: Tensor) -> Tensor:
        """The map before smoothing, by the setting ``score``."""
        if self.settings.score == "rec":
            return (images - self._net.decode(self._posterior(images)[0])) ** 2
        return self._gradient_map(images)[1]

    def judge_batch(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        if self.settings.score != "kl":
            return super().judge_batch(images, masks)
        kl, gradient = self._gradient_map(images)
        return kl, smoothed(gradient, self.settings.smooth)

    def _gradient_map(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """KL of every plane, shape (n,), and the map of ``score``.

        Differentiable itself when ``images`` ask for a gradient.
        """
        twice = images.requires_grad
        with torch.enable_grad():
            inputs = images if twice else images.detach().clone().requires_grad_()
            mean, log_variance = self._posterior(inputs)
            kl = divergence(mean, log_variance)
            back = self._net.decode(mean)
            target = kl
            if self.settings.score == "elbo":
                target = ((inputs - back) ** 2).flatten(1).mean(1) + self.settings.beta * kl
            (slope,) = torch.autograd.grad(target.sum(), inputs, create_graph=twice)
            heat = slope.abs()
            if self.settings.score == "combined":
                heat = heat * (inputs - back).abs()
        return (kl, heat) if twice else (kl.detach(), heat.detach())

    def _posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self._net.encode(images).chunk(2, dim=1)
        return mean, log_variance.clamp(-10.0, 10.0)  # bounded: exp stays finite

    @property
    def _net(self) -> CodedAutoEncoder:
        return cast("CodedAutoEncoder", self.network)


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, variance) ‖ N(0, 1)) in nats (Kingma & Welling 2014, appendix B); both (n, latent), answer (n,)."""
    return 0.5 * (mean**2 + log_variance.exp() - 1.0 - log_variance).sum(1)


def _entry(
    name: str, settings: type[VaeSettings], rows: tuple[str, ...], source: str, score: str, explains: str = ""
) -> MethodEntry:
    regime = Regime.SEMI_SUPERVISED
    return MethodEntry(name, Family.AUTOENCODER, regime, rows, source, score, settings, Vae, explains=explains)


METHODS = (
    _entry(
        "vae",
        RecSettings,
        ("002-26",),
        "Kingma & Welling 2014; Heer et al., MIDL 2021",
        "mean of (x - x̂)², in squared parts of the grey range",
    ),
    _entry(
        "vae-kl",
        KlSettings,
        ("002-26",),
        "Heer et al., MIDL 2021; map: Zimmerer et al., MICCAI 2019",
        "KL divergence of the code from its prior, in nats",
        "sensitivity of the score to each pixel",
    ),
    _entry(
        "vae-gradient",
        GradientSettings,
        ("002-29",),
        "Zimmerer et al., MICCAI 2019 (residual times |∂KL/∂x|); Zimmerer et al. 2018 (gradient of the bound)",
        "mean of |x - x̂| |∂KL/∂x| after smoothing, in nats",
        "residual map, weighed by the sensitivity of the score",
    ),
)
