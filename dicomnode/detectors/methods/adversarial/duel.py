"""What methods share whose parts learn against each other: only the parts that judge are kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal, TypeVar, cast

from pydantic import Field
from torch import Tensor, nn

from dicomnode.detectors.methods.contract import Settings, Tensors
from dicomnode.detectors.methods.drawing import Drawn
from dicomnode.detectors.methods.fitting import Player, parameters
from dicomnode.detectors.methods.torch_method import TorchMethod, masked_mean

S = TypeVar("S", bound=Settings)
BETAS = (0.5, 0.999)
"""Decay rates of Adam that nearly all adversarial papers use (Radford et al., 2016)."""


class CodedSettings(Settings):
    """``width``: channels of the first layer. ``code``: size of the code.

    ``score``: "own" is the rule of the paper; "residual" the mean of |x - x̂| over the organ, which differs less
    between two trainings.
    """

    steps: int = Field(default=20_000, ge=1)
    learning_rate: float = Field(default=2e-4, gt=0)
    width: int = Field(default=32, ge=1, le=128)
    code: int = Field(default=64, ge=1)
    score: Literal["own", "residual"] = "own"


class Duel(TorchMethod[S]):
    """A method whose network is an ``nn.ModuleDict``. ``judging``: the parts that are kept; the others only teach."""

    judging: ClassVar[tuple[str, ...]] = ("generator",)

    @property
    def parts(self) -> nn.ModuleDict:
        return cast("nn.ModuleDict", self.network)

    def player(self, names: tuple[str, ...], loss: Callable[[Drawn], Tensor], every: int = 1) -> Player:
        """Who moves the parts ``names``: Adam at a constant rate, gradients not clipped."""
        moved = parameters(*(self.parts[name] for name in names))
        rate = self.settings.learning_rate
        return Player(names[0], moved, loss, rate, BETAS, every=every, cycle=False, clip=None)

    def tensors(self) -> Tensors:
        return {key: value for key, value in super().tensors().items() if key.split(".")[0] in self.judging}

    def restore(self, tensors: Tensors) -> None:
        for part in [name for name in self.parts if name not in self.judging]:
            del self.parts[part]
        super().restore(tensors)


def answered(settings: CodedSettings, own: Tensor, residual: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Scores by ``settings.score``, shape (n,), and the map: ``residual`` inside the organ, (n, 1, size, size)."""
    return own if settings.score == "own" else masked_mean(residual, masks), residual * masks


def signed(images: Tensor) -> Tensor:
    """Grey values 0..1 as -1..1."""
    return 2.0 * images - 1.0
