"""CeAE: an auto-encoder that has to fill in what was cut out of healthy planes."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from dicomnode.detectors.methods.autoencoders.convolutions import CodedAutoEncoder
from dicomnode.detectors.methods.contract import Family, MethodEntry, Regime
from dicomnode.detectors.methods.drawing import Drawn
from dicomnode.detectors.methods.residual import ResidualMethod, ResidualSettings


class CeAeSettings(ResidualSettings):
    """``latent``: size of the code. ``patches``: squares cut out of a training plane. ``largest``: their largest
    side as a share of the plane's."""

    latent: int = Field(default=16, ge=1)
    patches: int = Field(default=2, ge=1, le=16)
    largest: float = Field(default=0.3, gt=0, le=0.9)


class CeAe(ResidualMethod[CeAeSettings]):
    """Loss: mean squared error of the whole plane from the plane with holes; map: (x - x̂)² of the whole plane."""

    def make(self) -> nn.Module:
        return CodedAutoEncoder(self.settings.size, self.settings.width, self.settings.latent)

    def loss(self, drawn: Drawn) -> Tensor:
        whole = drawn.healthy
        holed = whole * holes(whole, self.settings.patches, self.settings.largest, drawn.noise)
        squared: Tensor = ((whole - self.network(holed)) ** 2).mean()
        return squared

    def residual(self, images: Tensor) -> Tensor:
        squared: Tensor = (images - self.network(images)) ** 2
        return squared


def holes(images: Tensor, patches: int, largest: float, noise: torch.Generator) -> Tensor:
    """0 in ``patches`` random squares of every image, 1 elsewhere; shape of ``images``, (n, 1, size, size).

    Sides are drawn between a third of ``largest`` and ``largest`` of the size, centres anywhere.
    """
    n, _, size, _ = images.shape
    place = (torch.arange(size) + 0.5) / size
    middle = torch.rand(n, patches, 2, generator=noise)
    half = largest / 6 * (1 + 2 * torch.rand(n, patches, generator=noise))
    rows, columns = ((place - middle[..., axis, None]).abs() < half[..., None] for axis in (0, 1))
    cut = (rows[..., :, None] & columns[..., None, :]).any(dim=1, keepdim=True)
    return (~cut).to(images)


METHODS = (
    MethodEntry(
        "ceae",
        Family.AUTOENCODER,
        Regime.SEMI_SUPERVISED,
        ("002-39",),
        "Pathak et al., CVPR 2016 (context encoders); Zimmerer et al. 2018; Cai et al. 2025 (CeAE)",
        "mean of (x - x̂)², in squared parts of the grey range",
        CeAeSettings,
        CeAe,
    ),
)
