"""docs/methods.md: every row of the papers is done by a named module with a test, or says why not."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicomnode.detectors.methods.catalogue import catalogue
from tests.docs_methods.document import DOCUMENT, SETS, methods_table, part_of, places, rows_tables
from tests.docs_methods.rows import ROWS, Row

ROOT = DOCUMENT.parents[1]
NUMBERS = (
    *(f"000-{i}" for i in range(1, 14)),
    *(f"001-{i}" for i in range(1, 8)),
    *(f"001-L{i}" for i in range(1, 7)),
    *(f"002-{i}" for i in range(1, 40)),
    "003",
    "003 baseline",
    *(f"004-{i}" for i in range(1, 16)),
)
"""The rows of the digest of the five papers."""


def test_every_row_of_the_papers_is_there_once_in_order():
    assert [row.number for row in ROWS] == list(NUMBERS)


@pytest.mark.parametrize("row", ROWS, ids=[row.number for row in ROWS])
def test_a_row_names_modules_and_tests_that_exist_or_says_why_not(row: Row):
    claimed = [name for name, entry in catalogue().items() if row.number in entry.rows]
    paths = [*row.also, *row.tests, *(path for name in claimed for path in places()[name])]
    assert paths or row.note.startswith("left out: ")
    for path in paths:
        assert (ROOT / path).is_file(), path


@pytest.mark.parametrize("name", sorted(catalogue()))
def test_a_method_claims_rows_that_exist_and_its_test_names_it(name: str):
    assert set(catalogue()[name].rows) <= set(NUMBERS)
    _, test = places()[name]
    assert f'"{name}"' in (ROOT / test).read_text(encoding="utf-8")


def test_the_tables_are_current():
    """``python -m tests.docs_methods`` writes them."""
    document = DOCUMENT.read_text(encoding="utf-8")
    assert part_of(document, "methods") == methods_table().strip()
    assert part_of(document, "rows") == rows_tables().strip()


@pytest.mark.parametrize("name", SETS)
def test_the_comparison_of_each_set_has_every_method_with_commit_seed_and_time(name: str):
    """Also a method that failed or does not apply is a row."""
    comparison = part_of(DOCUMENT.read_text(encoding="utf-8"), f"comparison {name}")
    for method in catalogue():
        assert f"{method} " in comparison or f"`{method}`" in comparison, method
    for word in ("commit", "seed", "date"):
        assert word in comparison.lower()


def test_the_document_is_linked_from_the_readme():
    assert "docs/methods.md" in Path(ROOT / "README.md").read_text(encoding="utf-8")
