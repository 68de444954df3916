"""PatchCore: distance of every patch to a memory bank of healthy ones (Roth et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor

from dicomnode.detectors.contract import Array
from dicomnode.detectors.methods.contract import Family, MethodEntry, Planes, Regime, Run, Tensors
from dicomnode.detectors.methods.drawing import plane_pool
from dicomnode.detectors.methods.features.coreset import coreset
from dicomnode.detectors.methods.features.frozen_method import BankMethod, FeatureGrid, FrozenSettings, mask_pool
from dicomnode.detectors.methods.features.scoring import on_grid, raised
from dicomnode.errors import ConfigError

LOCAL = 3
"""Side of the neighbourhood whose features are averaged (eq. 2)."""


class PatchcoreSettings(FrozenSettings):
    """``bank``: patches that are kept. ``candidates``: patches they are chosen from, drawn from all planes alike.
    ``neighbours``: patches of the bank that weigh the score (b of eq. 7)."""

    layers: tuple[int, ...] = (2, 3)
    bank: int = Field(default=1000, ge=2)
    candidates: int = Field(default=20000, ge=2)
    neighbours: int = Field(default=9, ge=1)


@dataclass(frozen=True, slots=True)
class Nearest:
    """The healthy patch most like the most suspect patch of each of n planes.

    ``entry``: its index in the bank, shape (n,). ``distance``: shape (n,), no unit. ``place``: centre of the suspect
    patch, shape (n, 2), row and column in pixels of the planes. ``origin``: where the healthy patch was seen, shape
    (n, 3): index of the healthy training plane, row and column in pixels of planes of the same size.
    """

    entry: npt.NDArray[np.int64]
    distance: Array
    place: Array
    origin: Array


class PatchcoreNetwork(FeatureGrid):
    """``bank``: shape (m, channels). ``origins``: (m, 3), plane, row and column on the feature grid."""

    bank: Tensor
    origins: Tensor

    def __init__(self, settings: PatchcoreSettings) -> None:
        super().__init__(settings, LOCAL)
        self.hold(torch.zeros(0, self.channels), torch.zeros(0, 3, dtype=torch.int32))

    def hold(self, bank: Tensor, origins: Tensor) -> None:
        self.register_buffer("bank", bank)
        self.register_buffer("origins", origins)


class Patchcore(BankMethod[PatchcoreSettings]):
    """Map: distance to the nearest patch of the bank (eq. 6), 0 outside the organ, whose patches it never saw.

    Score: its largest value inside the organ, weighed by how usual that neighbour is among its own (eq. 7).
    """

    network: PatchcoreNetwork

    def make(self) -> PatchcoreNetwork:
        return PatchcoreNetwork(self.settings)

    def resize(self, tensors: Tensors) -> None:
        rows = len(tensors["bank"]) if "bank" in tensors and tensors["bank"].ndim == 2 else 0
        self.network.hold(torch.zeros(rows, self.network.channels), torch.zeros(rows, 3, dtype=torch.int32))

    def learn(self, images: Tensor, masks: Tensor, run: Run) -> None:
        noise = torch.Generator().manual_seed(run.seed)
        self.network.learn_level(self.spread(images, run.seed))
        side = self.network.side
        inside = on_grid(masks, side, side).flatten(1) > 0
        each = max(1, self.settings.candidates // len(images))
        patches, origins = [], []
        for first, features in self.walk(images, run):
            for offset, plane in enumerate(features.flatten(2).transpose(1, 2)):
                organ = inside[first + offset].nonzero()[:, 0]
                drawn = organ[torch.randperm(len(organ), generator=noise)[:each]]
                patches.append(plane[drawn.to(plane.device)])
                origins.append(
                    torch.stack([torch.full_like(drawn, first + offset), drawn // side, drawn % side], dim=1)
                )
        rows, seen = torch.cat(patches), torch.cat(origins)
        if len(rows) < 2:
            raise ConfigError("the healthy planes show no organ")
        some = torch.randperm(len(rows), generator=noise)[: self.settings.candidates]
        rows, seen = rows[some.to(rows.device)], seen[some]
        chosen = coreset(rows, self.settings.bank, noise)
        self.network.hold(rows[chosen], seen[chosen.cpu()].to(rows.device, torch.int32))

    def judge_batch(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        features = self.network(images).flatten(2).transpose(1, 2)
        side = self.network.side
        inside = on_grid(masks, side, side).flatten(1)
        scores, grids = [], []
        for plane, organ in zip(features, inside, strict=True):
            distances, entries = self._nearest(plane)
            distances = distances * organ
            scores.append(self._weighed(plane, distances, entries))
            grids.append(distances.view(1, side, side))
        return torch.stack(scores), raised(torch.stack(grids), images.shape[-1], self.settings.smooth)

    def _nearest(self, plane: Tensor) -> tuple[Tensor, Tensor]:
        """Distance to the nearest bank entry, and which it is, of patches, shape (places, channels)."""
        nearest = torch.cdist(plane, self.network.bank).min(dim=1)
        return nearest.values, nearest.indices

    def _weighed(self, plane: Tensor, distances: Tensor, entries: Tensor) -> Tensor:
        """Eq. 7: s = (1 - exp d(m, m*) / Σ over the b neighbours of m* of exp d(m, m')) d(m, m*)."""
        bank, worst = self.network.bank, distances.argmax()
        own = bank[entries[worst]]
        count = min(self.settings.neighbours, len(bank))
        around = (bank - own).square().sum(dim=1).topk(count, largest=False).indices
        away = (bank[around] - plane[worst]).square().sum(dim=1).sqrt()
        others = torch.logsumexp(away, dim=0) - (own - plane[worst]).square().sum().sqrt()
        weight: Tensor = 1.0 - torch.exp(-others)
        return (weight if count > 1 else torch.ones_like(weight)) * distances[worst]

    def nearest(self, planes: Planes) -> Nearest:
        """The healthy patch nearest to the most suspect patch of every plane, to explain a score."""
        size, side = self.settings.size, self.network.side
        images, masks = plane_pool(planes, size), on_grid(mask_pool(planes, size), side, side).flatten(1)
        entries, away, places = [], [], []
        with torch.inference_mode():
            for image, mask in zip(images, masks, strict=True):
                plane = self.network(image[None].to(self.accelerator)).flatten(2)[0].T
                distances, found = self._nearest(plane)
                worst = int((distances * mask.to(distances.device)).argmax())
                entries.append(int(found[worst]))
                away.append(float(distances[worst]))
                places.append((worst // side, worst % side))
        cell = planes.size / side
        origins = self.network.origins.cpu().numpy()[entries].astype(np.float32)
        origins[:, 1:] = (origins[:, 1:] + 0.5) * cell - 0.5
        centres = (np.asarray(places, np.float32) + 0.5) * cell - 0.5
        return Nearest(np.asarray(entries), np.asarray(away, np.float32), centres, origins)


METHODS = (
    MethodEntry(
        "patchcore",
        Family.FEATURES,
        Regime.SEMI_SUPERVISED,
        ("002-1", "003 baseline"),
        "Roth et al., CVPR 2022, eq. 6 and 7, algorithm 1",
        "distance of the most suspect patch to the nearest healthy patch, weighed, no unit",
        PatchcoreSettings,
        Patchcore,
        explains="distance to nearest healthy features",
    ),
)
