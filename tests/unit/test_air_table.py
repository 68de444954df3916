"""docs/ihe-air.md claims nothing that no test shows."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from dicomnode.report import build_results
from tests.report_fixtures import context, findings, no_findings, source

ROOT = Path(__file__).parents[2]
TABLE = (ROOT / "docs" / "ihe-air.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in TABLE.splitlines()
    if line.startswith("| ") and not line.startswith(("| # ", "| primitive ", "| what "))
]
STATEMENTS = [f"A{number}" for number in range(1, 17)]
PRIMITIVES = ("Qualitative finding", "Measurement", "Location", "Segmentation", "Parametric Map", "Key Object")
NOT_CLAIMED = ("AIW-I", "RAD-128", "LABELMAP", "FRACTIONAL", "RAD-137")
QUERIED = (
    "ContentDate",
    "ContentTime",
    "ConceptNameCodeSequence",
    "ContentTemplateSequence",
    "SeriesDescription",
    "Manufacturer",
)
_NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def state(row: list[str]) -> str:
    return row[-2]


def test_every_statement_is_answered_once() -> None:
    assert [row[0] for row in ROWS if re.fullmatch(r"A\d+", row[0])] == STATEMENTS


@pytest.mark.parametrize("primitive", PRIMITIVES)
def test_every_primitive_is_answered(primitive: str) -> None:
    assert [row for row in ROWS if row[0].startswith(primitive) and state(row).startswith("done")]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:30])
def test_what_is_done_names_a_test_and_what_is_not_claimed_a_reason(row: list[str]) -> None:
    assert state(row).startswith(("done", "not claimed"))
    if state(row).startswith("done"):
        assert _NAMED.search(row[-1])
    else:
        assert not _NAMED.search(row[-1])
        assert len(row[-1]) > 15


@pytest.mark.parametrize("words", NOT_CLAIMED)
def test_what_was_left_out_is_said(words: str) -> None:
    assert [row for row in ROWS if words in row[0] and state(row) == "not claimed"]


@pytest.mark.parametrize(("file", "name"), sorted(set(_NAMED.findall(TABLE))))
def test_every_test_that_is_named_exists(file: str, name: str) -> None:
    assert name in names_of_tests(ROOT / file)


def names_of_tests(path: Path) -> set[str]:
    """The names of the tests in a module, without importing it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


@pytest.mark.parametrize("modality", ["CT", "DX"])
def test_what_queries_match_is_filled(modality: str) -> None:
    """AIR statement A16: in every document of an analysis, with findings and without."""
    volume, headers = source(modality, 1)
    for result in (findings(volume, ((0,),)), no_findings(volume)):
        built = build_results(volume, headers, result, context(), frozenset({"seg", "sr", "sr-volume", "ko"}))
        documents = [one.dataset for one in built if one.kind != "seg"]
        assert documents
        for document in documents:
            assert all(document.get(keyword) for keyword in QUERIED), document.SeriesDescription
