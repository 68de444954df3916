"""DDPM: part of the way into noise and back; what does not come back was not healthy."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from dicomnode.detectors.methods.contract import Family, MethodEntry, Regime
from dicomnode.detectors.methods.diffusion.noise_unet import NoiseUNet
from dicomnode.detectors.methods.diffusion.schedule import (
    LENGTH,
    NoiseKind,
    blend,
    denoise,
    draw_noise,
    signal_shares,
    way_back,
)
from dicomnode.detectors.methods.drawing import Drawn
from dicomnode.detectors.methods.residual import ResidualMethod, ResidualSettings


class DdpmSettings(ResidualSettings):
    """``width``: a multiple of 4. ``level``: how far into noise, as a share of the whole diffusion. ``back``:
    denoising steps. ``samples``: noises per plane, whose reconstructions are averaged. ``noise``: gaussian, or
    octaves for coarse noise too."""

    width: int = Field(default=32, ge=4, le=256)
    smooth: int = Field(default=3, ge=1, le=31)
    level: float = Field(default=0.25, gt=0, lt=1)
    back: int = Field(default=10, ge=1, le=LENGTH)
    samples: int = Field(default=1, ge=1, le=32)
    noise: NoiseKind = "octaves"


class Ddpm(ResidualMethod[DdpmSettings]):
    """Loss: squared error of the noise (Ho et al., eq. 14); map: |x - x̂| smoothed.

    The noises of judging have fixed seeds and are the same for all planes: an answer depends on the plane alone.
    """

    def make(self) -> nn.Module:
        return NoiseUNet(self.settings.size, self.settings.width)

    def loss(self, drawn: Drawn) -> Tensor:
        planes = 2.0 * drawn.healthy - 1.0
        n, where = len(planes), planes.device
        steps = torch.randint(0, LENGTH, (n,), generator=drawn.noise).to(where)
        noise = self._noise(n, drawn.noise).to(where)
        foretold: Tensor = self.network(blend(planes, noise, signal_shares(where)[steps]), steps)
        return ((foretold - noise) ** 2).mean()

    def residual(self, images: Tensor) -> Tensor:
        back = sum((self._again(images, seed) for seed in range(self.settings.samples)), torch.zeros_like(images))
        return (images - back / self.settings.samples).abs()

    def _again(self, images: Tensor, seed: int) -> Tensor:
        """``images`` after noise of ``seed`` was added and taken out again, 0..1."""
        start = round(self.settings.level * (LENGTH - 1))
        noise = self._noise(1, torch.Generator().manual_seed(seed)).to(images.device)
        noisy = blend(2.0 * images - 1.0, noise, signal_shares(images.device)[start])
        return 0.5 + 0.5 * denoise(noisy, way_back(start, self.settings.back), self.network)

    def _noise(self, n: int, chance: torch.Generator) -> Tensor:
        size = self.settings.size
        return draw_noise((n, 1, size, size), chance, self.settings.noise)


METHODS = (
    MethodEntry(
        "ddpm",
        Family.DIFFUSION,
        Regime.SEMI_SUPERVISED,
        ("001-3", "001-4"),
        "Ho et al., NeurIPS 2020; Wyatt et al., CVPR Workshops 2022 (AnoDDPM); Song et al., ICLR 2021 (DDIM)",
        "mean of |x - x̂| after smoothing, in parts of the grey range",
        DdpmSettings,
        Ddpm,
        opt_in=True,
    ),
)
