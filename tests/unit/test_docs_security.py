"""docs/security.md keeps its word: every line has a row, every row names tests that exist and carry its number."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "security.md"
LINES = range(1, 23)
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def rows() -> dict[int, list[str]]:
    """The cells of each row of the table, by the number of its line."""
    found: dict[int, list[str]] = {}
    for text in DOCUMENT.read_text(encoding="utf-8").splitlines():
        match = re.match(r"\| S(\d+) \|", text)
        if match:
            assert int(match[1]) not in found, f"S{match[1]} has two rows"
            found[int(match[1])] = [cell.strip() for cell in re.split(r"(?<!\\)\|", text)[1:-1]]
    return found


@cache
def docstrings_of(path: str) -> dict[str, str]:
    """The tests of a file and their docstrings."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {
        node.name: ast.get_docstring(node) or ""
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def named(number: int) -> list[tuple[str, str]]:
    return _TEST.findall(rows()[number][3])


def test_every_line_has_one_row() -> None:
    """S1 to S22 are all there, and nothing that is no line."""
    assert sorted(rows()) == list(LINES)


@pytest.mark.parametrize("number", LINES)
def test_every_cell_is_filled(number: int) -> None:
    """A promise without a way, a test and a figure is none."""
    cells = rows()[number]
    assert len(cells) == 5
    assert all(len(cell) > 1 for cell in cells)
    assert "to be filled" not in " ".join(cells)


@pytest.mark.parametrize("number", LINES)
def test_the_named_tests_exist(number: int) -> None:
    """A row cannot lean on a test that was renamed or removed."""
    assert named(number), f"S{number} names no test"
    for path, name in named(number):
        assert (ROOT / path).is_file(), path
        assert name in docstrings_of(path), f"{path} has no {name}"


@pytest.mark.parametrize("number", LINES)
def test_a_named_test_carries_the_number(number: int) -> None:
    """Whoever reads the test finds the line, and the other way round."""
    numbers = rf"(?:[SR]\d+, )*S{number}\b(?:, [SR]\d+)*:"
    carried = [name for path, name in named(number) if re.match(numbers, docstrings_of(path)[name])]
    assert carried, f"no test of S{number} has a docstring that begins with its number"
