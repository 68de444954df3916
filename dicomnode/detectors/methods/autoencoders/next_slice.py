"""Next slice: a convolutional LSTM foretells a plane from the planes before it; what it did not foresee is suspect."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from dicomnode.detectors.methods.autoencoders.convolutions import down, up
from dicomnode.detectors.methods.autoencoders.neighbours import JUDGE_RUNS, NeighbourMethod, Stacks
from dicomnode.detectors.methods.contract import Family, Material, MethodEntry, Regime, Run
from dicomnode.detectors.methods.drawing import Draw, Drawn, draw_from, plane_pool
from dicomnode.detectors.methods.residual import ResidualSettings
from dicomnode.errors import ConfigError


class NextSliceSettings(ResidualSettings):
    """``before``: planes from which the next is foretold. ``memory``: channels of the LSTM's state."""

    before: int = Field(default=3, ge=1, le=16)
    memory: int = Field(default=32, ge=1)
    batch: int = Field(default=8, ge=1)


class ConvLstm(nn.Module):
    """Foretells the plane after a run. Input: shape (n, before, size, size), 0..1, nearest plane last; answer: shape
    (n, 1, size, size). The LSTM (Shi et al., NeurIPS 2015, eq. 3, without peepholes) works on an eighth of the
    side."""

    def __init__(self, size: int, width: int, memory: int) -> None:
        super().__init__()
        if size % 8:
            raise ValueError("the size is a multiple of 8")
        self.memory = memory
        self.encoder = nn.Sequential(down(1, width), down(width, 2 * width), down(2 * width, memory))
        self.gates = nn.Conv2d(2 * memory, 4 * memory, 3, padding=1)
        self.decoder = nn.Sequential(up(memory, 2 * width), up(2 * width, width), up(width, width))
        self.head = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, runs: Tensor) -> Tensor:
        n, before = runs.shape[:2]
        seen = self.encoder(runs.flatten(0, 1)[:, None])
        seen = seen.view(n, before, *seen.shape[1:])
        hidden = cell = torch.zeros_like(seen[:, 0])
        for step in range(before):
            enter, forget, leave, new = self.gates(torch.cat([seen[:, step], hidden], dim=1)).chunk(4, dim=1)
            cell = torch.sigmoid(forget) * cell + torch.sigmoid(enter) * torch.tanh(new)
            hidden = torch.sigmoid(leave) * torch.tanh(cell)
        foretold: Tensor = self.head(self.decoder(hidden))
        return foretold


class NextSlice(NeighbourMethod[NextSliceSettings]):
    """Loss: (x - x̂)² of runs read upwards or downwards; map: (x - x̂)², the smaller of both directions.

    A plane is suspect when neither side foresaw it; the plane beside a lesion is foreseen from its far side. The
    first and the last plane of a stack have one direction.
    """

    def make(self) -> nn.Module:
        return ConvLstm(self.settings.size, self.settings.width, self.settings.memory)

    def draw(self, material: Material, run: Run) -> Draw:
        """Runs of ``before`` planes and the one to foretell, in both directions."""
        every = [[*far, here] for far, here in _both_ways(material.healthy.stacks, self.settings.before)]
        if not every:
            raise ConfigError("next-slice needs series of at least two planes")
        pool = plane_pool(material.healthy, self.settings.size)[:, 0]
        return draw_from(pool[torch.tensor(every)], None, self.settings.batch, run.augmentation)

    def loss(self, drawn: Drawn) -> Tensor:
        runs = drawn.healthy
        squared: Tensor = ((runs[:, -1:] - self.network(runs[:, :-1])) ** 2).mean()
        return squared

    def stack_maps(self, pool: Tensor, stacks: Stacks) -> Tensor:
        if min(map(len, stacks)) < 2:
            raise ConfigError("next-slice needs series of at least two planes")
        ways = _both_ways(stacks, self.settings.before)
        maps = torch.full_like(pool, torch.inf)
        for start in range(0, len(ways), JUDGE_RUNS):
            far, here = zip(*ways[start : start + JUDGE_RUNS], strict=True)
            squared = (pool[list(here)] - self.network(pool[torch.tensor(far)])[:, 0]) ** 2
            for index, heat in zip(here, squared, strict=True):
                maps[index] = torch.minimum(maps[index], heat)
        return maps


def _both_ways(stacks: Stacks, before: int) -> list[tuple[list[int], int]]:
    """Every plane with the planes before it, read upwards and downwards; nearest last."""
    return [pair for stack in stacks for way in (stack, stack[::-1]) for pair in _one_way(way, before)]


def _one_way(stack: Sequence[int], before: int) -> list[tuple[list[int], int]]:
    """Every plane but the first with the ``before`` planes before it; where there are fewer the first is repeated."""
    return [([*[stack[0]] * (before - i), *stack[max(0, i - before) : i]], stack[i]) for i in range(1, len(stack))]


METHODS = (
    MethodEntry(
        "next-slice",
        Family.AUTOENCODER,
        Regime.SEMI_SUPERVISED,
        ("002-17",),
        "Tschuchnig & Gadermayr 2022, [32] (frame prediction); LSTM: Shi et al., NeurIPS 2015, eq. 3",
        "mean of (x - x̂)² of the plane foretold from its neighbours, in squared parts of the grey range",
        NextSliceSettings,
        NextSlice,
        stacked=True,
        explains="residual map (plane minus what its neighbours foretell)",
    ),
)
