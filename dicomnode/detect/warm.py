"""Warm models: each detector and its weights are loaded once per worker."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from dicomnode.config import Config
from dicomnode.detectors.contract import Detector, LoadedDetector
from dicomnode.errors import ConfigError
from dicomnode.models.registry import ModelRegistry


def accelerator_for(setting: str) -> str:
    """``auto`` is the first GPU, or the CPU where there is none. Raises ConfigError for a GPU that is not there."""
    if setting == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    if setting.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"node.accelerator: {setting} is not available on this machine")
    return "cuda:0" if setting == "cuda" else setting


class WarmDetectors:
    """Loaded detectors by name and model."""

    def __init__(self, config: Config, detectors: Mapping[str, Detector], registry: ModelRegistry) -> None:
        self._detectors = detectors
        self._registry = registry
        self._loaded: dict[tuple[str, str], LoadedDetector] = {}
        self.accelerator = accelerator_for(config.node.accelerator)

    def get(self, detector: str, model: str | None) -> LoadedDetector:
        """The detector, ready to run. Raises ConfigError for unknown names, a wrong hash or missing weights."""
        plugin = self._plugin(detector)
        name = model or plugin.default_model
        if (detector, name) not in self._loaded:
            folder = self._registry.get(name).folder
            self._loaded[detector, name] = plugin.load(folder, self.accelerator)
        return self._loaded[detector, name]

    def version_of(self, detector: str) -> str:
        """The version of the plugin called ``detector``. Raises ConfigError for an unknown name."""
        return self._plugin(detector).version

    def warm(self, config: Config) -> None:
        """Load what the routes name. Raises ConfigError as ``get`` does."""
        for route in config.route:
            self.get(route.detector, route.model)

    def _plugin(self, detector: str) -> Detector:
        plugin = self._detectors.get(detector)
        if plugin is None:
            raise ConfigError(f"there is no detector named {detector!r}")
        return plugin
