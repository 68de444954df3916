"""Deep SVDD: an encoder that brings healthy planes close to one centre (Ruff et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from pydantic import Field
from torch import Tensor, nn

from dicomnode.detectors.methods.contract import Family, Material, MethodEntry, Regime, Settings
from dicomnode.detectors.methods.drawing import Drawn, plane_pool
from dicomnode.detectors.methods.features.scoring import blurred
from dicomnode.detectors.methods.fitting import Player, parameters
from dicomnode.detectors.methods.torch_method import TorchMethod

LEAST_CENTRE = 0.1
"""Coordinates of the centre nearer to 0 are moved here: zero weights could reach 0 for every input."""
CENTRE_BATCH = 64


class DeepSvddSettings(Settings):
    """``width``: channels of the first layer. ``latent``: size of the code. ``decay``: weight decay λ. ``smooth``:
    standard deviation of the Gaussian that smooths the map, pixels."""

    width: int = Field(default=16, ge=1, le=128)
    latent: int = Field(default=32, ge=1)
    decay: float = Field(default=1e-6, ge=0)
    smooth: float = Field(default=1.0, gt=0, le=16)


class OneClassEncoder(nn.Module):
    """Convolutions 5 x 5 with pools and a linear layer, all without bias (proposition 2) and with unbounded
    activations (proposition 3). ``forward``: planes, shape (n, 1, size, size), to codes, (n, latent)."""

    centre: Tensor

    def __init__(self, size: int, width: int, latent: int) -> None:
        super().__init__()
        if size % 8:
            raise ValueError("the size is a multiple of 8")
        widths = (1, width, 2 * width, 4 * width)
        self.body = nn.Sequential(*(_down(a, b) for a, b in pairwise(widths)))
        self.code = nn.Linear(4 * width * (size // 8) ** 2, latent, bias=False)
        self.register_buffer("centre", torch.zeros(latent))

    def forward(self, planes: Tensor) -> Tensor:
        codes: Tensor = self.code(self.body(planes).flatten(1))
        return codes

    def distances(self, planes: Tensor) -> Tensor:
        """Squared distance to the centre, shape (n,)."""
        squared: Tensor = (self(planes) - self.centre).square().sum(dim=1)
        return squared


class DeepSvdd(TorchMethod[DeepSvddSettings]):
    """Loss: mean squared distance to the centre and weight decay (eq. 4); the centre is the mean code before
    training. Score: squared distance. Map: how much each pixel moves the score, |∂ score / ∂ pixel| smoothed; the
    paper has no map, and this one shows what the score reacts to rather than where it is surprised."""

    needs_gradient = True
    network: OneClassEncoder

    def make(self) -> OneClassEncoder:
        return OneClassEncoder(self.settings.size, self.settings.width, self.settings.latent)

    def before_fit(self, material: Material) -> None:
        pool = plane_pool(material.healthy, self.settings.size)
        with torch.no_grad():
            centre = torch.cat([self.network(part) for part in torch.split(pool, CENTRE_BATCH)]).mean(dim=0)
        near = centre.abs() < LEAST_CENTRE
        self.network.centre.copy_(
            torch.where(near, torch.copysign(torch.full_like(centre, LEAST_CENTRE), centre), centre)
        )

    def players(self) -> Sequence[Player]:
        return (Player("encoder", parameters(self.network), self._loss, self.settings.learning_rate),)

    def _loss(self, drawn: Drawn) -> Tensor:
        weights = torch.stack([one.square().sum() for one in self.network.parameters()]).sum()
        return self.network.distances(drawn.healthy).mean() + 0.5 * self.settings.decay * weights

    def judge_batch(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002 - whole planes
        twice = images.requires_grad
        with torch.enable_grad():
            own = images if twice else images.detach().requires_grad_()
            distances = self.network.distances(own)
            (gradient,) = torch.autograd.grad(distances.sum(), own, create_graph=twice)
        maps = blurred(gradient.abs(), self.settings.smooth)
        return (distances, maps) if twice else (distances.detach(), maps)


def _down(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 5, padding=2, bias=False),
        nn.BatchNorm2d(outputs, affine=False),
        nn.LeakyReLU(0.1),
        nn.MaxPool2d(2),
    )


METHODS = (
    MethodEntry(
        "deep-svdd",
        Family.FEATURES,
        Regime.SEMI_SUPERVISED,
        ("002-38",),
        "Ruff et al., ICML 2018, eq. 4 (one-class Deep SVDD)",
        "squared distance of the code to the centre, no unit; map: sensitivity of the score to each pixel",
        DeepSvddSettings,
        DeepSvdd,
        explains="sensitivity of the score to each pixel",
    ),
)
