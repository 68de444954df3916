"""The networks of one model: K folds, each with one or two networks, from one safetensors file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor
from torch.nn import functional as F

from dicomnode.detectors.contract import Array
from dicomnode.detectors.networks import Network, build_network
from dicomnode.errors import ConfigError

_BATCH = 16

Networks = Mapping[str, Network]
"""The networks of one fold, by kind ("ae-u", "dae")."""


class FoldEnsemble:
    """K folds of healthy-only networks on one accelerator; each fold has not seen a K-th of the healthy patients."""

    def __init__(self, folds: Sequence[Networks], accelerator: str) -> None:
        self.accelerator = accelerator
        self.folds = [
            {kind: network.to(torch.device(accelerator)).eval() for kind, network in fold.items()} for fold in folds
        ]

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(self.folds[0])

    def residuals(self, images: Array) -> dict[str, Array]:
        """Residual maps by kind, shape (folds, n, size, size), of ``images``, shape (n, size, size)."""
        return {
            kind: np.stack([self._maps(fold[kind], images) for fold in self.folds]).astype(np.float32, copy=False)
            for kind in self.kinds
        }

    def fold_residuals(self, fold: int, images: Array) -> dict[str, Array]:
        """Residual maps of one fold by kind, shape (n, size, size): for pictures that this fold has not seen."""
        return {kind: self._maps(network, images) for kind, network in self.folds[fold].items()}

    def _maps(self, network: Network, images: Array) -> Array:
        with torch.inference_mode():
            parts = [
                _residual(network, torch.from_numpy(images[start : start + _BATCH]).to(self.accelerator)[:, None])
                for start in range(0, len(images), _BATCH)
            ]
            return torch.cat(parts)[:, 0].float().cpu().numpy()


def pack_weights(folds: Sequence[Networks]) -> bytes:
    """All folds as one safetensors file: keys ``<fold>.<kind>.<parameter>``; kernels as float16 to halve the file."""
    tensors = {
        f"{index}.{kind}.{key}": (value.half() if value.dim() > 1 else value).contiguous()
        for index, fold in enumerate(folds)
        for kind, network in fold.items()
        for key, value in network.state_dict().items()
    }
    return bytes(safetensors.torch.save(tensors))


def unpack_weights(content: bytes, architecture: Mapping[str, object]) -> list[Networks]:
    """The folds of a safetensors file. ``architecture``: the card's entry, {"folds": K, "networks": [{…}, …]}.

    Raises ConfigError when file and architecture do not fit.
    """
    try:
        tensors = safetensors.torch.load(content)
    except safetensors.SafetensorError as error:
        raise ConfigError(f"the weights are not a safetensors file: {error}") from error
    count, entries = architecture.get("folds"), architecture.get("networks")
    if not isinstance(count, int) or not 1 <= count <= 16 or not isinstance(entries, list) or not entries:
        raise ConfigError("the architecture entry of the card needs folds (1 to 16) and networks")
    folds = [{str(entry["kind"]): _filled(entry, f"{fold}.", tensors) for entry in entries} for fold in range(count)]
    return list(folds)


def _filled(entry: Mapping[str, object], prefix: str, tensors: Mapping[str, Tensor]) -> Network:
    network = build_network(entry)
    prefix = f"{prefix}{entry['kind']}."
    own = {key[len(prefix) :]: _full(value) for key, value in tensors.items() if key.startswith(prefix)}
    try:
        network.load_state_dict(own, strict=True)
    except RuntimeError as error:
        raise ConfigError(f"the weights do not fit the {entry['kind']} network of the card") from error
    return network


def _full(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value


def _residual(network: Network, images: Tensor) -> Tensor:
    """The residual map at the size of ``images``; a smaller network sees them averaged down."""
    full = images.shape[-1]
    factor = full // network.size
    own = F.avg_pool2d(images, factor) if factor > 1 else images
    maps = network.residual(own)
    if factor > 1:
        maps = F.interpolate(maps, size=(full, full), mode="bilinear", align_corners=False)
    return maps
