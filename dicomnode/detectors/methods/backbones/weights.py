"""Weights of a backbone from the operator's file: verified, read without running code, under torchvision's names."""

from __future__ import annotations

import hashlib
import io
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from torch import Tensor

from dicomnode.detectors.methods.backbones.mobilenet_v2 import convolution_names, normalisation_name
from dicomnode.errors import ConfigError

NORMALISATION_EPSILON = 1e-5
CAFFE_FIRES = {f"fire{number}": place for number, place in zip(range(2, 10), (3, 4, 5, 7, 8, 9, 10, 12), strict=True)}
"""Caffe's fire modules and their places in torchvision's ``features``."""

_KEPT = ".backbone.network."
"""Before the names of a frozen backbone's arrays in the weights of a model folder."""
UNREADABLE = (
    ValueError,
    EOFError,
    RuntimeError,
    LookupError,
    AttributeError,
    TypeError,
    struct.error,
    zipfile.BadZipFile,
    UnpicklingError,
)
"""What numpy's and torch's readers raise for a file that is broken or holds more than arrays."""


@dataclass(frozen=True, slots=True)
class Convention:
    """How a network wants its input: (grey - mean) / sd per channel, grey 0..1; ``same``: TensorFlow's padding."""

    mean: tuple[float, float, float]
    sd: tuple[float, float, float]
    same: bool = False


TORCHVISION = Convention((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CAFFE = Convention((104 / 255, 117 / 255, 123 / 255), (1 / 255, 1 / 255, 1 / 255))
"""Blue, green, red, 0..255 less the means."""
TENSORFLOW = Convention((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), same=True)


@dataclass(frozen=True, slots=True)
class Weights:
    """``arrays``: by torchvision's names, float32. ``convention``: what the network they were trained in was fed."""

    arrays: dict[str, Tensor]
    convention: Convention


def read_weights(path: Path, sha256: str) -> Weights:
    """The weights in ``path``: .npz of plain arrays, .safetensors, or a torchvision state dict (.pt, .pth).

    Of an .npz the names of Caffe's SqueezeNet 1.0 and numbered operations of a folded MobileNetV2 are translated; the
    weights of a model folder give the frozen backbone in them; other names are taken for torchvision's. Raises
    ConfigError when the file cannot be read or does not have the SHA-256.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"backbone weights {path.name} cannot be read") from error
    if hashlib.sha256(content).hexdigest() != sha256.lower():
        raise ConfigError(f"backbone weights {path.name} do not have the SHA-256 of the settings")
    arrays = _arrays(content, path)
    if "conv1.weight" in arrays and "fire2/squeeze.weight" in arrays:
        return Weights(_from_caffe(arrays), CAFFE)
    if "op000.weight" in arrays:
        return Weights(_unfolded(arrays, path.name), TENSORFLOW)
    if any(_KEPT in key for key in arrays):
        return _from_model(arrays)
    return Weights(arrays, TORCHVISION)


def _arrays(content: bytes, path: Path) -> dict[str, Tensor]:
    import safetensors
    import safetensors.torch

    try:
        if path.suffix == ".npz":
            with np.load(io.BytesIO(content), allow_pickle=False) as kept:
                found: Mapping[str, object] = {
                    key: torch.from_numpy(kept[key]) for key in kept.files if kept[key].dtype.kind in "fiub"
                }
        elif path.suffix == ".safetensors":
            found = safetensors.torch.load(content)
        else:
            found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (*UNREADABLE, safetensors.SafetensorError) as error:
        raise ConfigError(f"backbone weights {path.name} are not a file of arrays") from error
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ConfigError(f"backbone weights {path.name} are not a state dict")
    return {
        str(key): value.float() if value.is_floating_point() else value
        for key, value in found.items()
        if isinstance(value, Tensor)
    }


def _from_model(arrays: Mapping[str, Tensor]) -> Weights:
    """The first frozen backbone of a model folder's weights, with the convention kept beside it."""
    prefix = next(key for key in arrays if _KEPT in key).split(_KEPT)[0]
    start = prefix + _KEPT
    own = [key for key in arrays if key.startswith(start) and not key.endswith("num_batches_tracked")]
    network = {key.removeprefix(start): arrays[key] for key in own}
    beside = [arrays[f"{prefix}.backbone.{name}"].flatten().tolist() for name in ("mean", "sd", "same")]
    red, green, blue = ((float(m), float(s)) for m, s in zip(*beside[:2], strict=True))
    mean, sd = zip(red, green, blue, strict=True)
    return Weights(network, Convention(mean, sd, bool(beside[2][0])))


def _from_caffe(arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for name, value in arrays.items():
        part, _, leaf = name.partition("/")
        if leaf:
            renamed[f"features.{CAFFE_FIRES.get(part, part)}.{leaf}"] = value
        else:
            renamed[name.replace("conv10.", "classifier.1.").replace("conv1.", "features.0.")] = value
    return renamed


def _unfolded(arrays: Mapping[str, Tensor], file: str) -> dict[str, Tensor]:
    """Folded convolutions with a bias as convolutions without one and a normalisation that adds it."""
    operations = sorted(name.removesuffix(".weight") for name in arrays if name.endswith(".weight"))
    names = convolution_names()
    if len(operations) != len(names) or any(f"{one}.bias" not in arrays for one in operations):
        raise ConfigError(f"backbone weights {file} do not hold the {len(names)} layers of MobileNetV2 with biases")
    result: dict[str, Tensor] = {}
    for operation, name in zip(operations, names, strict=True):
        weight, bias = arrays[f"{operation}.weight"], arrays[f"{operation}.bias"]
        if name.startswith("classifier"):
            result |= {f"{name}.weight": weight.flatten(1), f"{name}.bias": bias}
            continue
        result[f"{name}.weight"] = weight
        result |= _adding(normalisation_name(name), bias)
    return result


def _adding(name: str, bias: Tensor) -> dict[str, Tensor]:
    """A batch normalisation that only adds ``bias``."""
    return {
        f"{name}.weight": torch.full_like(bias, (1.0 + NORMALISATION_EPSILON) ** 0.5),
        f"{name}.bias": bias,
        f"{name}.running_mean": torch.zeros_like(bias),
        f"{name}.running_var": torch.ones_like(bias),
    }
