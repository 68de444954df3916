"""The tables of promises (S, R, B and A, D) say no more and no less than the tests prove."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROMISES = {
    "security.md": [f"S{number}" for number in range(1, 23)],
    "reliability.md": [f"R{number}" for number in range(1, 21)],
    "auditors.md": [f"B{number}" for number in range(1, 11)] + [f"A{number}" for number in range(1, 8)],
    "deidentification.md": [f"D{number}" for number in range(1, 26)],
}
LINES = [(document, line) for document, lines in PROMISES.items() for line in lines]
_LINE = r"[A-Z]\d+"
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


@cache
def rows(document: str) -> dict[str, list[str]]:
    """The cells of each row that names tests, behind its line."""
    found: dict[str, list[str]] = {}
    for text in (ROOT / "docs" / document).read_text(encoding="utf-8").splitlines():
        match = re.match(rf"\| ({_LINE}) \|", text)
        if match and _TEST.search(text):
            assert match[1] not in found, f"{match[1]} has two rows"
            found[match[1]] = [cell.strip() for cell in re.split(r"(?<!\\)\|", text)[2:-1]]
    return found


@cache
def docstrings(path: str) -> dict[str, str]:
    """The tests of a module and their docstrings."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    tests = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return {node.name: ast.get_docstring(node) or "" for node in tests if node.name.lower().startswith("test")}


@pytest.mark.parametrize("document", PROMISES)
def test_every_line_has_one_row_in_its_place(document: str) -> None:
    """The tables are whole and in order."""
    assert list(rows(document)) == PROMISES[document]


@pytest.mark.parametrize(("document", "line"), LINES)
def test_every_cell_is_filled(document: str, line: str) -> None:
    """A promise without a way or a test is none; where a table has figures, each row has one."""
    cells = rows(document)[line]
    assert len(cells) == len(next(iter(rows(document).values())))
    assert all(re.search(r"\w{2}", cell) for cell in cells)


@pytest.mark.parametrize(("document", "line"), LINES)
def test_its_tests_exist_and_carry_its_number(document: str, line: str) -> None:
    """A row cannot lean on a test that was renamed; whoever reads the test finds the line."""
    named = _TEST.findall(" ".join(rows(document)[line]))
    assert named, f"{line} names no test"
    for path, name in named:
        assert name in docstrings(path), f"{path} has no {name}"
    numbers = rf"(?:{_LINE}(?:,| and) )*{line}\b(?:(?:,| and) {_LINE})*:"
    carried = [name for path, name in named if re.match(numbers, docstrings(path)[name])]
    assert carried, f"no test of {line} has a docstring that begins with its number"
