"""A frozen backbone: grey planes in, the features of several stages out."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from dicomnode.detectors.methods.backbones.mobilenet_v2 import MobileNetV2
from dicomnode.detectors.methods.backbones.resnet import ResNet, resnet18, resnet50, wide_resnet50_2
from dicomnode.detectors.methods.backbones.squeezenet import SqueezeNet
from dicomnode.detectors.methods.backbones.weights import Convention, Weights, read_weights
from dicomnode.detectors.methods.contract import Settings
from dicomnode.errors import ConfigError

Name = Literal["resnet18", "resnet50", "wide-resnet50-2", "squeezenet1-0", "mobilenet-v2"]
Network = ResNet | SqueezeNet | MobileNetV2
UNTRAINED = Convention((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
PROBE = 64
"""Side of the made-up plane by which regenerated random weights are recognised, pixels."""


class BackboneSettings(Settings):
    """``backbone``: the network. ``backbone_weights``, ``backbone_sha256``: file with its weights and the SHA-256 it
    must have; without them the weights are random by ``backbone_seed``. ``layers``: stages whose features are used.
    ``zoom``: planes are enlarged so many times before they enter; a stage has a stride of 4 and more."""

    backbone: Name = "resnet18"
    backbone_weights: Path | None = None
    backbone_sha256: str | None = Field(default=None, pattern="^[0-9a-fA-F]{64}$")
    backbone_seed: int = Field(default=0, ge=0)
    layers: tuple[int, ...] = (1, 2, 3)
    zoom: int = Field(default=1, ge=1, le=8)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.backbone_weights is None) != (self.backbone_sha256 is None):
            raise ValueError("backbone_weights and backbone_sha256 are given together")
        if not self.layers or list(self.layers) != sorted(set(self.layers)) or not set(self.layers) <= {1, 2, 3, 4}:
            raise ValueError("layers are rising numbers from 1 to 4")
        return self


class FrozenBackbone(nn.Module):
    """Features of grey planes by a network that never learns.

    ``forward``: planes, shape (n, 1, size, size), 0..1, to one tensor per stage of ``layers``, shape (n, c, h, w).
    ``channels``: c of each. Always in evaluation mode. Unfilled after construction: ``fill`` or ``load_state_dict``.
    """

    mean: Tensor
    sd: Tensor
    same: Tensor
    seed: Tensor

    def __init__(self, name: Name, layers: tuple[int, ...], zoom: int) -> None:
        super().__init__()
        self.layers, self.zoom = layers, zoom
        self.network = build_network(name, depth=max(layers))
        self.channels = tuple(self.network.channels[layer - 1] for layer in layers)
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("sd", torch.ones(3))
        self.register_buffer("same", torch.zeros((), dtype=torch.uint8))
        self.register_buffer("seed", torch.full((), -1, dtype=torch.int64))
        self.register_load_state_dict_post_hook(_settle)  # type: ignore[no-untyped-call]
        self.requires_grad_(False).eval()  # noqa: FBT003 - torch names it mode

    def train(self, mode: bool = True) -> Self:  # noqa: ARG002 - the frame's signature
        """Stays in evaluation mode: the statistics of the normalisations are frozen too."""
        return super().train(False)  # noqa: FBT003

    def fill(self, settings: BackboneSettings) -> None:
        """Take the weights of the settings' file, or random ones. Raises ConfigError as ``read_weights``."""
        if settings.backbone_weights is None or settings.backbone_sha256 is None:
            self.fill_random(settings.backbone_seed)
        else:
            self.fill_from(read_weights(settings.backbone_weights, settings.backbone_sha256))

    def fill_random(self, seed: int) -> None:
        """Weights by He et al. 2015, the same for the same seed; biases 0, normalisations without effect."""
        noise = torch.Generator().manual_seed(seed)
        for part in self.network.modules():
            if isinstance(part, nn.Conv2d):
                spread = (2.0 / part.weight[0].numel()) ** 0.5
                part.weight.data = torch.randn(part.weight.shape, generator=noise) * spread
                if part.bias is not None:
                    part.bias.data.zero_()
        self._feed(UNTRAINED, seed)

    def fill_from(self, weights: Weights) -> None:
        """Take ``weights``; kernels are rounded to float16, as they are kept. Raises ConfigError when some miss."""
        own = self.network.state_dict()
        counted = {key for key in own if key.endswith("num_batches_tracked")}
        missing = [key for key in own if key not in weights.arrays and key not in counted]
        wrong = [key for key in own if key in weights.arrays and weights.arrays[key].shape != own[key].shape]
        if missing or wrong:
            raise ConfigError(f"the backbone's weights do not fit: {len(missing)} missing, {len(wrong)} of other shape")
        for key in own:
            if key in weights.arrays:
                value = weights.arrays[key]
                own[key] = value.half().float() if value.dim() > 1 else value
        self.network.load_state_dict(own)
        self._feed(weights.convention, -1)

    def _feed(self, convention: Convention, seed: int) -> None:
        self.mean.copy_(torch.tensor(convention.mean))
        self.sd.copy_(torch.tensor(convention.sd))
        self.same.fill_(int(convention.same))
        self.seed.fill_(seed)
        _settle(self)

    @property
    def regenerates(self) -> bool:
        """Whether the weights are random by a seed, so that the seed is enough to keep."""
        return int(self.seed) >= 0

    def fingerprint(self) -> Tensor:
        """Mean feature of every used stage for a made-up plane: tells whether a seed gave the same weights again."""
        rows = torch.linspace(0, 1, PROBE)
        probe = (rows[:, None] * rows.flip(0)[None] * 4).to(self.mean.device)[None, None]
        with torch.inference_mode():
            return torch.stack([stage.mean() for stage in self(probe)]).cpu().clone()

    def forward(self, planes: Tensor) -> list[Tensor]:
        if self.zoom > 1:
            planes = F.interpolate(planes, scale_factor=float(self.zoom), mode="bilinear", align_corners=False)
        normal = (planes - self.mean[None, :, None, None]) / self.sd[None, :, None, None]
        stages = self.network.stages(normal)
        return [stages[layer - 1] for layer in self.layers]


def build_network(name: Name, depth: int = 4, classes: int = 0) -> Network:
    """The unfilled network ``name`` up to stage ``depth``; ``classes``: size of its classifier, 0 for none."""
    match name:
        case "resnet18":
            return resnet18(depth, classes)
        case "resnet50":
            return resnet50(depth, classes)
        case "wide-resnet50-2":
            return wide_resnet50_2(depth, classes)
        case "squeezenet1-0":
            return SqueezeNet(depth, classes)
        case "mobilenet-v2":
            return MobileNetV2(depth, classes)


def _settle(module: nn.Module, _: object = None) -> None:
    """Bring the padding in line with the kept convention."""
    if isinstance(module, FrozenBackbone) and isinstance(module.network, MobileNetV2):
        module.network.pad_same(bool(module.same))
