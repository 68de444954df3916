"""DenseNet121: healthy or abnormal, with the map of the class activation (Grad-CAM)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from dicomnode.detectors.methods.classical.windows import shrunk
from dicomnode.detectors.methods.contract import Family, Material, MethodEntry, Regime, Run, Settings, apart
from dicomnode.detectors.methods.drawing import Draw, Drawn
from dicomnode.detectors.methods.fitting import Player, parameters
from dicomnode.detectors.methods.supervised.generated import PlaneMaker, likeness
from dicomnode.detectors.methods.supervised.lesions import BlobRule
from dicomnode.detectors.methods.supervised.teaching import draw_examples
from dicomnode.detectors.methods.torch_method import TorchMethod


class DenseNetSettings(Settings):
    """``synthetic``: share of abnormal planes that are synthetic while there are real ones; the last
    ``real_only`` of the training uses real ones alone. ``frozen_blocks``: dense blocks that stay as they start.
    ``generator_steps``: of a GAN on the labelled abnormal planes, whose images join the first stage; 0 for none.
    """

    synthetic: float = Field(default=0.5, ge=0, le=1)
    real_only: float = Field(default=0.4, ge=0, le=1)
    frozen_blocks: int = Field(default=0, ge=0, le=4)
    bright: float = Field(default=0.8, ge=0, le=1)
    generator_steps: int = Field(default=0, ge=0)


class DenseNet(TorchMethod[DenseNetSettings]):
    """Loss: binary cross-entropy (CheXNet). Two stages where planes are labelled: real and synthetic, then real only
    (methods.md 004-12). Score: the logit. Map: the positive part of the class activation.

    The last layer is linear on the mean of the features, so that Grad-CAM is this map without a gradient
    (Selvaraju et al., ICCV 2017, appendix A).
    """

    likeness: Mapping[str, float] | None = None
    """How like the labelled planes the generated ones were, None without any."""

    def make(self) -> nn.Module:
        from monai.networks.nets.densenet import DenseNet121

        network = DenseNet121(spatial_dims=2, in_channels=1, out_channels=1)
        for block in range(1, self.settings.frozen_blocks + 1):
            for name, part in network.features.named_children():
                if name in {"conv0", "norm0", f"denseblock{block}", f"transition{block}"}:
                    part.requires_grad_(False)  # noqa: FBT003 - torch names it mode
        return network

    def draw(self, material: Material, run: Run) -> Draw:
        rule = BlobRule(bright=self.settings.bright)
        size, batch = self.settings.size, self.settings.batch
        steps = run.steps or self.settings.steps
        first = draw_examples(
            self._with_generated(material, run), size, batch, run.augmentation, rule, synthetic=self.settings.synthetic
        )
        last = draw_examples(material, size, batch, run.augmentation, rule, synthetic=0.0)
        turn = round(steps * (1.0 - self.settings.real_only))
        count = iter(range(steps + 1))

        def draw(noise: torch.Generator) -> Drawn:
            return first(noise) if next(count, steps) < turn else last(noise)

        return draw

    def _with_generated(self, material: Material, run: Run) -> Material:
        """``material`` with as many GAN images as there are labelled abnormal planes (Zinga, methods.md 001-2)."""
        if not self.settings.generator_steps or material.abnormal is None:
            return material
        maker = PlaneMaker(self.settings.size)
        maker.fit(material.abnormal, replace(run, checkpoint=None, steps=None), self.settings.generator_steps)
        real = shrunk(material.abnormal, self.settings.size)
        made = maker.make(len(real), run.seed)
        self.likeness = likeness(real, apart(made, real.masks))
        both = apart(np.concatenate([real.images, made]), np.concatenate([real.masks, real.masks]))
        return replace(material, abnormal=both)

    def players(self) -> Sequence[Player]:
        return (Player("classifier", parameters(self.network), self._loss, self.settings.learning_rate),)

    def _loss(self, drawn: Drawn) -> Tensor:
        if drawn.mixed is None:
            raise ValueError("a batch without abnormal planes")
        logits = self.network(torch.cat([drawn.healthy, drawn.mixed]))[:, 0]
        truth = torch.cat([logits.new_zeros(len(drawn.healthy)), logits.new_ones(len(drawn.mixed))])
        return F.binary_cross_entropy_with_logits(logits, truth)

    def judge_batch(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002 - whole planes
        features = F.relu(self.network.get_submodule("features")(images))
        out = self.network.get_submodule("class_layers.out")
        logits = out(features.mean(dim=(2, 3)))[:, 0]
        weights = out.get_parameter("weight")[0]
        activation = torch.einsum("k,nkrc->nrc", weights, features).clamp(min=0.0)[:, None]
        return logits, F.interpolate(activation, size=images.shape[-2:], mode="bilinear", align_corners=False)


METHODS = (
    MethodEntry(
        "densenet121",
        Family.SUPERVISED,
        Regime.SUPERVISED,
        ("000-6", "001-1", "001-2", "001-5", "001-6", "001-L3", "004-7", "004-10", "004-12"),
        "Zinga, methods.md 001-5; CheXNet; DenseNet121 of MONAI",
        "logit of abnormal, not calibrated",
        DenseNetSettings,
        DenseNet,
        explains="class activation (Grad-CAM)",
    ),
)
