"""AE-U: an auto-encoder that also learns how uncertain each pixel is."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from pydantic import Field
from torch import Tensor, nn

from dicomnode.detectors.methods.contract import Family, Method, MethodEntry, Regime, Settings
from dicomnode.detectors.methods.drawing import Drawn
from dicomnode.detectors.methods.fitting import Player, parameters
from dicomnode.detectors.methods.torch_method import TorchMethod, masked_mean


class AeUSettings(Settings):
    """``width``: channels of the first layer. ``latent``: size of the code."""

    width: int = Field(default=16, ge=1, le=128)
    latent: int = Field(default=16, ge=1)


class AutoEncoderU(nn.Module):
    """Auto-encoder with learned uncertainty (AE-U; Mao et al., MICCAI 2020).

    Input and outputs: shape (n, 1, size, size), 0..1. ``forward`` answers the reconstruction and s = log variance.
    """

    def __init__(self, size: int, width: int, latent: int) -> None:
        super().__init__()
        if size % 16:
            raise ValueError("the size is a multiple of 16")
        widths = [1, width, 2 * width, 4 * width, 4 * width]
        self.side, self.deep = size // 16, 4 * width
        flat = self.deep * self.side * self.side
        self.encoder = nn.Sequential(*(down(a, b) for a, b in pairwise(widths)))
        self.to_latent = nn.Linear(flat, latent)
        self.from_latent = nn.Sequential(nn.Linear(latent, flat), nn.LeakyReLU(0.1))
        back = widths[:0:-1]
        self.decoder = nn.Sequential(*(up(a, b) for a, b in zip(back, [*back[1:], width], strict=True)))
        self.head = nn.Conv2d(width, 2, 3, padding=1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        code = self.to_latent(self.encoder(images).flatten(1))
        grid = self.from_latent(code).view(-1, self.deep, self.side, self.side)
        both = self.head(self.decoder(grid))
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


def down(inputs: int, outputs: int) -> nn.Sequential:
    """Half the side: convolution 4 x 4, stride 2, batch normalisation, leaky ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.1)
    )


def up(inputs: int, outputs: int) -> nn.Sequential:
    """Twice the side: transposed convolution 4 x 4, stride 2, batch normalisation, leaky ReLU."""
    return nn.Sequential(
        nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.LeakyReLU(0.1),
    )


def _build(settings: Settings) -> Method:
    return AeU(AeUSettings.model_validate(settings.model_dump()))


METHODS = (
    MethodEntry(
        "ae-u",
        Family.AUTOENCODER,
        Regime.SEMI_SUPERVISED,
        ("002-39",),
        "Mao et al., MICCAI 2020, eq. 3",
        "mean of exp(-s)(x - x̂)², squared residual in units of its expected variance",
        AeUSettings,
        _build,
    ),
)
