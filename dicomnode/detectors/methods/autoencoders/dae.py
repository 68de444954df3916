"""DAE: a denoising auto-encoder that takes coarse noise out of healthy planes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from dicomnode.detectors.methods.autoencoders.convolutions import block
from dicomnode.detectors.methods.contract import Family, MethodEntry, Regime, Settings
from dicomnode.detectors.methods.drawing import Drawn
from dicomnode.detectors.methods.fitting import Player, parameters
from dicomnode.detectors.methods.torch_method import TorchMethod, masked_mean


class DaeSettings(Settings):
    """``bright_only``: only what is brighter than expected counts (lesions of FLAIR and acute blood are).

    ``smooth``: side of the mean filter of the residual, odd, pixels.
    """

    width: int = Field(default=16, ge=1, le=128)
    bright_only: bool = False
    smooth: int = Field(default=5, ge=1, le=31)

    @field_validator("smooth")
    @classmethod
    def _odd(cls, smooth: int) -> int:
        if smooth % 2 == 0:
            raise ValueError("smooth is an odd number of pixels")
        return smooth


class DenoisingUNet(nn.Module):
    """A U-Net at half resolution (Kascenas et al., MIDL 2022). Input and output: shape (n, 1, size, size), 0..1."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        if size % 8:
            raise ValueError("the size is a multiple of 8")
        w = width
        self.enter = nn.Sequential(block(4, w), block(w, w))
        self.middle = nn.Sequential(block(w, 2 * w), block(2 * w, 2 * w))
        self.deep = nn.Sequential(block(2 * w, 3 * w), block(3 * w, 3 * w))
        self.rise = block(5 * w, 2 * w)
        self.leave = nn.Sequential(block(3 * w, w), nn.Conv2d(w, 4, 3, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        top = self.enter(F.pixel_unshuffle(images, 2))
        half = self.middle(F.avg_pool2d(top, 2))
        quarter = self.deep(F.avg_pool2d(half, 2))
        half = self.rise(torch.cat([F.interpolate(quarter, scale_factor=2.0), half], dim=1))
        top = self.leave(torch.cat([F.interpolate(half, scale_factor=2.0), top], dim=1))
        return F.pixel_shuffle(top, 2)


class Dae(TorchMethod[DaeSettings]):
    """Loss: squared error inside the foreground after coarse noise (sd 0.2) was added there."""

    def make(self) -> nn.Module:
        return DenoisingUNet(self.settings.size, self.settings.width)

    def players(self) -> Sequence[Player]:
        return (Player("denoiser", parameters(self.network), self._loss, self.settings.learning_rate),)

    def _loss(self, drawn: Drawn) -> Tensor:
        images = drawn.healthy
        foreground = (images > 0.05).float()
        blobs = coarse_noise(images, drawn.noise) * foreground
        squared: Tensor = (self.network(images + blobs) - images) ** 2 * foreground
        return squared.sum() / foreground.sum().clamp(min=1.0)

    def judge_batch(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """|x - x̂| smoothed; with ``bright_only`` max(x - x̂ smoothed, 0), so noise cancels."""
        difference: Tensor = images - self.network(images)
        signed = difference if self.settings.bright_only else difference.abs()
        side = self.settings.smooth
        residual = F.avg_pool2d(signed, side, stride=1, padding=side // 2).clamp(min=0.0)
        return masked_mean(residual, masks), residual


def coarse_noise(images: Tensor, noise: torch.Generator) -> Tensor:
    """Gaussian noise of sd 0.2 on a grid an eighth as fine, brought up and rolled; shape of ``images``."""
    n, _, size, _ = images.shape
    small = 0.2 * torch.randn(n, 1, size // 8, size // 8, generator=noise)
    large = F.interpolate(small, size=(size, size), mode="bilinear").to(images.device)
    shift = torch.randint(0, size, (2,), generator=noise).tolist()
    return torch.roll(large, shifts=shift, dims=(2, 3))


METHODS = (
    MethodEntry(
        "dae",
        Family.AUTOENCODER,
        Regime.SEMI_SUPERVISED,
        ("002-39",),
        "Kascenas et al., MIDL 2022",
        "mean of |x - x̂| after smoothing, in parts of the grey range",
        DaeSettings,
        Dae,
    ),
)
