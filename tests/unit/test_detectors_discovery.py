"""Plugins: found, or listed as broken with the reason; never an exception."""

from __future__ import annotations

import sys

import pytest

from dicomnode.detectors.discovery import collect, discover, package_sources

GOOD = """
from dataclasses import dataclass
from dicomnode.detectors.contract import Acceptance

@dataclass(frozen=True)
class Mine:
    name: str = "{name}"
    version: str = "1"
    default_model: str = "mine"
    description: str = "a test"
    def accepts(self, summary): return Acceptance(accepted=False, reason="never")
    def load(self, model_folder, accelerator): raise NotImplementedError

DETECTOR = Mine()
"""


@pytest.fixture
def plugin_package(tmp_path, monkeypatch):
    """A function that writes modules into a new package and answers its sources."""

    def write(**modules: str):
        folder = tmp_path / "some_plugins"
        folder.mkdir()
        (folder / "__init__.py").write_text("", encoding="utf-8")
        for name, text in modules.items():
            (folder / f"{name}.py").write_text(text, encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)
        return package_sources([str(folder)], "some_plugins")

    yield write
    for name in [name for name in sys.modules if name.startswith("some_plugins")]:
        del sys.modules[name]


def test_the_three_built_in_detectors_are_found_and_none_is_broken():
    """The node ships cxr, ct-head and mr-brain-flair."""
    found = discover()
    assert set(found.detectors) >= {"cxr", "ct-head", "mr-brain-flair"}
    assert not [label for label in found.broken if label.startswith("dicomnode.")]


def test_one_file_makes_a_detector_and_a_module_without_one_is_no_plugin(plugin_package):
    """A newcomer adds a detector by writing one file."""
    found = collect(plugin_package(mine=GOOD.format(name="mine"), helper="X = 1\n"))
    assert list(found.detectors) == ["mine"]
    assert found.broken == {}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("DETECTOR = 1/0\n", "ZeroDivisionError"),
        ("import no_such_module_anywhere\nDETECTOR = 1\n", "ModuleNotFoundError"),
        ("DETECTOR = object()\n", "lacks one of"),
        ("import sys\nsys.exit(3)\nDETECTOR = 1\n", "SystemExit"),
        (GOOD.format(name="UPPER"), "lower case"),
        ("DETECTOR = (\n", "SyntaxError"),
    ],
)
def test_a_broken_plugin_is_listed_with_its_reason_beside_the_good_ones(plugin_package, text, reason):
    """Foreign code cannot stop the node."""
    found = collect(plugin_package(broken_one=text, mine=GOOD.format(name="mine")))
    assert list(found.detectors) == ["mine"]
    assert reason in found.broken["some_plugins.broken_one"]


def test_of_two_detectors_with_one_name_the_second_is_listed_as_broken(plugin_package):
    """A plugin cannot replace a detector silently."""
    found = collect(plugin_package(a=GOOD.format(name="same"), b=GOOD.format(name="same")))
    assert list(found.detectors) == ["same"]
    assert "already called same" in found.broken["some_plugins.b"]


def test_an_entry_point_of_another_package_is_discovered(monkeypatch, plugin_package):
    """The second source of detectors is the entry-point group dicomnode.detectors."""
    from importlib.metadata import EntryPoint

    from dicomnode.detectors import discovery

    list(plugin_package(mine=GOOD.format(name="mine")))
    points = [
        EntryPoint("mine", "some_plugins.mine:DETECTOR", discovery.ENTRY_POINT_GROUP),
        EntryPoint("gone", "some_plugins.gone:DETECTOR", discovery.ENTRY_POINT_GROUP),
    ]
    monkeypatch.setattr(discovery, "entry_points", lambda group: points if group == "dicomnode.detectors" else [])
    found = discover()
    assert "mine" in found.detectors
    assert "ModuleNotFoundError" in found.broken["entry point gone"]
