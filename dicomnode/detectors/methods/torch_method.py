"""What all torch methods share: fitting by the one loop, judging in batches, keeping their arrays."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dicomnode.detectors.contract import Array
from dicomnode.detectors.execution import Execution, ExecutionPlan, plan_for
from dicomnode.detectors.methods.contract import Judgement, Material, Planes, Run, Settings, Tensors
from dicomnode.detectors.methods.drawing import Draw, at_size, draw_planes
from dicomnode.detectors.methods.fitting import Fit, Player, Selection, run_fit
from dicomnode.detectors.methods.placed import tensors_of
from dicomnode.errors import ConfigError

S = TypeVar("S", bound=Settings)


class TorchMethod(ABC, Generic[S]):
    """A method whose learned part is one ``nn.Module``, ``self.network``.

    A family member says its network, its players (losses) and how it judges a batch. ``needs_gradient``: whether
    judging differentiates (gradient scores).
    """

    needs_gradient = False

    def __init__(self, settings: S) -> None:
        self.settings = settings
        self.network = self.make()
        self.accelerator = torch.device("cpu")
        self.execution = Execution(self._whole, ExecutionPlan(), self._flee)
        self.history: list[tuple[int, float]] = []

    @abstractmethod
    def make(self) -> nn.Module:
        """The untrained network."""

    @abstractmethod
    def players(self) -> Sequence[Player]:
        """Who learns, by which loss."""

    @abstractmethod
    def judge_batch(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Scores, shape (n,), and maps, shape (n, 1, size, size), of ``images``, shape (n, 1, size, size), 0..1.

        ``masks``: the organ, float 0 or 1, same shape.
        """

    def draw(self, material: Material, run: Run) -> Draw:
        """The training batches; single planes unless a method needs neighbours."""
        return draw_planes(material, self.settings.size, self.settings.batch, run.augmentation)

    def selection(self, material: Material) -> Selection | None:  # noqa: ARG002 - part of the seam
        """The figure by which a state is chosen; None keeps the last."""
        return None

    def fit(self, material: Material, run: Run) -> None:
        if len(material.healthy) < 2:
            raise ConfigError("there are not enough healthy planes to train on")
        torch.manual_seed(run.seed)
        self.network = self.make()
        self.before_fit(material)
        fit = Fit(self.network, self.players(), self.draw(material, run), self.settings.steps, self.selection(material))
        self.accelerator = torch.device(run.accelerator)
        self.history = run_fit(fit, run)
        self.to("cpu")
        self.after_fit(material)

    def before_fit(self, material: Material) -> None:
        """What has to be known before the first step (statistics, start values)."""

    def after_fit(self, material: Material) -> None:
        """What is fixed from the healthy planes after training (centres, scales)."""

    def judge(self, planes: Planes) -> Judgement:
        images, inside = (rows.to(self.accelerator) for rows in tensors_of(planes))
        with torch.inference_mode(mode=not self.needs_gradient):
            scores, maps = self.execution.run(images, inside)
        return Judgement(_numpy(scores), _numpy(maps[:, 0]))

    def score(self, planes: Planes) -> Array:
        return self.judge(planes).scores

    def map(self, planes: Planes) -> Array:
        return self.judge(planes).maps

    def _whole(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """``judge_batch`` on planes of any size: averaged down to the method's own grid, maps brought back."""
        own, full = self.settings.size, images.shape[-1]
        with torch.inference_mode(mode=not self.needs_gradient):
            scores, maps = self.judge_batch(at_size(images, own), (at_size(masks, own) > 0.5).float())
            if own != full:
                maps = F.interpolate(maps, size=(full, full), mode="bilinear", align_corners=False)
        return scores, maps

    def to(self, accelerator: str) -> None:
        self.accelerator = torch.device(accelerator)
        self.network.to(self.accelerator).eval()
        self.run_with(plan_for(accelerator))

    def run_with(self, plan: ExecutionPlan) -> None:
        """Judge by ``plan``; gradient scores stay in eager float32."""
        if plan.half:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        slow = replace(plan, half=False, compiled=False) if self.needs_gradient else plan
        self.execution = Execution(self._whole, slow, self._flee)

    def _flee(self) -> None:
        self.accelerator = torch.device("cpu")
        self.network.to(self.accelerator)

    def tensors(self) -> Tensors:
        """The state of the network; kernels as float16 to halve the file."""
        state = self.network.state_dict()
        return {key: _numpy(value.half() if _is_kernel(value) else value) for key, value in state.items()}

    def restore(self, tensors: Tensors) -> None:
        state = {key: torch.from_numpy(np.array(value)) for key, value in tensors.items()}
        full = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
        try:
            self.network.load_state_dict(full, strict=True)
        except RuntimeError as error:
            raise ConfigError("the weights do not fit the settings of the method") from error
        self.network.eval()


def masked_mean(values: Tensor, masks: Tensor) -> Tensor:
    """The mean of ``values`` inside ``masks``, both (n, 1, size, size); shape (n,). 0 where a mask is empty."""
    return (values * masks).flatten(1).sum(1) / masks.flatten(1).sum(1).clamp(min=1.0)


def _is_kernel(value: Tensor) -> bool:
    return value.is_floating_point() and value.dim() > 1


def _numpy(value: Tensor) -> Array:
    detached = value.detach().cpu()
    result: Array = (detached.float() if detached.dtype is torch.bfloat16 else detached).numpy()
    return result
