"""What the methods share that judge a plane with the planes beside it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from dicomnode.detectors.methods.contract import Judgement, Planes
from dicomnode.detectors.methods.drawing import at_size
from dicomnode.detectors.methods.placed import tensors_of
from dicomnode.detectors.methods.residual import R, ResidualMethod, smoothed, top_mean

Stacks = Sequence[Sequence[int]]
JUDGE_RUNS = 8
"""Runs of planes judged at once."""


class NeighbourMethod(ResidualMethod[R]):
    """Judges whole stacks; a plane's answer depends on its own stack only."""

    @abstractmethod
    def stack_maps(self, pool: Tensor, stacks: Stacks) -> Tensor:
        """The map of every plane before smoothing. ``pool`` and answer: shape (n, size, size); ``stacks``: indices
        into it, in anatomical order. Raises ConfigError when a stack is too short."""

    def residual(self, images: Tensor) -> Tensor:
        """The map of planes whose neighbours are not known: each is a stack of its own."""
        return self.stack_maps(images[:, 0], [(i,) for i in range(len(images))])[:, None]

    def judge(self, planes: Planes) -> Judgement:
        own = self.settings.size
        with torch.inference_mode():
            images, inside = (rows.to(self.accelerator) for rows in tensors_of(planes))
            masks = (at_size(inside, own) > 0.5).float()
            maps = smoothed(self.stack_maps(at_size(images, own)[:, 0], planes.stacks)[:, None], self.settings.smooth)
            scores = top_mean(maps, masks, self.settings.share)
            if own != planes.size:
                maps = F.interpolate(maps, size=(planes.size, planes.size), mode="bilinear", align_corners=False)
            return Judgement(scores.cpu().numpy(), maps[:, 0].cpu().numpy())


def runs_over(stack: Sequence[int], depth: int) -> list[list[int]]:
    """Runs of ``depth`` planes that cover ``stack``, each half over the one before; the last ends with the stack.

    A stack that is too short is one run, its last plane repeated.
    """
    if len(stack) <= depth:
        return [[*stack, *[stack[-1]] * (depth - len(stack))]]
    last = len(stack) - depth
    starts = [*range(0, last, max(1, depth // 2)), last]
    return [list(stack[start : start + depth]) for start in starts]
