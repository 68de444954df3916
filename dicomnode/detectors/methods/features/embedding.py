"""One embedding per plane from a frozen backbone, judged by a Gaussian or by its neighbours."""

from __future__ import annotations

from abc import abstractmethod

import torch
from pydantic import Field
from torch import Tensor

from dicomnode.detectors.methods.contract import Family, MethodEntry, Regime, Run, Tensors
from dicomnode.detectors.methods.features.frozen_method import BankMethod, FeatureGrid, FrozenSettings
from dicomnode.detectors.methods.features.scoring import on_grid, raised

LEAST_SD = 0.05
"""Smallest standard deviation that counts, in healthy standard deviations of a stage."""
MAP = "; map: root mean square deviation of the features from the healthy ones at their place, in sd, not by the score"


class EmbeddingSettings(FrozenSettings):
    """The embedding is the mean feature inside the organ. ``bank``: healthy planes that are kept as neighbours.
    ``neighbours``: of them the nearest whose mean distance is the score."""

    bank: int = Field(default=2000, ge=2)
    neighbours: int = Field(default=5, ge=1)


class EmbeddingNetwork(FeatureGrid):
    """``mean``, ``sd``: healthy features at every place, shape (channels, side, side). ``rows``: what is kept of the
    healthy embeddings, shape (m, channels). ``centre``: shape (channels,)."""

    mean: Tensor
    sd: Tensor
    rows: Tensor
    centre: Tensor

    def __init__(self, settings: EmbeddingSettings) -> None:
        super().__init__(settings)
        self.register_buffer("mean", torch.zeros(self.channels, self.side, self.side))
        self.register_buffer("sd", torch.ones(self.channels, self.side, self.side))
        self.register_buffer("centre", torch.zeros(self.channels))
        self.hold(torch.zeros(0, self.channels))

    def hold(self, rows: Tensor) -> None:
        self.register_buffer("rows", rows)


class EmbeddingMethod(BankMethod[EmbeddingSettings]):
    """Score by ``distances`` of the embedding. The map does not come from the embedding, which has no places: it is
    the root mean square deviation of the features from the healthy mean at their place."""

    network: EmbeddingNetwork

    def make(self) -> EmbeddingNetwork:
        return EmbeddingNetwork(self.settings)

    @abstractmethod
    def keep(self, embeddings: Tensor, noise: torch.Generator) -> Tensor:
        """What of the healthy ``embeddings``, shape (n, channels), centred, is kept as rows, (m, channels)."""

    @abstractmethod
    def distances(self, embeddings: Tensor) -> Tensor:
        """How far centred ``embeddings``, shape (n, channels), are from healthy; shape (n,)."""

    def resize(self, tensors: Tensors) -> None:
        rows = len(tensors["rows"]) if "rows" in tensors and tensors["rows"].ndim == 2 else 0
        self.network.hold(torch.zeros(rows, self.network.channels))

    def learn(self, images: Tensor, masks: Tensor, run: Run) -> None:
        sample = self.spread(images, run.seed)
        self.network.learn_level(sample)
        shift = self.network(sample).mean(dim=0)
        total, squares = torch.zeros_like(shift), torch.zeros_like(shift)
        embeddings = []
        for first, features in self.walk(images, run):
            embeddings.append(self._embedded(features, masks[first : first + len(features)].to(features.device)))
            total += (features - shift).sum(dim=0)
            squares += (features - shift).square().sum(dim=0)
        offset = total / len(images)
        self.network.mean.copy_(shift + offset)
        self.network.sd.copy_((squares / len(images) - offset.square()).clamp(min=0.0).sqrt() + LEAST_SD)
        every = torch.cat(embeddings)
        self.network.centre.copy_(every.mean(dim=0))
        self.network.hold(self.keep(every - self.network.centre, torch.Generator().manual_seed(run.seed)))

    def _embedded(self, features: Tensor, masks: Tensor) -> Tensor:
        """Mean feature inside the organ, shape (n, channels)."""
        inside = on_grid(masks, self.network.side, self.network.side)
        mean: Tensor = (features * inside).sum(dim=(2, 3)) / inside.sum(dim=(2, 3)).clamp(min=1.0)
        return mean

    def judge_batch(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        features = self.network(images)
        deviations = ((features - self.network.mean) / self.network.sd).square().mean(dim=1, keepdim=True).sqrt()
        scores = self.distances(self._embedded(features, masks) - self.network.centre)
        return scores, raised(deviations, images.shape[-1], self.settings.smooth)


class GaussianEmbedding(EmbeddingMethod):
    """Mahalanobis distance with a shrunk covariance (Ledoit & Wolf 2004); the rows kept are a root of its inverse."""

    def keep(self, embeddings: Tensor, noise: torch.Generator) -> Tensor:  # noqa: ARG002 - nothing is drawn
        from sklearn.covariance import LedoitWolf

        covariance = LedoitWolf(assume_centered=True).fit(embeddings.cpu().double().numpy()).covariance_
        values, vectors = torch.linalg.eigh(torch.from_numpy(covariance))
        least = values[-1].clamp(min=1e-12) * 1e-6
        roots = vectors / values.clamp(min=least).sqrt()
        kept: Tensor = roots.T.float().to(embeddings.device)
        return kept

    def distances(self, embeddings: Tensor) -> Tensor:
        away: Tensor = (embeddings @ self.network.rows.T).square().sum(dim=1).sqrt()
        return away


class NeighbourEmbedding(EmbeddingMethod):
    """Mean Euclidean distance to the nearest healthy embeddings."""

    def keep(self, embeddings: Tensor, noise: torch.Generator) -> Tensor:
        drawn = torch.randperm(len(embeddings), generator=noise)[: self.settings.bank]
        return embeddings[drawn.sort().values.to(embeddings.device)]

    def distances(self, embeddings: Tensor) -> Tensor:
        count = min(self.settings.neighbours, len(self.network.rows))
        away = [(self.network.rows - one).square().sum(dim=1).sqrt() for one in embeddings]
        return torch.stack([one.topk(count, largest=False).values.mean() for one in away])


METHODS = (
    MethodEntry(
        "features-gaussian",
        Family.FEATURES,
        Regime.SEMI_SUPERVISED,
        ("002-1", "002-39"),
        "Rippel et al., ICPR 2020 (Mahalanobis distance of frozen features)",
        "Mahalanobis distance of the plane's mean feature, no unit" + MAP,
        EmbeddingSettings,
        GaussianEmbedding,
        explains="deviation of local features (not the score)",
    ),
    MethodEntry(
        "features-knn",
        Family.FEATURES,
        Regime.SEMI_SUPERVISED,
        ("002-1", "002-39"),
        "Bergman et al. 2020 (DN2: distance to the nearest frozen features)",
        "mean distance of the plane's mean feature to the nearest healthy ones, no unit" + MAP,
        EmbeddingSettings,
        NeighbourEmbedding,
        explains="deviation of local features (not the score)",
    ),
)
