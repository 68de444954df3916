"""Settings small enough for a comparison on a CPU, for methods whose own are a paper's recipe for a GPU."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from dicomnode.detectors.methods.contract import MethodEntry
from dicomnode.errors import ConfigError

Settings = Mapping[str, object]

_TRANSLATION = {
    "width": 16, "blocks": 2, "critic_width": 32, "critic_layers": 3, "learning_rate": 2e-4, "batch": 8,
    "select_every": 50, "select_planes": 200,
}  # fmt: skip

SMALL: Mapping[str, Settings] = MappingProxyType(
    {
        "anomalypro": _TRANSLATION,
        "brainomaly": _TRANSLATION,
        "brainomaly-clamped": _TRANSLATION,
        "densenet121": {"batch": 16},
        "f-anogan": {"width": 16, "batch": 16},
        "alad": {"width": 16, "batch": 16},
        "madgan": {"width": 16, "batch": 8},
        "ae-3d": {"width": 8, "batch": 8},
        "next-slice": {"width": 8, "batch": 8},
        "ddpm": {"width": 16, "batch": 8, "back": 5},
        "patchcore": {"zoom": 4},
        "padim": {"zoom": 4},
        "features-gaussian": {"zoom": 4},
        "features-knn": {"zoom": 4},
        "reverse-distillation": {"zoom": 4, "batch": 8},
    }
)


def small_settings(entry: MethodEntry, backbone: tuple[str, Path] | None) -> dict[str, object]:
    """The small settings of ``entry``; with ``backbone`` (name, file) for methods on frozen features.

    Raises ConfigError when the file cannot be read.
    """
    settings = dict(SMALL.get(entry.name, {}))
    if backbone is not None and "backbone_weights" in entry.settings.model_fields:
        name, path = backbone
        settings |= {"backbone": name, "backbone_weights": str(path), "backbone_sha256": _sha256(path)}
    return settings


def told_settings(settings: Settings) -> dict[str, object]:
    """``settings`` as a table may tell them: without a path of this machine."""
    return {key: value for key, value in settings.items() if key != "backbone_weights"}


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(f"the backbone weights cannot be read: {error.strerror}") from error
