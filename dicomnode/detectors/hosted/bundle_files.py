"""What a MONAI bundle says of itself, and why the node does not host it. Nothing in here runs anything of the bundle.

Layout and metadata: MONAI Bundle Specification 0.4 (docs/source/mb_specification.rst of MONAI 1.6).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dicomnode.config.hosted import HostedBundle
from dicomnode.errors import ConfigError

PARTS = ("network_def", "preprocessing", "inferer", "postprocessing")
_WEIGHTS = "models/model.pt"
_NOT_NEEDED = frozenset(
    {"itk", "nibabel", "pytorch-ignite", "ignite", "tensorboard", "mlflow", "fire", "pandas", "tqdm"}
)
"""What bundles ask for to load files, to train and to be run by MONAI's own engines: the node does that itself."""

_REFERENCE = re.compile(r"[@%](?:#|::)*([A-Za-z_]\w*)")
"""``@id`` or ``%id`` anywhere in an entry, relative ones (``@##id``) too: the first name of the place it leads to."""

_TARGETS = ("monai.", "torch.", "scripts.", "numpy.")
_SURPRISING = re.compile(
    r"\b(subprocess|socket|urllib|requests|http|ftplib|ctypes|pickle|shutil|builtins|importlib|multiprocessing"
    r"|os\.(?:system|popen|exec\w*|spawn\w*|fork|remove|unlink|rmdir|environ|kill|chmod)|sys\.modules"
    r"|__\w+__|eval|exec|compile|open|getattr|setattr|globals|locals)\b"
)


class BundleRefused(ConfigError):
    """This bundle cannot be hosted, because …"""


@dataclass(frozen=True, slots=True)
class BundleFiles:
    """``root``: the folder; ``metadata``: configs/metadata.json; ``config``: what the parts need of the inference
    configuration, unparsed.
    """

    root: Path
    metadata: Mapping[str, Any]
    config: dict[str, Any]

    @property
    def weights(self) -> Path:
        return self.root / _WEIGHTS


def read_bundle(root: Path, settings: HostedBundle) -> BundleFiles:
    """Read and examine a bundle whose hash is right. Raises BundleRefused with everything that forbids hosting it."""
    whole = _inference(root)
    files = BundleFiles(root, _json(root / "configs" / "metadata.json"), needed(whole))
    reasons = [*_missing_parts(whole), *_why_not(files, settings)]
    if reasons:
        raise BundleRefused(f"the bundle cannot be hosted: {'; '.join(reasons)}")
    return files


def needed(config: Mapping[str, Any]) -> dict[str, Any]:
    """The entries that the four parts reach by reference, and the imports; the others are never even parsed.

    Bundles set up training, logging and CUDA in their other entries.
    """
    found: dict[str, Any] = {}
    ahead = [*PARTS, "imports"]
    while ahead:
        key = ahead.pop()
        if key in config and key not in found:
            found[key] = config[key]
            ahead += [name for text in _texts(config[key]) for name in _REFERENCE.findall(text)]
    return found


def _texts(config: Any) -> Iterator[str]:
    if isinstance(config, str):
        yield config
    elif isinstance(config, Mapping):
        for value in config.values():
            yield from _texts(value)
    elif isinstance(config, list):
        for value in config:
            yield from _texts(value)


def _missing_parts(config: Mapping[str, Any]) -> Iterator[str]:
    missing = [part for part in PARTS if part not in config]
    if missing:
        more = "; it has an evaluator only" if "evaluator" in config and "network_def" in missing else ""
        yield f"its inference configuration has no {', no '.join(missing)}{more}"


def _why_not(files: BundleFiles, settings: HostedBundle) -> Iterator[str]:
    if not files.weights.is_file():
        yield f"{_WEIGHTS} is missing (large files are downloaded separately, see large_files.yml)"
    yield from _packages(files.metadata)
    yield from _format(files.metadata, settings)
    yield from surprising(files.config)


def _packages(metadata: Mapping[str, Any]) -> Iterator[str]:
    """Packages that the bundle requires, that are not installed, and that inference may need."""
    for name in metadata.get("required_packages_version") or {}:
        if str(name).lower() not in _NOT_NEEDED:
            try:
                version(str(name))
            except PackageNotFoundError:
                yield f"it needs {name}, which is not installed"


def _format(metadata: Mapping[str, Any], settings: HostedBundle) -> Iterator[str]:
    formats = metadata.get("network_data_format") or {}
    inputs, outputs = formats.get("inputs") or {}, formats.get("outputs") or {}
    if len(inputs) != 1 or len(outputs) != 1:
        yield "it has more than one input or output"
        return
    (given,), (made,) = inputs.values(), outputs.values()
    if int(given.get("num_channels", 1)) != 1:
        yield f"it takes {given['num_channels']} channels from several series; a detector gets one series"
    if len(given.get("spatial_shape") or (0, 0, 0)) != 3:
        yield "it works on single images; volumes are hosted, for images use its network as TorchScript or ONNX"
    if str(made.get("format", "segmentation")).lower() not in ("segmentation", "labels"):
        yield f"its output is {made.get('format')}; segmentations are hosted"
    if why_not := _wrong_modality(str(given.get("modality") or ""), settings):
        yield why_not
    known = {int(index) for index in made.get("channel_def") or {}}
    for label in settings.labels:
        if known and label.index not in known:
            yield f"label {label.index} ({label.name}) is none of its channels {', '.join(map(str, sorted(known)))}"


def _wrong_modality(stated: str, settings: HostedBundle) -> str:
    """The section may not send an MR to a model for CT. A bundle that says "n/a" or nothing is left to the section."""
    wanted = settings.accept["Modality"].equals or ()
    known = set(re.findall(r"\b(CT|MR|MRI|PT|PET|US|CR|DX)\b", stated.upper()))
    known |= {short for long, short in (("MRI", "MR"), ("PET", "PT")) if long in known}
    if known and wanted and not known & {str(one).upper() for one in wanted}:
        return f"it is for {stated}, the section accepts {', '.join(map(str, wanted))}"
    return ""


def surprising(config: Any, place: str = "") -> Iterator[str]:
    """Expressions and targets that no inference needs. The hash is the barrier; this is a second look."""
    if isinstance(config, Mapping):
        for key, value in config.items():
            yield from surprising(value, f"{place}::{key}" if place else str(key))
        target = config.get("_target_")
        if isinstance(target, str) and "." in target and not target.startswith((*_TARGETS, "$", "@", "%")):
            yield f"{place} makes a {target}"
    elif isinstance(config, list):
        for index, value in enumerate(config):
            yield from surprising(value, f"{place}::{index}")
    elif isinstance(config, str) and config.startswith("$") and (found := _SURPRISING.search(config)):
        yield f"{place} uses {found[0]}"


def _inference(root: Path) -> dict[str, Any]:
    for name in ("inference.json", "inference.yaml", "inference.yml"):
        path = root / "configs" / name
        if path.is_file():
            return _json(path) if path.suffix == ".json" else _yaml(path)
    raise BundleRefused("the bundle cannot be hosted: configs/inference.json (or .yaml) is missing")


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleRefused(f"the bundle cannot be hosted: configs/{path.name} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise BundleRefused(f"the bundle cannot be hosted: configs/{path.name} holds no object")
    return found


def _yaml(path: Path) -> dict[str, Any]:
    try:
        import yaml  # type: ignore[import-untyped]
    except ImportError as error:
        raise BundleRefused(
            'the bundle cannot be hosted: its configuration is YAML: pip install "dicomnode[bundles]"'
        ) from error
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise BundleRefused(f"the bundle cannot be hosted: configs/{path.name} cannot be read") from error
    if not isinstance(found, dict):
        raise BundleRefused(f"the bundle cannot be hosted: configs/{path.name} holds no mapping")
    return found
