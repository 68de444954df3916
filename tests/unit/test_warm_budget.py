"""Warm models within a memory budget."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import ClassVar

import pytest

from dicomnode.config import Config
from dicomnode.detect.warm import WarmDetectors, memory_budget, weights_bytes
from dicomnode.detectors.contract import LoadedDetector, ModelIdentity
from dicomnode.detectors.cxr import ChestRadiograph
from dicomnode.detectors.execution import ExecutionPlan
from dicomnode.models.registry import SHIPPED, ModelRegistry


class Loaded:
    """What the stand-in plugin loads: it knows its model and the plan it was given."""

    def __init__(self, name: str, accelerator: str) -> None:
        self.model, self.accelerator = ModelIdentity(name, "1", "0" * 64, "none"), accelerator
        self.plan: ExecutionPlan | None = None

    def run_with(self, plan: ExecutionPlan) -> None:
        self.plan = plan

    def detect(self, volume: object) -> object:
        raise NotImplementedError


class Counting(ChestRadiograph):
    """Counts what is loaded."""

    loads: ClassVar[list[str]] = []

    def load(self, model_folder: Path, accelerator: str) -> LoadedDetector:
        self.loads.append(model_folder.name)
        return Loaded(model_folder.name, accelerator)  # type: ignore[return-value]


@pytest.fixture
def registry(tmp_path: Path) -> ModelRegistry:
    source = next(path for path in sorted(SHIPPED.iterdir()) if (path / "card.json").is_file())
    card = (source / "card.json").read_text(encoding="utf-8")
    for name in ("one", "two", "three"):
        shutil.copytree(source, tmp_path / name)
        (tmp_path / name / "card.json").write_text(card.replace(f'"{source.name}"', f'"{name}"', 1), encoding="utf-8")
    return ModelRegistry([tmp_path], shipped=False)


def warm(registry: ModelRegistry, megabytes: int) -> WarmDetectors:
    Counting.loads = []
    config = Config.model_validate({"detect": {"model_memory_mb": megabytes}, "node": {"accelerator": "cpu"}})
    return WarmDetectors(config, {"cxr": Counting()}, registry)


def test_without_a_limit_every_model_is_loaded_once(registry: ModelRegistry) -> None:
    detectors = warm(registry, 0)
    for name in ("one", "two", "three", "one"):
        detectors.get("cxr", name)
    assert Counting.loads == ["one", "two", "three"]


def test_the_model_used_longest_ago_makes_room(registry: ModelRegistry) -> None:
    size = weights_bytes(registry.get("one").folder)
    detectors = warm(registry, math.ceil(2.2 * size / 1024**2))
    for name in ("one", "two", "one", "three", "one", "two"):
        detectors.get("cxr", name)
    assert Counting.loads == ["one", "two", "three", "two"]


def test_a_model_larger_than_the_budget_runs_alone(registry: ModelRegistry) -> None:
    detectors = warm(registry, 1)
    assert detectors.get("cxr", "one") is detectors.get("cxr", "one")
    detectors.get("cxr", "two")
    assert Counting.loads == ["one", "two"]


def test_a_loaded_detector_is_told_the_plan(registry: ModelRegistry) -> None:
    loaded = warm(registry, 0).get("cxr", "one")
    assert loaded.plan == ExecutionPlan("cpu")  # type: ignore[attr-defined]


def test_the_budget_is_what_is_set_or_none_on_the_cpu() -> None:
    assert memory_budget(2, "cpu") == 2 * 1024**2
    assert memory_budget(0, "cpu") == math.inf
