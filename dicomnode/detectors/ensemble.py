"""The methods of one model: K folds, each with one or more methods, from one safetensors file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import safetensors
import safetensors.numpy

from dicomnode.detectors.contract import Array
from dicomnode.detectors.execution import ExecutionPlan
from dicomnode.detectors.methods.catalogue import build_method
from dicomnode.detectors.methods.contract import Judgement, Method, Planes, Tensors
from dicomnode.detectors.methods.placed import placed
from dicomnode.detectors.methods.torch_method import TorchMethod
from dicomnode.detectors.preprocess import Prepared
from dicomnode.errors import ConfigError

Methods = Mapping[str, Method]
"""The methods of one fold, by kind ("ae-u", "dae")."""


class FoldEnsemble:
    """K folds of fitted methods on one accelerator; each fold has not seen a K-th of the healthy patients."""

    def __init__(self, folds: Sequence[Methods], accelerator: str) -> None:
        self.accelerator = accelerator
        self.folds = list(folds)
        for fold in self.folds:
            for method in fold.values():
                method.to(accelerator)

    def run_with(self, plan: ExecutionPlan) -> None:
        """Use the accelerator by ``plan``; methods that only know the CPU go on as they are."""
        for fold in self.folds:
            for method in fold.values():
                if isinstance(method, TorchMethod):
                    method.run_with(plan)

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(self.folds[0])

    def judge(self, planes: Planes) -> list[dict[str, Judgement]]:
        """What each fold's methods say of ``planes``, by kind."""
        there = placed(planes, self.accelerator)
        return [self.judge_fold(fold, there) for fold in range(len(self.folds))]

    def judge_fold(self, fold: int, planes: Planes) -> dict[str, Judgement]:
        """What one fold's methods say: for planes that this fold has not seen."""
        return {kind: method.judge(planes) for kind, method in self.folds[fold].items()}


def planes_of(prepared: Sequence[Prepared], *, stacked: bool) -> Planes:
    """Prepared planes as one batch. ``stacked``: they are neighbours, in anatomical order."""
    n = len(prepared)
    stacks = (tuple(range(n)),) if stacked else tuple((i,) for i in range(n))
    return Planes(stack_images(prepared), np.stack([plane.mask for plane in prepared]), stacks)


def stack_images(prepared: Sequence[Prepared]) -> Array:
    """The images of prepared planes, shape (n, size, size)."""
    images: Array = np.stack([plane.image for plane in prepared])
    return images


def pack_weights(folds: Sequence[Methods]) -> bytes:
    """All folds as one safetensors file: keys ``<fold>.<kind>.<array>``."""
    tensors = {
        f"{index}.{kind}.{key}": np.ascontiguousarray(value)
        for index, fold in enumerate(folds)
        for kind, method in fold.items()
        for key, value in method.tensors().items()
    }
    return bytes(safetensors.numpy.save(tensors))


def unpack_weights(content: bytes, architecture: Mapping[str, object]) -> list[Methods]:
    """The folds of a safetensors file. ``architecture``: the card's entry, {"folds": K, "networks": [{…}, …]}.

    Raises ConfigError when file and architecture do not fit.
    """
    try:
        tensors: Tensors = safetensors.numpy.load(content)
    except safetensors.SafetensorError as error:
        raise ConfigError(f"the weights are not a safetensors file: {error}") from error
    count, entries = architecture.get("folds"), architecture.get("networks")
    if not isinstance(count, int) or not 1 <= count <= 16 or not isinstance(entries, list) or not entries:
        raise ConfigError("the architecture entry of the card needs folds (1 to 16) and networks")
    folds = [{kind_of(entry): _filled(entry, f"{fold}.", tensors) for entry in entries} for fold in range(count)]
    return list(folds)


def kind_of(entry: Mapping[str, object]) -> str:
    """The name of an architecture entry inside its model. Raises ConfigError when it has none."""
    kind = entry.get("kind")
    if not isinstance(kind, str):
        raise ConfigError("an entry of networks needs a kind")
    return kind


def method_of(entry: Mapping[str, object]) -> Method:
    """The unfitted method of an architecture entry: {"kind": …, settings…}; ``method`` names it where the same
    method appears twice under two kinds. Raises ConfigError for an unknown method or settings it does not take."""
    name = str(entry.get("method", kind_of(entry)))
    return build_method(name, {key: value for key, value in entry.items() if key not in {"kind", "method"}})


def _filled(entry: Mapping[str, object], prefix: str, tensors: Tensors) -> Method:
    method = method_of(entry)
    prefix = f"{prefix}{kind_of(entry)}."
    try:
        method.restore({key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)})
    except ConfigError as error:
        raise ConfigError(f"the weights do not fit the {entry['kind']} entry of the card") from error
    return method
