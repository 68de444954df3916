"""What the methods on a frozen backbone share: filling it, walking over planes, keeping and regenerating it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from dicomnode.detectors.methods.backbones.frozen import BackboneSettings, FrozenBackbone
from dicomnode.detectors.methods.contract import Material, Planes, Run, Tensors
from dicomnode.detectors.methods.drawing import at_size, plane_pool
from dicomnode.detectors.methods.fitting import Player
from dicomnode.detectors.methods.torch_method import TorchMethod
from dicomnode.errors import ConfigError

WALK = 32
"""Planes per step while features are collected."""
SCALE_PLANES = 128
"""Healthy planes by which the stages are brought to one scale."""


class FrozenSettings(BackboneSettings):
    """``size``: larger than elsewhere, since stages have strides. ``smooth``: standard deviation of the Gaussian that
    smooths the map, pixels of the method's own grid."""

    size: int = Field(default=128, ge=32, le=512)
    smooth: float = Field(default=1.0, gt=0, le=16)


class FeatureGrid(nn.Module):
    """All used stages of a backbone on the grid of the first, side by side.

    ``forward``: planes, shape (n, 1, size, size), 0..1, to (n, channels, side, side). Each stage is divided by the
    standard deviation of its healthy features, so that none outweighs the others by its scale. ``local``: side of
    the mean filter over neighbouring features, odd (PatchCore eq. 2 takes 3).
    """

    level: Tensor

    def __init__(self, settings: BackboneSettings, local: int = 1) -> None:
        super().__init__()
        self.local = local
        self.backbone = FrozenBackbone(settings.backbone, settings.layers, settings.zoom)
        self.channels = sum(self.backbone.channels)
        with torch.no_grad():
            self.side = int(self.backbone(torch.zeros(1, 1, settings.size, settings.size))[0].shape[-1])
        self.register_buffer("level", torch.ones(len(settings.layers)))

    def forward(self, planes: Tensor) -> Tensor:
        stages = self.backbone(planes)
        if self.local > 1:
            stages = [F.avg_pool2d(stage, self.local, stride=1, padding=self.local // 2) for stage in stages]
        side = (self.side, self.side)
        even = [F.interpolate(stage, size=side, mode="bilinear", align_corners=False) for stage in stages]
        return torch.cat([stage / level for stage, level in zip(even, self.level, strict=True)], dim=1)

    def learn_level(self, planes: Tensor) -> None:
        """Take over the scale of the stages from healthy ``planes``, shape (n, 1, size, size)."""
        self.level.copy_(torch.stack([stage.std() for stage in self.backbone(planes)]).clamp(min=1e-6))


S = TypeVar("S", bound=FrozenSettings)


class FrozenMethod(TorchMethod[S]):
    """A method whose ``network`` has a ``backbone``. Random weights are kept as their seed, others as float16."""

    @property
    def backbone(self) -> FrozenBackbone:
        found = self.network.get_submodule("backbone")
        if not isinstance(found, FrozenBackbone):
            raise TypeError("the network has a frozen backbone")
        return found

    def before_fit(self, material: Material) -> None:  # noqa: ARG002 - part of the seam
        self.backbone.fill(self.settings)

    def tensors(self) -> Tensors:
        arrays = super().tensors()
        if not self.backbone.regenerates:
            return arrays
        kept = {key: value for key, value in arrays.items() if not key.startswith("backbone.network.")}
        return {**kept, "fingerprint": self.backbone.fingerprint().numpy()}

    def restore(self, tensors: Tensors) -> None:
        arrays = dict(tensors)
        mark, seed = arrays.pop("fingerprint", None), arrays.get("backbone.seed")
        self.resize(arrays)
        if mark is not None and seed is not None and seed.size == 1:
            arrays |= self._regenerated(int(seed.item()), mark)
        super().restore(arrays)

    def _regenerated(self, seed: int, mark: npt.NDArray[np.generic]) -> Tensors:
        """The arrays of the random backbone. Raises ConfigError when its features are not those of ``mark``."""
        self.backbone.fill_random(seed)
        own = self.backbone.fingerprint().numpy()
        if mark.shape != own.shape or not np.allclose(mark.astype(np.float32), own, rtol=1e-3):
            raise ConfigError("the seed does not give the backbone the method was fitted with")
        state = self.backbone.network.state_dict()
        return {f"backbone.network.{key}": value.numpy() for key, value in state.items()}

    def resize(self, tensors: Tensors) -> None:
        """Make room for arrays whose number of rows is learned."""


class BankMethod(FrozenMethod[S]):
    """A frozen method that learns by collecting features: no optimiser."""

    def players(self) -> Sequence[Player]:
        return ()

    @abstractmethod
    def learn(self, images: Tensor, masks: Tensor, run: Run) -> None:
        """Take over the healthy ``images``, shape (n, 1, size, size), on the CPU; ``masks`` 0 or 1, same shape."""

    def fit(self, material: Material, run: Run) -> None:
        if len(material.healthy) < 2:
            raise ConfigError("there are not enough healthy planes to train on")
        torch.manual_seed(run.seed)
        self.network = self.make()
        self.before_fit(material)
        self.to(run.accelerator)
        images, masks = (
            plane_pool(material.healthy, self.settings.size),
            mask_pool(material.healthy, self.settings.size),
        )
        with torch.no_grad():
            self.learn(images, masks, run)
        self.to("cpu")

    def walk(self, images: Tensor, run: Run, start: float = 0.0) -> Iterator[tuple[int, Tensor]]:
        """Index of the first plane and features of some planes at a time, on the accelerator."""
        for first in range(0, len(images), WALK):
            yield first, self.network(images[first : first + WALK].to(self.accelerator))
            if run.progress is not None:
                run.progress("features", start + (1 - start) * min(1.0, (first + WALK) / len(images)))

    def spread(self, images: Tensor, seed: int) -> Tensor:
        """At most 128 planes of the pool, drawn without replacement, on the accelerator."""
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:SCALE_PLANES]
        return images[order].to(self.accelerator)


def mask_pool(planes: Planes, size: int) -> Tensor:
    """All masks as one tensor of 0 and 1, shape (n, 1, size, size)."""
    return (at_size(torch.from_numpy(np.ascontiguousarray(planes.masks)).float()[:, None], size) > 0.5).float()
