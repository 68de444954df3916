"""The methods of one model: K folds, each with one or more methods, from one safetensors file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from dicomnode.detectors.contract import Array
from dicomnode.detectors.execution import ExecutionPlan
from dicomnode.detectors.methods.catalogue import build_method, method_entry
from dicomnode.detectors.methods.contract import Judgement, Method, Planes, Tensors
from dicomnode.detectors.methods.placed import placed
from dicomnode.detectors.methods.torch_method import TorchMethod
from dicomnode.detectors.preprocess import Prepared
from dicomnode.errors import ConfigError

SHARED = "all"
"""In the place of a fold's number: arrays that every fold has."""
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

    def ways(self) -> str:
        """How the methods of the first fold ran last, for benchmarks: "float32, batch 16"."""
        first = next((one for one in self.folds[0].values() if isinstance(one, TorchMethod)), None)
        used = first.execution.ways if first is not None else ()
        return ", ".join(used if used and not used[0].startswith("batch") else ("float32", *used))

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
    return batch_of(prepared, (tuple(range(n)),) if stacked else tuple((i,) for i in range(n)))


def batch_of(prepared: Sequence[Prepared], stacks: tuple[tuple[int, ...], ...]) -> Planes:
    """Prepared planes as one batch with these ``stacks`` (see Planes)."""
    images = np.stack([plane.image for plane in prepared])
    masks = np.stack([plane.mask for plane in prepared])
    return Planes(images, masks, stacks, shares=shares_of(prepared))


def shares_of(prepared: Sequence[Prepared]) -> Array:
    """The organ shares of prepared planes, shape (n,)."""
    return np.array([plane.organ_share for plane in prepared], dtype=np.float32)


def joined(batches: Sequence[Planes]) -> Planes:
    """Several batches as one; stacks stay apart."""
    starts = np.cumsum([0, *(len(batch) for batch in batches)])
    stacks = tuple(
        tuple(int(start) + i for i in stack)
        for start, batch in zip(starts, batches, strict=False)
        for stack in batch.stacks
    )
    images = np.concatenate([batch.images for batch in batches])
    shares = [batch.shares for batch in batches if batch.shares is not None]
    known = np.concatenate(shares) if len(shares) == len(batches) else None
    return Planes(images, np.concatenate([batch.masks for batch in batches]), stacks, shares=known)


def pack_weights(folds: Sequence[Methods], extra: Tensors | None = None) -> bytes:
    """All folds as one safetensors file: keys ``<fold>.<kind>.<array>``.

    What all folds share (a frozen backbone) is kept once, as ``all.<kind>.<array>``. ``extra``: arrays that belong to
    no method (the template of a registration), by their whole key.
    """
    own = [_arrays_of(fold) for fold in folds]
    shared = {key for key in own[0] if len(own) > 1 and all(_same(own[0][key], other.get(key)) for other in own[1:])}
    tensors = {f"{SHARED}.{key}": own[0][key] for key in sorted(shared)} | (extra or {})
    for index, arrays in enumerate(own):
        tensors |= {f"{index}.{key}": value for key, value in arrays.items() if key not in shared}
    return bytes(safetensors.numpy.save(tensors))


def _arrays_of(fold: Methods) -> Tensors:
    return {
        f"{kind}.{key}": np.ascontiguousarray(value)
        for kind, method in fold.items()
        for key, value in method.tensors().items()
    }


def _same(first: npt.NDArray[np.generic], second: npt.NDArray[np.generic] | None) -> bool:
    return (
        second is not None
        and first.dtype == second.dtype
        and first.shape == second.shape
        and first.tobytes() == second.tobytes()
    )


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
    folds = [{kind_of(entry): _filled(entry, fold, tensors) for entry in entries} for fold in range(count)]
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


def map_words(architecture: Mapping[str, object], kinds: Sequence[str]) -> str:
    """What the combined map of ``kinds`` shows, for reports: "dae: residual map". Raises ConfigError as above."""
    entries = architecture.get("networks")
    known = {kind_of(entry): entry for entry in (entries if isinstance(entries, list) else [])}
    names = {kind: str(known.get(kind, {}).get("method", kind)) for kind in kinds}
    return "; ".join(f"{kind}: {method_entry(name).map_shows}" for kind, name in names.items())


def _filled(entry: Mapping[str, object], fold: int, tensors: Tensors) -> Method:
    method = method_of(entry)
    arrays: Tensors = {}
    for prefix in (f"{SHARED}.{kind_of(entry)}.", f"{fold}.{kind_of(entry)}."):
        arrays |= {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
    try:
        method.restore(arrays)
    except ConfigError as error:
        raise ConfigError(f"the weights do not fit the {entry['kind']} entry of the card") from error
    return method
