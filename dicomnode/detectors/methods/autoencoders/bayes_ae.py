"""Bayesian auto-encoder: dropout stays on while judging, so that the answers also say how sure they are."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from dicomnode.detectors.methods.autoencoders.convolutions import CodedAutoEncoder
from dicomnode.detectors.methods.contract import Family, MethodEntry, Regime
from dicomnode.detectors.methods.drawing import Drawn
from dicomnode.detectors.methods.residual import ResidualMethod, ResidualSettings


class BayesAeSettings(ResidualSettings):
    """``latent``: size of the code. ``dropout``: share of channels dropped. ``samples``: dropout masks per plane.

    ``score``: residual, (x - mean x̂)²; variance, the variance of x̂ over the masks (epistemic); expected, their sum,
    which is the mean of (x - x̂)² over the masks.
    """

    latent: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.1, gt=0, lt=1)
    samples: int = Field(default=8, ge=2, le=64)
    score: Literal["residual", "variance", "expected"] = "expected"


class BayesianAutoEncoder(CodedAutoEncoder):
    """A coded auto-encoder with channel dropout after every block.

    Dropping whole channels is a draw of the next layer's weights (Gal & Ghahramani 2016).
    """

    def __init__(self, size: int, width: int, latent: int, dropout: float) -> None:
        super().__init__(size, width, latent)
        self.dropout = dropout

    def forward(self, images: Tensor, mask: int | None = None) -> Tensor:
        """The reconstruction under the dropout mask of number ``mask``, the same for all images; None draws anew
        for each image."""
        chance = None if mask is None else torch.Generator().manual_seed(mask)
        grid = images
        for block in self.encoder:
            grid = self._dropped(block(grid), chance)
        code = self.to_latent(grid.flatten(1))
        grid = self.from_latent(code).view(-1, self.deep, self.side, self.side)
        for block in self.decoder:
            grid = block(self._dropped(grid, chance))
        back: Tensor = self.head(grid)
        return back

    def _dropped(self, grid: Tensor, chance: torch.Generator | None) -> Tensor:
        if chance is None:
            return F.dropout2d(grid, self.dropout)
        kept = (torch.rand((1, grid.shape[1], 1, 1), generator=chance) >= self.dropout).to(grid)
        return grid * kept / (1.0 - self.dropout)


class BayesAe(ResidualMethod[BayesAeSettings]):
    """Loss: mean squared error under dropout. The masks of judging have fixed seeds: a plane's answer depends on
    nothing but the plane."""

    def make(self) -> nn.Module:
        settings = self.settings
        return BayesianAutoEncoder(settings.size, settings.width, settings.latent, settings.dropout)

    def loss(self, drawn: Drawn) -> Tensor:
        squared: Tensor = (drawn.healthy - self.network(drawn.healthy)) ** 2
        return squared.mean()

    def residual(self, images: Tensor) -> Tensor:
        backs = torch.stack([self.network(images, mask) for mask in range(self.settings.samples)])
        variance = backs.var(dim=0, unbiased=False)
        if self.settings.score == "variance":
            return variance
        residual = (images - backs.mean(dim=0)) ** 2
        return residual if self.settings.score == "residual" else residual + variance


METHODS = (
    MethodEntry(
        "bayes-ae",
        Family.AUTOENCODER,
        Regime.SEMI_SUPERVISED,
        ("002-14",),
        "Pawlowski et al. 2018; dropout as a Bayesian approximation: Gal & Ghahramani 2016",
        "mean of (x - x̂)² over pixels and dropout masks, in squared parts of the grey range",
        BayesAeSettings,
        BayesAe,
    ),
)
