"""Whichever byte of whichever column is changed, the row is named; whichever rows are taken away, it is found."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from dicomnode.audit import AuditFilter, append, check_against, find, write_checkpoint
from dicomnode.audit.events import Event
from dicomnode.store.engine import Store
from tests.unit.audit_fixtures import check, intruder, new_log

ROWS = 8
COLUMNS = ("ts", "kind", "body", "prev", "hash")
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A good log in one file, and its checkpoint."""
    folder = tmp_path_factory.mktemp("pristine")
    store = new_log(folder, ROWS)
    with store.read() as session:
        write_checkpoint(session, folder / "c.jsonl", "DICOMNODE")
    with store.engine.connect() as connection:
        connection.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    store.close()
    return store.path, (folder / "c.jsonl").read_text().splitlines()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def copy(pristine: tuple[Path, list[str]], folder: Path) -> Store:
    for old in folder.glob("x.sqlite3*"):
        old.unlink()
    shutil.copy(pristine[0], folder / "x.sqlite3")
    return Store(f"sqlite:///{folder / 'x.sqlite3'}")


def opened(pristine: tuple[Path, list[str]], folder: Path) -> Iterator[Store]:
    store = copy(pristine, folder)
    yield store
    store.close()


@QUICK
@given(data=st.data(), seq=st.integers(1, ROWS), column=st.sampled_from(COLUMNS))
def test_any_changed_byte_of_any_column_is_found_and_its_row_named(
    pristine: tuple[Path, list[str]], folder: Path, data: Any, seq: int, column: str
) -> None:
    for store in opened(pristine, folder):
        with intruder(store) as connection:
            select = f"SELECT typeof({column}), CAST({column} AS BLOB) FROM audit WHERE seq = ?"
            kind, old = connection.execute(select, (seq,)).fetchone()
            place, flip = data.draw(st.integers(0, len(old) - 1)), data.draw(st.integers(1, 255))
            new = old[:place] + bytes([old[place] ^ flip]) + old[place + 1 :]
            connection.execute(f"UPDATE audit SET {column} = CAST(? AS {kind}) WHERE seq = ?", (new, seq))
        verdict = check(store)
        assert (verdict.first_bad, verdict.rows) == (seq, seq - 1)
        with store.read() as session:
            assert len(list(find(session, AuditFilter()))) == ROWS


@QUICK
@given(gone=st.sets(st.integers(1, ROWS), min_size=1), renumber=st.booleans())
def test_any_rows_taken_away_are_found_by_the_chain_or_by_the_checkpoint(
    pristine: tuple[Path, list[str]], folder: Path, gone: set[int], renumber: bool
) -> None:
    for store in opened(pristine, folder):
        with intruder(store) as connection:
            connection.executemany("DELETE FROM audit WHERE seq = ?", [(seq,) for seq in gone])
            if renumber:
                left = sorted(set(range(1, ROWS + 1)) - gone)
                moves = [(new, old) for new, old in enumerate(left, 1)]
                connection.executemany("UPDATE audit SET seq = ? WHERE seq = ?", moves)
        verdict = check(store)
        tail_only = min(gone) + len(gone) - 1 == ROWS
        assert verdict.ok == tail_only
        assert tail_only or verdict.first_bad == min(gone)
        with store.read() as session:
            assert "row 8 is gone" in check_against(session, pristine[1]) or not (renumber or ROWS in gone)


@QUICK
@given(order=st.permutations(range(1, ROWS + 1)))
def test_any_other_order_is_found_at_the_first_row_out_of_place(
    pristine: tuple[Path, list[str]], folder: Path, order: list[int]
) -> None:
    assume(order != sorted(order))
    for store in opened(pristine, folder):
        with intruder(store) as connection:
            connection.execute("UPDATE audit SET seq = seq + 1000")
            moves = [(new, old + 1000) for new, old in enumerate(order, 1)]
            connection.executemany("UPDATE audit SET seq = ? WHERE seq = ?", moves)
        expected = next(place for place, seq in enumerate(order, 1) if place != seq)
        assert check(store).first_bad == expected


@QUICK
@given(body=st.dictionaries(st.text(), JSON, max_size=4))
def test_any_body_is_read_back_as_it_was_written_and_verifies(
    pristine: tuple[Path, list[str]], folder: Path, body: dict[str, Any]
) -> None:
    for store in opened(pristine, folder):
        with store.write() as session:
            seq = append(session, Event.INFERENCE, body)
        assert seq == ROWS + 1
        assert check(store).ok
        with store.read() as session:
            assert next(iter(find(session, AuditFilter(seq=seq))))["body"] == body
