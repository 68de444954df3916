"""Small modules, short functions, no drawers for everything, no silent catch-alls."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import dicomnode

PACKAGE = Path(dicomnode.__file__).parent
FILES = sorted(path for path in PACKAGE.rglob("*.py") if "migrations" not in path.parts)
DRAWERS = {"utils", "util", "helpers", "helper", "common", "manager", "base", "misc"}
NAMES = [str(path.relative_to(PACKAGE)) for path in FILES]


def lengths() -> Iterator[tuple[str, int]]:
    """Lines of every function, from ``def`` to its last statement; decorators do not count."""
    for path, name in zip(FILES, NAMES, strict=True):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield f"{name}:{node.name}", (node.end_lineno or node.lineno) - node.lineno + 1


def broad_handlers(source: str) -> list[int]:
    """Lines of ``except`` clauses that swallow everything and give no reason in a comment on their line."""
    lines = source.splitlines()
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ExceptHandler):
            continue
        caught = {name.id for name in ast.walk(node.type) if isinstance(name, ast.Name)} if node.type else {"Exception"}
        reason = re.search(r"#\s*(noqa: BLE001\s*)?[-–]?\s*(\w.*)$", lines[node.lineno - 1])
        passed_on = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
        if caught & {"Exception", "BaseException"} and not passed_on and not (reason and len(reason[2]) > 15):
            found.append(node.lineno)
    return found


def test_the_package_is_looked_at() -> None:
    assert len(FILES) > 50
    assert len(list(lengths())) > 300


@pytest.mark.parametrize("name", NAMES)
def test_no_file_is_longer_than_500_lines(name: str) -> None:
    assert len((PACKAGE / name).read_text().splitlines()) <= 500


def test_half_of_the_files_are_at_most_200_lines() -> None:
    counts = sorted(len(path.read_text().splitlines()) for path in FILES)
    assert counts[len(counts) // 2] <= 200


def test_no_function_is_longer_than_60_lines() -> None:
    assert not [found for found in lengths() if found[1] > 60]


def test_nine_functions_in_ten_are_at_most_20_lines() -> None:
    found = sorted(lengths(), key=lambda item: item[1], reverse=True)
    long = [item for item in found if item[1] > 20]
    assert len(long) <= len(found) / 10, f"{len(long)} of {len(found)} are longer: {long[:20]}"


def test_no_module_is_a_drawer_for_everything() -> None:
    assert not [name for name in NAMES if DRAWERS & set(Path(name).with_suffix("").parts)]


@pytest.mark.parametrize("name", NAMES)
def test_a_broad_except_gives_its_reason(name: str) -> None:
    assert not broad_handlers((PACKAGE / name).read_text())


def test_a_broad_except_without_a_reason_is_found() -> None:
    assert broad_handlers("try:\n    f()\nexcept Exception:\n    pass\n") == [3]
    assert broad_handlers("try:\n    f()\nexcept:\n    pass\n") == [3]
    assert broad_handlers("try:\n    f()\nexcept (ValueError, Exception):  # noqa: BLE001\n    pass\n") == [3]
    assert not broad_handlers("try:\n    f()\nexcept Exception:  # noqa: BLE001 - the edge of this process\n    pass\n")
    assert not broad_handlers("try:\n    f()\nexcept BaseException:\n    undo()\n    raise\n")
    assert not broad_handlers("try:\n    f()\nexcept ValueError:\n    pass\n")
