"""docs/reliability.md says no more and no less than the tests prove."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINES = [f"R{number}" for number in range(1, 21)]


def rows() -> dict[str, list[str]]:
    """Line to its cells: promise, how, test, measured."""
    found = {}
    table = (ROOT / "docs" / "reliability.md").read_text().partition("## The promises")[2].partition("\n## ")[0]
    for line in table.splitlines():
        match = re.match(r"\| (R\d+) \|", line)
        if match:
            assert match[1] not in found, f"{match[1]} has two rows"
            found[match[1]] = [cell.strip() for cell in line.strip("| ").split(" | ")][1:]
    return found


def docstrings(path: Path) -> dict[str, str]:
    """Name to docstring of every test of a module."""
    tree = ast.parse(path.read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return {node.name: ast.get_docstring(node) or "" for node in functions if node.name.lower().startswith("test")}


def test_every_line_has_one_row_with_four_cells() -> None:
    """The table is whole: R1 to R20, in order, nothing empty."""
    assert list(rows()) == LINES
    assert [line for line, cells in rows().items() if len(cells) != 4 or not all(cells)] == []


@pytest.mark.parametrize("line", LINES)
def test_its_tests_exist_and_name_the_line(line: str) -> None:
    """Each test that the row names exists, and its docstring begins with the line's number."""
    named = re.findall(r"`(tests/\S+?\.py)::(\w+)`", rows()[line][2])
    assert named, f"{line} names no test"
    for file, name in named:
        found = docstrings(ROOT / file)
        assert name in found, f"{file} has no {name}"
        numbers = re.split(r", | and ", found[name].partition(":")[0])
        assert line in numbers, f"{file}::{name} does not begin with {line}"


@pytest.mark.parametrize("line", LINES)
def test_its_figure_is_there(line: str) -> None:
    """A promise without what was measured is no promise."""
    assert re.search(r"\w{3}", rows()[line][3]), f"{line} has no figure"
