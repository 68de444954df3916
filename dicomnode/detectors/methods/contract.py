"""The seam of the methods: what a method gets, what it answers, how it is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from dicomnode.detectors.contract import Array, Mask

Progress = Callable[[str, float], None]
"""Called with the name of the running step and its share done, 0..1."""

Tensors = dict[str, npt.NDArray[np.generic]]
"""Everything a fitted method has learned, as plain arrays by name (safetensors)."""


class Family(StrEnum):
    """The families of the methods, by what they learn."""

    AUTOENCODER = "auto-encoder"
    ADVERSARIAL = "adversarial"
    DIFFUSION = "diffusion"
    FEATURES = "features"
    CLASSICAL = "classical"
    SUPERVISED = "supervised"


MAPS = {
    Family.AUTOENCODER: "residual map",
    Family.ADVERSARIAL: "residual map",
    Family.DIFFUSION: "residual map",
    Family.FEATURES: "distance to healthy features",
    Family.CLASSICAL: "deviation of local features",
    Family.SUPERVISED: "lesion probability",
}
"""What the map of a method is, for reports, unless its entry says otherwise."""


class Regime(StrEnum):
    """What a method is told while it learns (Tschuchnig & Gadermayr 2022, definitions)."""

    SEMI_SUPERVISED = "semi-supervised (healthy only)"
    HEALTHY_AND_MIXED = "healthy and an unlabelled mixed set"
    UNSUPERVISED = "unsupervised (no labels)"
    SUPERVISED = "supervised (labelled or synthetic abnormal planes)"


@dataclass(frozen=True, slots=True)
class Planes:
    """Planes on one network grid.

    ``images``: shape (n, size, size), float32, 0..1. ``masks``: the organ, bool, same shape; scores count only
    inside it. ``stacks``: indices of the planes of one series, in anatomical order; together they name every plane
    once. A projection is a stack of one. ``labels``: shape (n,), 1 abnormal, 0 normal, -1 not known. ``fields``: the
    aerated lungs, bool, shape of the images. ``views``: the projection of each plane ("PA", "" where not known). Both
    only for methods that learn from them. ``shares``: shape (n,), the organ's share of the body part on the plane
    (``Prepared.organ_share``), for calibrations that ask for it.
    """

    images: Array
    masks: Mask
    stacks: tuple[tuple[int, ...], ...]
    labels: npt.NDArray[np.int8] | None = None
    fields: Mask | None = None
    views: tuple[str, ...] | None = None
    shares: Array | None = None

    def __post_init__(self) -> None:
        if self.images.ndim != 3 or self.images.shape != self.masks.shape:
            raise ValueError("images and masks have the shape (n, size, size)")
        if sorted(index for stack in self.stacks for index in stack) != list(range(len(self.images))):
            raise ValueError("the stacks name every plane once")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size(self) -> int:
        return int(self.images.shape[-1])

    def chosen(self, indices: Sequence[int]) -> Planes:
        """The planes with these indices, in this order; stacks keep what is left of them."""
        place = {old: new for new, old in enumerate(indices)}
        stacks = (tuple(place[old] for old in stack if old in place) for stack in self.stacks)
        labels = None if self.labels is None else self.labels[list(indices)]
        rows = list(indices)
        fields = None if self.fields is None else self.fields[rows]
        views = None if self.views is None else tuple(self.views[row] for row in rows)
        kept = tuple(stack for stack in stacks if stack)
        shares = None if self.shares is None else self.shares[rows]
        return Planes(self.images[rows], self.masks[rows], kept, labels, fields, views, shares)


def apart(images: Array, masks: Mask) -> Planes:
    """Planes without neighbours: every plane is a stack of its own. Shapes (n, size, size)."""
    return Planes(images, masks, tuple((i,) for i in range(len(images))))


@dataclass(frozen=True, slots=True)
class Material:
    """What a method may learn from. ``mixed``: unlabelled, healthy and not. ``abnormal``: labelled abnormal."""

    healthy: Planes
    mixed: Planes | None = None
    abnormal: Planes | None = None


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Random changes of training planes. ``rotate``: largest turn, degrees; the others: largest share."""

    mirror: bool = True
    rotate: float = 10.0
    shift: float = 0.04
    zoom: float = 0.06
    gain: float = 0.08


@dataclass(frozen=True, slots=True)
class Run:
    """How one fit runs. ``accelerator``: "cpu", "cuda:0" (bf16 autocast there).

    ``checkpoint``: file that keeps the state of the fit, so that an interrupted one goes on. ``patience``: checks
    without improvement after which a fit with a selection figure stops early; None trains to the end.
    ``steps``: overrides the number of optimiser steps of the settings.
    """

    seed: int = 0
    accelerator: str = "cpu"
    augmentation: Augmentation = field(default_factory=Augmentation)
    progress: Progress | None = None
    checkpoint: Path | None = None
    patience: int | None = None
    steps: int | None = None


class Settings(BaseModel):
    """What every method can be told. ``size``: side of the method's own grid in pixels; planes are averaged down to
    it and maps brought back. ``steps``: optimiser steps, of ``batch`` planes each."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = Field(default=64, ge=16, le=512)
    steps: int = Field(default=1500, ge=1)
    batch: int = Field(default=32, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a method says of n planes. ``scores``: shape (n,), larger is further from healthy, by the method's own
    rule. ``maps``: shape (n, size, size) on the grid of the planes, not negative, larger is further from healthy."""

    scores: Array
    maps: Array


@runtime_checkable
class Method(Protocol):
    """One fitted or unfitted method. The order of calls: ``fit`` or ``restore``, then ``score``, ``map``, ``judge``."""

    def fit(self, material: Material, run: Run) -> None:
        """Learn. The same material, seed, machine and number of threads give the same method on the CPU.

        Raises ConfigError when the material is not enough.
        """
        ...

    def judge(self, planes: Planes) -> Judgement:
        """Score and map at once, the way the node calls it."""
        ...

    def score(self, planes: Planes) -> Array: ...

    def map(self, planes: Planes) -> Array: ...

    def tensors(self) -> Tensors:
        """All that was learned; ``restore`` of these arrays gives the same answers."""
        ...

    def restore(self, tensors: Tensors) -> None:
        """Take over what was learned. Raises ConfigError when the arrays do not fit the settings."""
        ...

    def to(self, accelerator: str) -> None:
        """Move the method to an accelerator; nothing for methods that only know the CPU."""
        ...


@dataclass(frozen=True, slots=True)
class MethodEntry:
    """One row of the catalogue. ``rows``: the rows of the papers' tables it does ("003", "002-37", …).

    ``source``: paper and equation. ``score``: what the score is, with its unit, for reports. ``build``: makes the
    unfitted method from an instance of ``settings``. ``stacked``: whether it needs neighbouring planes (then a
    projection cannot be judged). ``opt_in``: too slow to be run unasked. ``explains``: what its map is, in a
    few words for reports; empty for what is usual in the family.
    """

    name: str
    family: Family
    regime: Regime
    rows: tuple[str, ...]
    source: str
    score: str
    settings: type[Settings]
    build: Callable[[Any], Method]
    stacked: bool = False
    opt_in: bool = False
    explains: str = ""

    @property
    def map_shows(self) -> str:
        """What the map of the method is."""
        return self.explains or MAPS[self.family]


def read_settings(entry: MethodEntry, values: Mapping[str, object]) -> Settings:
    """The settings of ``entry`` from plain values. Raises pydantic.ValidationError for unknown or wrong ones."""
    return entry.settings.model_validate(dict(values))
