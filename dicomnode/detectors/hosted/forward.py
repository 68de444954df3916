"""The forward pass of a hosted network, whatever its format: an array in, an array out.

TorchScript, exported programs and ONNX graphs are programs. Their bytes come here only after their hash was found in
the configuration, and the bytes that were hashed are the bytes that are loaded.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dicomnode.config.hosted import HostedNetwork, HostedStateDict
from dicomnode.detectors.contract import Array
from dicomnode.detectors.hosted.torchvision_names import densenet121
from dicomnode.errors import ConfigError

_UNFIT = (
    RuntimeError,
    ValueError,
    KeyError,
    OSError,
    AssertionError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
)
"""What the loaders raise for a file of another format, or for weights that do not fit."""

Forward = Callable[[Array], Array]
"""Batch in, shape (n, channels, …), raw output out; float32."""


@dataclass(frozen=True, slots=True)
class Network:
    """A loaded network. ``module``: its layers, where they can be looked into. ``accelerator``: where it runs.

    ``thresholds``: per output, where the weights bring them along.
    """

    forward: Forward
    accelerator: str
    module: nn.Module | None = None
    thresholds: tuple[float, ...] = ()


def load_forward(settings: HostedNetwork | HostedStateDict, path: Path, accelerator: str) -> Network:
    """The network in ``path``. Raises ConfigError for another hash, a missing package, or a file that does not load."""
    content = _allowed(path, settings.sha256)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _LOADERS[settings.kind](content, path, accelerator)
    except _UNFIT as error:
        raise ConfigError(f"{path.name} cannot be loaded as {settings.kind}: {_first_line(error)}") from error


def _allowed(path: Path, sha256: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path.name} cannot be read: {error.strerror}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ConfigError(f"{path.name} has SHA-256 {found[:12]}…, the configuration allows {sha256[:12]}… only")
    return content


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"


def _of_module(module: Callable[[Tensor], Any], accelerator: str) -> Forward:
    def forward(batch: Array) -> Array:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _as_array(module(torch.from_numpy(batch).to(accelerator)))

    return forward


def _as_array(output: Any) -> Array:
    """The first tensor of an output: networks answer with a tensor, a tuple or a dictionary."""
    while isinstance(output, (list, tuple, Mapping)):
        output = next(iter(output.values() if isinstance(output, Mapping) else output))
    if isinstance(output, Tensor):
        output = output.detach().float().cpu().numpy()
    return np.asarray(output, dtype=np.float32)


def _torchscript(content: bytes, path: Path, accelerator: str) -> Network:  # noqa: ARG001 - the loaders' signature
    module: nn.Module = torch.jit.load(io.BytesIO(content), map_location=accelerator)  # type: ignore[no-untyped-call]
    return Network(_of_module(module.eval(), accelerator), accelerator)


def _export(content: bytes, path: Path, accelerator: str) -> Network:  # noqa: ARG001 - the loaders' signature
    """Sample inputs and constants are pickled in it: tensors only, which torch takes from the environment alone."""
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    module = torch.export.load(io.BytesIO(content)).module()
    return Network(_of_module(module.to(accelerator), accelerator), accelerator)


def _onnx(content: bytes, path: Path, accelerator: str) -> Network:  # noqa: ARG001 - the loaders' signature
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError('ONNX models need onnxruntime: pip install "dicomnode[onnx]"') from error
    offered = onnxruntime.get_available_providers()
    gpu = accelerator.startswith("cuda") and "CUDAExecutionProvider" in offered
    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"] if gpu else ["CPUExecutionProvider"]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(content, options, providers=providers)
    except Exception as error:  # onnxruntime's exceptions have no root of their own
        raise ConfigError(f"onnxruntime does not take this file: {_first_line(error)}") from error
    entry = session.get_inputs()[0].name
    return Network(lambda batch: _as_array(session.run(None, {entry: batch})), accelerator if gpu else "cpu")


def _state_dict(content: bytes, path: Path, accelerator: str) -> Network:
    weights = _weights(content, path)
    found = weights.pop("op_threshs", None)
    thresholds = () if found is None else tuple(float(value) for value in found.flatten())
    module = densenet121(weights).to(accelerator).eval()
    return Network(_of_module(module, accelerator), accelerator, module, thresholds)


def _weights(content: bytes, path: Path) -> dict[str, Tensor]:
    """The tensors by name. A .pt file is unpickled with ``weights_only``: tensors, nothing that could run."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load

        return dict(load(content))
    found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    inner = found.get("state_dict", found) if isinstance(found, Mapping) else None
    if not isinstance(inner, Mapping) or not all(isinstance(value, Tensor) for value in inner.values()):
        raise ValueError("it does not hold tensors by name")
    return dict(inner)


_LOADERS: Mapping[str, Callable[[bytes, Path, str], Network]] = {
    "torchscript": _torchscript,
    "export": _export,
    "onnx": _onnx,
    "state-dict": _state_dict,
}
