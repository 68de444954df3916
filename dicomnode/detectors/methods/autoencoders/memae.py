"""MemAE: the code of a plane is replaced by a sparse mixture of codes remembered from healthy planes."""

from __future__ import annotations

from itertools import pairwise

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from dicomnode.detectors.methods.autoencoders.convolutions import down, up
from dicomnode.detectors.methods.contract import Family, MethodEntry, Regime
from dicomnode.detectors.methods.drawing import Drawn
from dicomnode.detectors.methods.residual import ResidualMethod, ResidualSettings


class MemAeSettings(ResidualSettings):
    """``items``: codes in memory. ``shrink``: weights below this many times the even weight 1 / items become 0.
    ``sparse``: weight of the entropy of the memory's weights in the loss."""

    items: int = Field(default=64, ge=2)
    shrink: float = Field(default=1.0, ge=0)
    sparse: float = Field(default=0.0002, ge=0)


class MemoryAutoEncoder(nn.Module):
    """Three times down and up with a memory between, asked at every place of the code grid.

    Input: shape (n, 1, size, size), 0..1. ``forward`` answers the reconstruction and the weights of the memory,
    shape (n, items, size / 8, size / 8).
    """

    def __init__(self, size: int, width: int, items: int, shrink: float) -> None:
        super().__init__()
        if size % 8:
            raise ValueError("the size is a multiple of 8")
        widths = [1, width, 2 * width, 4 * width]
        back = [4 * width, 2 * width, width, width]
        self.least = shrink / items
        self.encoder = nn.Sequential(*(down(a, b) for a, b in pairwise(widths)))
        self.memory = nn.Parameter(torch.randn(items, 4 * width) / (4 * width) ** 0.5)
        self.decoder = nn.Sequential(*(up(a, b) for a, b in pairwise(back)))
        self.head = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        asked = self.encoder(images)
        weights = F.softmax(torch.einsum("nchw,mc->nmhw", asked, self.memory), dim=1)
        above = F.relu(weights - self.least)
        kept = above * weights / ((weights - self.least).abs() + 1e-12)
        kept = kept / kept.sum(dim=1, keepdim=True).clamp(min=1e-12)
        found = torch.einsum("nmhw,mc->nchw", kept, self.memory)
        return self.head(self.decoder(found)), kept


class MemAe(ResidualMethod[MemAeSettings]):
    """Loss: mean squared error + ``sparse`` times the entropy of the weights (Gong et al., eq. 9); map: (x - x̂)²."""

    def make(self) -> nn.Module:
        settings = self.settings
        return MemoryAutoEncoder(settings.size, settings.width, settings.items, settings.shrink)

    def loss(self, drawn: Drawn) -> Tensor:
        back, weights = self.network(drawn.healthy)
        entropy = -(weights * (weights + 1e-12).log()).sum(dim=1).mean()
        loss: Tensor = ((drawn.healthy - back) ** 2).mean() + self.settings.sparse * entropy
        return loss

    def residual(self, images: Tensor) -> Tensor:
        squared: Tensor = (images - self.network(images)[0]) ** 2
        return squared


METHODS = (
    MethodEntry(
        "memae",
        Family.AUTOENCODER,
        Regime.SEMI_SUPERVISED,
        ("002-39",),
        "Gong et al., ICCV 2019, eq. 3-9",
        "mean of (x - x̂)², in squared parts of the grey range",
        MemAeSettings,
        MemAe,
    ),
)
