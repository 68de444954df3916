"""AE-U: an auto-encoder that also learns how uncertain each pixel is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from dicomnode.detectors.methods.autoencoders.convolutions import CodedAutoEncoder
from dicomnode.detectors.methods.contract import Family, MethodEntry, Regime, Settings
from dicomnode.detectors.methods.drawing import Drawn
from dicomnode.detectors.methods.fitting import Player, parameters
from dicomnode.detectors.methods.torch_method import TorchMethod, masked_mean


class AeUSettings(Settings):
    """``width``: channels of the first layer. ``latent``: size of the code."""

    width: int = Field(default=16, ge=1, le=128)
    latent: int = Field(default=16, ge=1)


class AutoEncoderU(CodedAutoEncoder):
    """Auto-encoder with learned uncertainty (AE-U; Mao et al., MICCAI 2020).

    Input and outputs: shape (n, 1, size, size), 0..1. ``forward`` answers the reconstruction and s = log variance.
    """

    def __init__(self, size: int, width: int, latent: int) -> None:
        super().__init__(size, width, latent, outputs=2)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        both = super().forward(images)
        return both[:, :1], both[:, 1:].clamp(-8.0, 4.0)  # bounded variance: exp(-s) stays finite


class AeU(TorchMethod[AeUSettings]):
    """Loss: mean of exp(-s)(x - x̂)² + s (eq. 3); map: exp(-s)(x - x̂)², the residual in units of its variance."""

    def make(self) -> nn.Module:
        return AutoEncoderU(self.settings.size, self.settings.width, self.settings.latent)

    def players(self) -> Sequence[Player]:
        return (Player("auto-encoder", parameters(self.network), self._loss, self.settings.learning_rate),)

    def _loss(self, drawn: Drawn) -> Tensor:
        reconstruction, s = self.network(drawn.healthy)
        per_pixel: Tensor = torch.exp(-s) * (drawn.healthy - reconstruction) ** 2 + s
        return per_pixel.mean()

    def judge_batch(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        reconstruction, s = self.network(images)
        residual: Tensor = torch.exp(-s) * (images - reconstruction) ** 2
        return masked_mean(residual, masks), residual


METHODS = (
    MethodEntry(
        "ae-u",
        Family.AUTOENCODER,
        Regime.SEMI_SUPERVISED,
        ("002-39",),
        "Mao et al., MICCAI 2020, eq. 3",
        "mean of exp(-s)(x - x̂)², squared residual in units of its expected variance",
        AeUSettings,
        AeU,
    ),
)
