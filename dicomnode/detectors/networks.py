"""The two healthy-only networks: AE-U (how far from healthy) and DAE (where)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dicomnode.errors import ConfigError


def _down(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.1)
    )


def _up(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.LeakyReLU(0.1),
    )


class AutoEncoderU(nn.Module):
    """Auto-encoder with learned uncertainty (AE-U; Mao et al., MICCAI 2020).

    Input and outputs: shape (n, 1, size, size), 0..1. ``forward`` answers the reconstruction and s = log variance.
    """

    def __init__(self, size: int, width: int, latent: int) -> None:
        super().__init__()
        widths = [1, width, 2 * width, 4 * width, 4 * width]
        self.size, self.side, self.deep = size, size // 16, 4 * width
        flat = self.deep * self.side * self.side
        self.encoder = nn.Sequential(*(_down(a, b) for a, b in pairwise(widths)))
        self.to_latent = nn.Linear(flat, latent)
        self.from_latent = nn.Sequential(nn.Linear(latent, flat), nn.LeakyReLU(0.1))
        back = widths[:0:-1]
        self.decoder = nn.Sequential(*(_up(a, b) for a, b in zip(back, [*back[1:], width], strict=True)))
        self.head = nn.Conv2d(width, 2, 3, padding=1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        code = self.to_latent(self.encoder(images).flatten(1))
        grid = self.from_latent(code).view(-1, self.deep, self.side, self.side)
        both = self.head(self.decoder(grid))
        return both[:, :1], both[:, 1:].clamp(-8.0, 4.0)  # bounded variance: exp(-s) stays finite

    def loss(self, images: Tensor, noise: torch.Generator) -> Tensor:  # noqa: ARG002 - one signature for all networks
        """Mean of exp(-s)(x - x̂)² + s over all pixels (AE-U, eq. 3)."""
        reconstruction, s = self(images)
        per_pixel: Tensor = torch.exp(-s) * (images - reconstruction) ** 2 + s
        return per_pixel.mean()

    def residual(self, images: Tensor) -> Tensor:
        """exp(-s)(x - x̂)²: the squared residual in units of its expected variance, shape of ``images``."""
        reconstruction, s = self(images)
        scaled: Tensor = torch.exp(-s) * (images - reconstruction) ** 2
        return scaled


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.SiLU())


class DenoisingUNet(nn.Module):
    """Denoising auto-encoder with coarse noise (DAE; Kascenas et al., MIDL 2022), a U-Net at half resolution.

    Input and output: shape (n, 1, size, size), 0..1. ``bright_only``: only what is brighter than expected counts as
    residual (lesions of FLAIR and acute blood are). ``smooth``: side of the mean filter of the residual, odd, pixels.
    """

    def __init__(self, size: int, width: int, *, bright_only: bool = False, smooth: int = 5) -> None:
        super().__init__()
        self.bright_only, self.smooth = bright_only, smooth
        self.size, self.coarse, w = size, size // 8, width
        self.enter = nn.Sequential(_block(4, w), _block(w, w))
        self.middle = nn.Sequential(_block(w, 2 * w), _block(2 * w, 2 * w))
        self.deep = nn.Sequential(_block(2 * w, 3 * w), _block(3 * w, 3 * w))
        self.rise = _block(5 * w, 2 * w)
        self.leave = nn.Sequential(_block(3 * w, w), nn.Conv2d(w, 4, 3, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        top = self.enter(F.pixel_unshuffle(images, 2))
        half = self.middle(F.avg_pool2d(top, 2))
        quarter = self.deep(F.avg_pool2d(half, 2))
        half = self.rise(torch.cat([F.interpolate(quarter, scale_factor=2.0), half], dim=1))
        top = self.leave(torch.cat([F.interpolate(half, scale_factor=2.0), top], dim=1))
        return F.pixel_shuffle(top, 2)

    def loss(self, images: Tensor, noise: torch.Generator) -> Tensor:
        """Mean squared error inside the foreground after coarse noise (sd 0.2) was added there."""
        foreground = (images > 0.05).float()
        blobs = self._coarse_noise(images, noise) * foreground
        squared: Tensor = (self(images + blobs) - images) ** 2 * foreground
        return squared.sum() / foreground.sum().clamp(min=1.0)

    def residual(self, images: Tensor) -> Tensor:
        """|x - x̂| smoothed; with ``bright_only`` max(x - x̂ smoothed, 0), so noise cancels. Shape of ``images``."""
        difference: Tensor = images - self(images)
        signed = difference if self.bright_only else difference.abs()
        return F.avg_pool2d(signed, self.smooth, stride=1, padding=self.smooth // 2).clamp(min=0.0)

    def _coarse_noise(self, images: Tensor, noise: torch.Generator) -> Tensor:
        n, _, size, _ = images.shape
        small = 0.2 * torch.randn(n, 1, self.coarse, self.coarse, generator=noise)
        large = F.interpolate(small, size=(size, size), mode="bilinear").to(images.device)
        shift = torch.randint(0, size, (2,), generator=noise).tolist()
        return torch.roll(large, shifts=shift, dims=(2, 3))


Network = AutoEncoderU | DenoisingUNet
"""Both have ``size``, ``loss(images, noise)`` and ``residual(images)``."""


def build_network(architecture: Mapping[str, object]) -> Network:
    """The untrained network that a card's architecture entry names ("kind", "size", "width", and
    "latent" or "bright_only" and "smooth").

    Raises ConfigError for an unknown kind or a wrong size.
    """
    kind = architecture.get("kind")
    try:
        size, width = int(str(architecture["size"])), int(str(architecture["width"]))
        if size % 16 or not 32 <= size <= 512 or not 1 <= width <= 128:
            raise ConfigError(f"a network of size {size} and width {width} cannot be built")
        if kind == "ae-u":
            return AutoEncoderU(size, width, int(str(architecture["latent"])))
    except (KeyError, ValueError) as error:
        raise ConfigError(f"the architecture entry of the card is incomplete: {error}") from error
    if kind == "dae":
        smooth = architecture.get("smooth", 5)
        if not isinstance(smooth, int) or smooth % 2 == 0 or not 1 <= smooth <= 31:
            raise ConfigError("smooth is an odd number of pixels from 1 to 31")
        return DenoisingUNet(size, width, bright_only=bool(architecture.get("bright_only", False)), smooth=smooth)
    raise ConfigError(f"unknown network kind {kind!r}; known are ae-u and dae")
