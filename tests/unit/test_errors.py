"""One exception tree: whatever the node raises on purpose can be caught as DicomNodeError."""

from __future__ import annotations

import ast
import builtins
import inspect
from pathlib import Path

import pytest

from dicomnode import errors

PACKAGE = Path(errors.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
BUILTIN = {
    name for name, value in vars(builtins).items() if inspect.isclass(value) and issubclass(value, BaseException)
}


def test_the_tree_is_the_one_drawn_at_the_top_of_the_file() -> None:
    drawn = {line.split()[1] for line in (errors.__doc__ or "").splitlines() if line.startswith(("├", "└"))}
    kinds = {name for name, value in vars(errors).items() if inspect.isclass(value)} - {"DicomNodeError"}
    assert kinds == drawn == {"ConfigError", "Refusal", "Transient", "Permanent", "LeaseLost"}
    assert all(getattr(errors, name).__bases__ == (errors.DicomNodeError,) for name in kinds)


def test_a_refusal_carries_its_dimse_status() -> None:
    refusal = errors.Refusal(0xA700, "disk full")
    assert (refusal.status, str(refusal)) == (0xA700, "disk full")
    with pytest.raises(errors.DicomNodeError):
        raise refusal


def test_no_other_module_starts_an_exception_tree_of_its_own() -> None:
    """A class that derives from a built-in exception stands in errors.py only, or is private to one module."""
    strays = []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and path.name != "errors.py":
                names = {base.id for base in node.bases if isinstance(base, ast.Name)}
                strays += [f"{path.name}: {node.name}"] if names & BUILTIN and not node.name.startswith("_") else []
    assert not strays


def test_nothing_raises_a_bare_exception() -> None:
    """An exception says whether a retry helps; Exception and RuntimeError do not."""
    vague = {"Exception", "BaseException", "RuntimeError"}
    found = []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name):
                found += [f"{path.name}:{node.lineno}"] if node.exc.func.id in vague else []
    assert not found
