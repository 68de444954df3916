"""Rooms import only downwards; import-linter enforces it, and would notice."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
LAYERS = next(contract for contract in SETTINGS["contracts"] if contract["type"] == "layers")
TORCH = next(contract for contract in SETTINGS["contracts"] if contract["type"] == "forbidden")
ROOMS = {
    path.stem for path in (ROOT / "dicomnode").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
}
MAY_USE_TORCH = {"detect", "detectors", "models", "train"}
LINT = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the contracts of ``folder``'s pyproject.toml on the package beside it."""
    command = [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, {str(folder)!r}); {LINT}"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def test_the_contracts_hold() -> None:
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{len(SETTINGS['contracts'])} kept, 0 broken" in result.stdout


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("audit/events.py", "import dicomnode.jobs"),
        ("store/engine.py", "import dicomnode.receive"),
        ("receive/__init__.py", "from dicomnode.deliver import worker"),
        ("route/rules.py", "import torch"),
    ],
    ids=["same layer", "upwards", "two processes", "torch"],
)
def test_a_forbidden_import_is_noticed(tmp_path: Path, module: str, line: str) -> None:
    shutil.copytree(ROOT / "dicomnode", tmp_path / "dicomnode", ignore=shutil.ignore_patterns("weights", "__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    changed = tmp_path / "dicomnode" / module
    changed.write_text(f"{changed.read_text()}\n{line}\n")
    result = lint(tmp_path)
    assert result.returncode == 1, result.stdout + result.stderr
    assert " 1 broken" in result.stdout


def test_every_room_has_its_layer() -> None:
    layered = {room for layer in LAYERS["layers"] for room in layer.split(" | ")}
    optional = {room.strip("()") for room in layered if room.startswith("(")} | {"__main__"}
    assert {room.strip("()") for room in layered} - optional == ROOMS - optional - {"__init__"}
    assert LAYERS["exhaustive"] is True


def test_every_room_is_free_of_torch_unless_it_computes() -> None:
    forbidden = {module.removeprefix("dicomnode.") for module in TORCH["source_modules"]}
    assert forbidden >= ROOMS - MAY_USE_TORCH - {"__init__", "__main__"}
    assert not forbidden & MAY_USE_TORCH
    assert TORCH["forbidden_modules"] == ["torch"]


def test_a_process_that_receives_routes_or_delivers_never_loads_torch() -> None:
    """Loading it costs seconds and hundreds of megabytes per process."""
    rooms = "receive assemble route deliver report console audit jobs store config dicom detectors"
    code = f"import sys\nfor room in {rooms.split()!r}: __import__('dicomnode.' + room)\nprint('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == "False"
