"""The parts of a MONAI bundle that the node runs: network, preprocessing, inferer, postprocessing.

A bundle's configuration is code: ``$`` expressions are evaluated by MONAI. ``build`` is called for a private copy whose
hash the operator has allowed, in the process that detects, and never otherwise.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dicomnode.detectors.hosted.bundle_files import PARTS, BundleFiles, BundleRefused

Transform = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class BundleParts:
    """What a bundle needs to answer. ``preprocessing`` and ``postprocessing``: dictionary transforms, without those
    that read and write files. ``image_key``: under which key the image goes in; ``inverts``: the postprocessing
    brings the prediction back to the grid of the image itself. ``channel_first``: the bundle left it to its reader
    to add the channel axis.
    """

    network: nn.Module
    preprocessing: tuple[Transform, ...]
    inferer: Callable[..., Any]
    postprocessing: tuple[Transform, ...]
    image_key: str
    channel_first: bool
    inverts: bool


def build(files: BundleFiles, accelerator: str) -> BundleParts:
    """Instantiate the four parts with the weights in place. Raises BundleRefused with the reason where MONAI cannot."""
    from monai.bundle.config_parser import ConfigParser

    config = _shimmed(files.config)
    config |= {"bundle_root": str(files.root), "output_dir": str(files.root), "device": torch.device(accelerator)}
    with _scripts_of(files.root), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parser = ConfigParser()
        parser.read_meta(dict(files.metadata))
        parser.read_config(config)
        made = {part: _made(parser, part) for part in PARTS}
    network = _with_weights(made["network_def"], files.weights).to(accelerator).eval()
    return _parts(network, made)


def _made(parser: Any, part: str) -> Any:
    """One part, instantiated. A bundle may raise anything; its own words say what it lacks (no image is there yet)."""
    try:
        return parser.get_parsed_content(part, instantiate=True)
    except Exception as error:  # MONAI and the bundle's own code raise what they like
        raise BundleRefused(f"the bundle cannot be hosted: {part}: {_innermost(error)}") from error


def _innermost(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"


def _shimmed(config: Mapping[str, Any]) -> dict[str, Any]:
    """A copy without what newer versions of MONAI refuse or the node does itself.

    SwinUNETR lost its ``img_size``; LoadImaged needs no reader, because the node reads the images.
    """
    changed = deepcopy(dict(config))
    for item in _components(changed):
        kind = str(item["_target_"]).rpartition(".")[2]
        if kind == "SwinUNETR":
            item.pop("img_size", None)
        elif kind in ("LoadImaged", "LoadImageD", "LoadImageDict"):
            item.pop("reader", None)
        elif kind in ("SaveImaged", "SaveImageD", "SaveImageDict"):
            item["_disabled_"] = True
    return changed


def _components(config: Any) -> Iterator[dict[str, Any]]:
    if isinstance(config, dict):
        if "_target_" in config:
            yield config
        for value in config.values():
            yield from _components(value)
    elif isinstance(config, list):
        for value in config:
            yield from _components(value)


@contextmanager
def _scripts_of(root: Path) -> Iterator[None]:
    """The bundle's own ``scripts`` can be imported inside; afterwards another bundle may have its own."""
    before = set(sys.modules)
    sys.path.insert(0, str(root))
    try:
        yield
    finally:
        sys.path.remove(str(root))
        for name in set(sys.modules) - before:
            if name.partition(".")[0] == "scripts":
                del sys.modules[name]


def _with_weights(network: Any, path: Path) -> nn.Module:
    """Load ``models/model.pt``, tensors only (``weights_only``), all of them and no other."""
    if not isinstance(network, nn.Module):
        raise BundleRefused("the bundle cannot be hosted: network_def is not a network")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        for key in ("model", "state_dict", "network"):
            if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
                found = found[key]
        if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
            raise BundleRefused("the bundle cannot be hosted: models/model.pt does not hold tensors by name")
        network.load_state_dict(dict(found), strict=True)
    except (RuntimeError, OSError, ValueError, EOFError, ImportError) as error:
        raise BundleRefused(f"the bundle cannot be hosted: models/model.pt: {_innermost(error)}") from error
    except Exception as error:  # pickle.UnpicklingError and what a damaged archive makes of itself
        raise BundleRefused(
            f"the bundle cannot be hosted: models/model.pt is no plain state dict: {type(error).__name__}"
        ) from error
    return network


def _parts(network: nn.Module, made: Mapping[str, Any]) -> BundleParts:
    from monai.transforms.io.dictionary import LoadImaged, SaveImaged
    from monai.transforms.post.dictionary import Invertd

    before, after = _flat(made["preprocessing"]), _flat(made["postprocessing"])
    if not before or not isinstance(before[0], LoadImaged):
        raise BundleRefused("the bundle cannot be hosted: its preprocessing does not begin with LoadImaged")
    if any(isinstance(one, LoadImaged) for one in before[1:]):
        raise BundleRefused("the bundle cannot be hosted: its preprocessing reads more than one file")
    loader = before[0]
    if len(loader.keys) != 1:
        raise BundleRefused(f"the bundle cannot be hosted: it reads {len(loader.keys)} images, a detector gets one")
    if not callable(made["inferer"]):
        raise BundleRefused("the bundle cannot be hosted: its inferer cannot be called")
    writers = (LoadImaged, SaveImaged)
    return BundleParts(
        network=network,
        preprocessing=tuple(before[1:]),
        inferer=made["inferer"],
        postprocessing=tuple(one for one in after if not isinstance(one, writers)),
        image_key=str(loader.keys[0]),
        channel_first=bool(loader._loader.ensure_channel_first),  # noqa: SLF001 - MONAI has no other way to ask
        inverts=any(isinstance(one, Invertd) for one in after),
    )


def _flat(transform: Any) -> list[Transform]:
    """The transforms in order, those of nested Compose objects too; the very objects, so that Invertd knows them."""
    from monai.transforms.compose import Compose

    if type(transform) is Compose:
        return [inner for one in transform.transforms for inner in _flat(one)]
    if isinstance(transform, (list, tuple)):
        return [inner for one in transform for inner in _flat(one)]
    return [transform] if callable(transform) else []
