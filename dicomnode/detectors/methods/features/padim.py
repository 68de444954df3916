"""PaDiM: a Gaussian of the features at every place (Defard et al. 2020)."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from dicomnode.detectors.methods.contract import Family, MethodEntry, Regime, Run
from dicomnode.detectors.methods.features.frozen_method import BankMethod, FeatureGrid, FrozenSettings
from dicomnode.detectors.methods.features.scoring import masked_max, raised


class PadimSettings(FrozenSettings):
    """``channels``: size of the random subset of the feature channels. ``ridge``: added to the covariance (ε of eq. 1),
    in healthy variances of a stage."""

    channels: int = Field(default=100, ge=1)
    ridge: float = Field(default=0.01, gt=0)


class PadimNetwork(FeatureGrid):
    """``chosen``: the channels. ``mean``: shape (places, d). ``whitening``: (places, d, d), a root of the inverse
    covariance, so that distances cannot turn negative after rounding."""

    chosen: Tensor
    mean: Tensor
    whitening: Tensor

    def __init__(self, settings: PadimSettings) -> None:
        super().__init__(settings)
        d, places = min(settings.channels, self.channels), self.side**2
        self.register_buffer("chosen", torch.arange(d))
        self.register_buffer("mean", torch.zeros(places, d))
        self.register_buffer("whitening", torch.zeros(places, d, d))

    def forward(self, planes: Tensor) -> Tensor:
        """Features at every place, shape (n, places, d)."""
        features: Tensor = super().forward(planes)[:, self.chosen].flatten(2).transpose(1, 2)
        return features

    def distances(self, planes: Tensor) -> Tensor:
        """Mahalanobis distance at every place, eq. 2; shape (n, 1, side, side)."""
        away = (self(planes) - self.mean).transpose(0, 1)
        squared: Tensor = (away @ self.whitening).square().sum(dim=2).transpose(0, 1)
        return squared.sqrt().reshape(len(planes), 1, self.side, self.side)


class Padim(BankMethod[PadimSettings]):
    """Map: Mahalanobis distance of the features at their place. Score: its largest value inside the organ."""

    network: PadimNetwork

    def make(self) -> PadimNetwork:
        return PadimNetwork(self.settings)

    def learn(self, images: Tensor, masks: Tensor, run: Run) -> None:  # noqa: ARG002 - the whole grid is modelled
        noise = torch.Generator().manual_seed(run.seed)
        subset = torch.randperm(self.network.channels, generator=noise)[: len(self.network.chosen)]
        self.network.chosen.copy_(subset.sort().values)
        sample = self.spread(images, run.seed)
        self.network.learn_level(sample)
        shift = self.network(sample).mean(dim=0)
        total, squares = torch.zeros_like(shift), torch.zeros_like(self.network.whitening)
        for _, features in self.walk(images, run):
            away = (features - shift).transpose(0, 1)
            total += away.sum(dim=1)
            squares += away.transpose(1, 2) @ away
        offset = total / len(images)
        covariance = (squares - len(images) * offset[:, :, None] * offset[:, None]) / (len(images) - 1)
        ridge = self.settings.ridge * torch.eye(shift.shape[1], device=shift.device)
        lower = torch.linalg.cholesky(covariance + ridge)
        unit = torch.eye(shift.shape[1], device=shift.device).expand_as(lower)
        self.network.mean.copy_(shift + offset)
        self.network.whitening.copy_(torch.linalg.solve_triangular(lower, unit, upper=False).transpose(1, 2))

    def judge_batch(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        maps = raised(self.network.distances(images), images.shape[-1], self.settings.smooth)
        return masked_max(maps, masks), maps


METHODS = (
    MethodEntry(
        "padim",
        Family.FEATURES,
        Regime.SEMI_SUPERVISED,
        ("002-1", "003 baseline"),
        "Defard et al. 2020, eq. 1 and 2",
        "largest Mahalanobis distance of the features from the healthy ones at their place, no unit",
        PadimSettings,
        Padim,
        explains="distance to healthy features at the same place",
    ),
)
