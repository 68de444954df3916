"""Warm models: each detector and its weights are loaded once per worker."""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

from dicomnode.config import Config
from dicomnode.detectors.contract import Detector, HasOwnModel, LoadedDetector
from dicomnode.detectors.execution import ExecutionPlan, plan_for
from dicomnode.errors import ConfigError
from dicomnode.models.registry import ModelRegistry
from dicomnode.report.selfcheck import prepare

_log = logging.getLogger(__name__)


def accelerator_for(setting: str) -> str:
    """``auto`` is the first GPU, or the CPU where there is none. Raises ConfigError for a GPU that is not there."""
    if setting == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    if setting.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"node.accelerator: {setting} is not available on this machine")
    return "cuda:0" if setting == "cuda" else setting


@dataclass(frozen=True, slots=True)
class _Warm:
    """A loaded detector; ``size``: bytes of its weights in memory."""

    detector: LoadedDetector
    size: int


@runtime_checkable
class Planned(Protocol):
    """A loaded detector that can be told how to use the accelerator."""

    def run_with(self, plan: ExecutionPlan) -> None:
        """Use the accelerator by ``plan`` from now on."""
        ...


def memory_budget(megabytes: int, accelerator: str) -> float:
    """Bytes for warm models: what is set, else half of the memory of a GPU, else no limit."""
    if megabytes:
        return megabytes * 1024.0**2
    if accelerator.startswith("cuda"):
        return 0.5 * torch.cuda.get_device_properties(accelerator).total_memory
    return math.inf


def weights_bytes(folder: Path) -> int:
    """What the weights in ``folder``, or in this file, take in memory: twice the files, which hold float16 kernels."""
    files = (path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else (folder,)
    return 2 * sum(path.stat().st_size for path in files)


class WarmDetectors:
    """Loaded detectors by name and model, within a memory budget: the one used longest ago goes first."""

    def __init__(self, config: Config, detectors: Mapping[str, Detector], registry: ModelRegistry) -> None:
        self._detectors = detectors
        self._registry = registry
        self._loaded: OrderedDict[tuple[str, str], _Warm] = OrderedDict()
        self._plan = config.detect
        self.accelerator = accelerator_for(config.node.accelerator)
        self._budget = memory_budget(config.detect.model_memory_mb, self.accelerator)

    def get(self, detector: str, model: str | None) -> LoadedDetector:
        """The detector, ready to run. Raises ConfigError for unknown names, a wrong hash or missing weights."""
        plugin = self._plugin(detector)
        key = (detector, model or plugin.default_model)
        if key not in self._loaded:
            self._load(plugin, key)
        self._loaded.move_to_end(key)
        return self._loaded[key].detector

    def _load(self, plugin: Detector, key: tuple[str, str]) -> None:
        folder = plugin.location if isinstance(plugin, HasOwnModel) else self._registry.get(key[1]).folder
        size = weights_bytes(folder)
        self._make_room(size)
        loaded = plugin.load(folder, self.accelerator)
        if isinstance(loaded, Planned):
            loaded.run_with(plan_for(self.accelerator, batch=self._plan.batch_planes, compiled=self._plan.compiled))
        self._loaded[key] = _Warm(loaded, size)

    def _make_room(self, size: int) -> None:
        """Drop what was used longest ago until ``size`` more bytes fit; the last one may exceed the budget alone."""
        while self._loaded and sum(warm.size for warm in self._loaded.values()) + size > self._budget:
            (detector, model), _ = self._loaded.popitem(last=False)
            _log.info("model dropped from memory", extra={"detector": detector, "model": model})
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def version_of(self, detector: str) -> str:
        """The version of the plugin called ``detector``. Raises ConfigError for an unknown name."""
        return self._plugin(detector).version

    def warm(self, config: Config) -> None:
        """Load what the routes name, and what every result is checked by. Raises ConfigError as ``get`` does."""
        prepare()
        for route in config.route:
            self.get(route.detector, route.model)

    def _plugin(self, detector: str) -> Detector:
        plugin = self._detectors.get(detector)
        if plugin is None:
            raise ConfigError(f"there is no detector named {detector!r}")
        return plugin
