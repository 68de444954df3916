"""The audit log: what is written stays, and whatever is changed is found."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import multiprocessing
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Text, text
from sqlalchemy.exc import IntegrityError

from dicomnode.audit import AuditFilter, append, check_against, export_csv, find, write_checkpoint
from dicomnode.audit.chain import GENESIS, canonical, row_hash
from dicomnode.audit.events import Event
from dicomnode.errors import ConfigError, Permanent, Transient
from dicomnode.store.audit_sql import TRIGGERS
from dicomnode.store.engine import Store
from dicomnode.store.schema import migrate
from tests.unit.audit_fixtures import START, check, intruder, loosen, new_log


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Store]:
    store = new_log(tmp_path, 6)
    yield store
    store.close()


def raw_rows(store: Store) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(store.path)
    rows = connection.execute("SELECT seq, ts, kind, body, prev, hash FROM audit ORDER BY seq").fetchall()
    connection.close()
    return rows


def found(store: Store, **options: Any) -> list[int]:
    with store.read() as session:
        return [row["seq"] for row in find(session, AuditFilter(**options))]


def exported(store: Store, **options: Any) -> list[dict[str, str]]:
    target = io.StringIO(newline="")
    with store.read() as session:
        count = export_csv(session, AuditFilter(**options), target)
    rows = list(csv.DictReader(io.StringIO(target.getvalue(), newline="")))
    assert len(rows) == count
    return rows


# The chain


def test_an_empty_log_is_good(tmp_path: Path) -> None:
    verdict = check(new_log(tmp_path))
    assert (verdict.ok, verdict.rows, verdict.head) == (True, 0, bytes(32))


def test_the_chain_can_be_computed_by_anybody_from_the_documented_rule(log: Store) -> None:
    """B1: computed here without the code under test."""
    prev = bytes(32)
    for number, (seq, ts, kind, body, stored_prev, stored_hash) in enumerate(raw_rows(log), 1):
        text_of_row = json.dumps([seq, ts, kind, body], separators=(",", ":"), ensure_ascii=False)
        assert (seq, stored_prev) == (number, prev)
        prev = hashlib.sha256(b"\x00" + prev + text_of_row.encode("utf-8")).digest()
        assert stored_hash == prev
    verdict = check(log)
    assert (verdict.ok, verdict.rows, verdict.head, verdict.first_bad) == (True, 6, prev, None)


def test_the_hash_of_a_known_row_is_a_known_answer() -> None:
    """Old logs must stay verifiable for as long as they are kept. Computed with printf and sha256sum."""
    ts = "2026-01-01T00:00:00.000000+00:00"
    known = "791318d3d2806668a2586899ab43ebd4a7670847be55ba4f5ffd15384765385c"
    assert row_hash(GENESIS, 1, ts, "inference", '{"PatientID":"Ä1"}').hex() == known


def test_canonical_json_is_sorted_dense_and_readable() -> None:
    assert canonical({"b": [1, 2.5, None, True], "a": "Ünal", "ä": {"z": 1, "y": 2}}) == (
        '{"a":"Ünal","b":[1,2.5,null,true],"ä":{"y":2,"z":1}}'
    )
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical(float("nan"))


def test_times_are_utc_with_microseconds(tmp_path: Path) -> None:
    store = new_log(tmp_path)
    with store.write() as session:
        append(session, Event.INFERENCE, {}, datetime(2026, 1, 1, 1, 30, tzinfo=timezone(timedelta(hours=2))))
    assert raw_rows(store)[0][1] == "2025-12-31T23:30:00.000000+00:00"


def test_text_that_utf8_cannot_hold_does_not_stop_the_log(tmp_path: Path) -> None:
    """A value decoded with surrogates must not make a C-STORE fail."""
    store = new_log(tmp_path)
    with store.write() as session:
        append(session, Event.INFERENCE, {"PatientID": "A\udcffB", "text": "\0\n\u2028"})
    assert check(store).ok
    assert found(store, patient="A?B") == [1]
    assert exported(store)[0]["PatientID"] == "A?B"


def test_a_row_lives_and_dies_with_the_transaction_it_records(log: Store) -> None:
    """B6: no row of a change that did not happen."""

    def break_off() -> None:
        with log.write() as session:
            append(session, Event.INFERENCE, {})
            raise LookupError

    with pytest.raises(LookupError):
        break_off()
    assert check(log).rows == 6


def add_rows(store: Store, name: str, times: int) -> None:
    for number in range(times):
        with store.write() as session:
            append(session, Event.INSTANCE_STORED, {"writer": name, "number": number})


def add_rows_in_process(url: str, name: str, times: int) -> None:
    store = Store(url)
    add_rows(store, name, times)
    store.close()


def test_processes_and_threads_append_without_a_fork(tmp_path: Path) -> None:
    """B4: nobody reads a last hash that another writer is about to continue."""
    store = new_log(tmp_path)
    spawn = multiprocessing.get_context("spawn")
    writers: list[Any] = [spawn.Process(target=add_rows_in_process, args=(store.url, f"p{n}", 30)) for n in range(2)]
    writers += [threading.Thread(target=add_rows, args=(store, f"t{n}", 30)) for n in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    verdict = check(store)
    assert (verdict.ok, verdict.rows) == (True, 120)
    with store.read() as session:
        order = [(row["body"]["writer"], row["body"]["number"]) for row in find(session, AuditFilter())]
    for name in ("p0", "p1", "t0", "t1"):
        assert [number for writer, number in order if writer == name] == list(range(30))


# The triggers


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET body = '{}' WHERE seq = 3",
        "UPDATE OR REPLACE audit SET seq = 1 WHERE seq = 3",
        "UPDATE audit SET hash = hash",
        "DELETE FROM audit WHERE seq = 6",
        "DELETE FROM audit",
        "REPLACE INTO audit SELECT seq, ts, kind, '{}', prev, hash FROM audit WHERE seq = 3",
        "INSERT OR REPLACE INTO audit SELECT 6, ts, kind, '{}', prev, zeroblob(32) FROM audit WHERE seq = 6",
        "REPLACE INTO audit SELECT 7, 0, 0, 0, a.hash, b.hash FROM audit a, audit b WHERE a.seq = 6 AND b.seq = 2",
        "INSERT OR REPLACE INTO audit SELECT 7, ts, kind, body, hash, hash FROM audit WHERE seq = 6",
        "INSERT INTO audit SELECT * FROM audit WHERE seq = 3 ON CONFLICT (seq) DO UPDATE SET body = '{}'",
        "INSERT INTO audit SELECT 8, ts, kind, body, hash, zeroblob(32) FROM audit WHERE seq = 6",
        "INSERT INTO audit SELECT 7, ts, kind, body, prev, zeroblob(32) FROM audit WHERE seq = 6",
        "INSERT INTO audit SELECT 0, ts, kind, body, zeroblob(32), zeroblob(32) FROM audit WHERE seq = 6",
        "INSERT INTO audit SELECT NULL, ts, kind, body, hash, zeroblob(32) FROM audit WHERE seq = 6",
        "INSERT INTO audit SELECT 7, ts, kind, body, NULL, zeroblob(32) FROM audit WHERE seq = 6",
    ],
)
def test_the_table_takes_nothing_but_the_next_row(log: Store, statement: str) -> None:
    """B2: INSERT OR REPLACE deletes by the same seq or the same hash, without firing a delete trigger."""
    before = raw_rows(log)
    with intruder(log, keep_triggers=True) as connection, pytest.raises(sqlite3.IntegrityError):
        connection.execute(statement)
    assert raw_rows(log) == before
    assert check(log).ok


def test_the_node_itself_cannot_change_a_row(log: Store) -> None:
    with pytest.raises(IntegrityError, match="append-only"), log.write() as session:
        session.execute(text("UPDATE audit SET body = '{}' WHERE seq = 1"))


@pytest.mark.parametrize("name", TRIGGERS)
def test_verify_names_a_missing_trigger(log: Store, name: str) -> None:
    with intruder(log, keep_triggers=True) as connection:
        connection.execute(f"DROP TRIGGER {name}")
    verdict = check(log)
    assert not verdict.ok
    assert verdict.first_bad is None
    assert name in verdict.reason


def test_verify_names_a_trigger_that_swallows_new_rows(log: Store) -> None:
    with intruder(log, keep_triggers=True) as connection:
        connection.execute("CREATE TRIGGER quiet BEFORE INSERT ON audit BEGIN SELECT RAISE(IGNORE); END")
    assert "quiet" in check(log).reason


@pytest.mark.filterwarnings("ignore:Skipped unsupported reflection")
def test_a_batch_migration_loses_the_triggers_and_the_start_is_refused(log: Store) -> None:
    """B3: Alembic rebuilds the table on SQLite; a migration that forgets the triggers must not pass."""
    with log.engine.begin() as connection:
        operations = Operations(MigrationContext.configure(connection))
        with operations.batch_alter_table("audit", recreate="always") as batch:
            batch.alter_column("kind", existing_type=Text(), nullable=True)
    with pytest.raises(ConfigError, match="audit_no_update, audit_no_delete, audit_chain"):
        migrate(log)
    assert "audit_no_update" in check(log).reason


# Tampering


def test_an_edited_row_is_named(log: Store) -> None:
    with intruder(log) as connection:
        connection.execute("UPDATE audit SET body = replace(body, 'P1', 'P2') WHERE seq = 4")
    verdict = check(log)
    assert (verdict.first_bad, verdict.rows, verdict.reason) == (4, 3, "its content does not match its hash")


def test_an_edited_row_with_its_own_hash_recomputed_is_found_at_the_next_one(log: Store) -> None:
    _seq, ts, kind, _body, prev, _hash = raw_rows(log)[2]
    with intruder(log) as connection:
        forged = row_hash(prev, 3, ts, kind, "{}")
        connection.execute("UPDATE audit SET body = '{}', hash = ? WHERE seq = 3", (forged,))
    verdict = check(log)
    assert (verdict.first_bad, verdict.reason) == (4, "it does not follow from the row before it")


def test_a_removed_row_is_named(log: Store) -> None:
    with intruder(log) as connection:
        connection.execute("DELETE FROM audit WHERE seq = 3")
    assert (check(log).first_bad, check(log).reason) == (3, "row 3 is missing, the next one is 4")


def test_a_removed_row_with_the_others_renumbered_is_found(log: Store) -> None:
    with intruder(log) as connection:
        connection.execute("DELETE FROM audit WHERE seq = 3")
        connection.execute("UPDATE audit SET seq = seq - 1 WHERE seq > 3")
    assert check(log).first_bad == 3


def test_rows_that_changed_places_are_found(log: Store) -> None:
    with intruder(log) as connection:
        connection.execute("UPDATE audit SET seq = 100 WHERE seq = 2")
        connection.execute("UPDATE audit SET seq = 2 WHERE seq = 5")
        connection.execute("UPDATE audit SET seq = 5 WHERE seq = 100")
    assert check(log).first_bad == 2


@pytest.mark.parametrize("seq", [0, -5])
def test_a_row_before_the_first_is_found(log: Store, seq: int) -> None:
    with intruder(log) as connection:
        connection.execute(
            "INSERT INTO audit SELECT ?, ts, kind, body, prev, zeroblob(32) FROM audit WHERE seq = 1", (seq,)
        )
    assert (check(log).first_bad, check(log).reason) == (seq, "it lies before the first row")


@pytest.mark.parametrize("column", ["ts", "kind", "body", "prev", "hash"])
@pytest.mark.parametrize(
    "value",
    ["NULL", "5", "1e12", "9223372036854775807", "'text'", "x'ff'", "''", "CAST(x'ff00fe' AS TEXT)", "zeroblob(32)"],
)
def test_whatever_an_intruder_leaves_in_a_column_is_an_answer_and_no_crash(log: Store, column: str, value: str) -> None:
    """NULL, a number (bytes(10**12) would ask for a terabyte), bytes that are no text: the row is named."""
    with intruder(log) as connection:
        loosen(connection)
        connection.execute(f"UPDATE audit SET {column} = {value} WHERE seq = 3")
    verdict = check(log)
    assert (verdict.first_bad, verdict.rows) == (3, 2)
    assert found(log) == [1, 2, 3, 4, 5, 6]
    assert found(log, patient="P1", limit=5)
    assert len(exported(log)) == 6
    with log.read() as session:
        assert check_against(session, [canonical({"size": 3, "hash": "fe" * 32})])


@pytest.mark.parametrize("value", ["7", "'text'", "CAST(x'ff00fe' AS TEXT)"])
def test_a_last_hash_that_is_no_hash_stops_the_log_with_a_plain_reason(log: Store, value: str) -> None:
    with intruder(log) as connection:
        loosen(connection)
        connection.execute(f"UPDATE audit SET hash = {value} WHERE seq = 6")
    with pytest.raises(Permanent, match="continue the chain"):
        add_rows(log, "x", 1)
    assert check(log).first_bad == 6


def test_a_last_hash_that_could_be_one_is_found_even_if_the_log_goes_on(log: Store) -> None:
    with intruder(log) as connection:
        connection.execute("UPDATE audit SET hash = zeroblob(32) WHERE seq = 6")
    add_rows(log, "x", 1)
    assert check(log).first_bad == 6


def test_deeply_nested_json_is_shown_as_text(log: Store) -> None:
    with intruder(log) as connection:
        connection.execute("UPDATE audit SET body = ? WHERE seq = 3", ("[" * 100_000,))
    assert check(log).first_bad == 3
    with log.read() as session:
        assert isinstance(next(iter(find(session, AuditFilter(seq=3))))["body"], str)
    assert len(exported(log)) == 6


def test_the_sqlite3_shell_edits_one_byte_and_the_row_is_named(log: Store) -> None:
    """The promise of the log, with the tool an intruder would take."""
    shell = shutil.which("sqlite3")
    if shell is None:
        pytest.skip("the sqlite3 shell is not installed")
    script = "\n".join(f"DROP TRIGGER {name};" for name in TRIGGERS)
    script += "\nUPDATE audit SET body = replace(body, 'P1', 'P7') WHERE seq = 4;\n"
    script += ";\n".join(TRIGGERS.values()) + ";\n"
    subprocess.run([shell, "-bail", str(log.path)], input=script, text=True, check=True, timeout=120)
    assert "P7" in raw_rows(log)[3][3]
    verdict = check(log)
    assert (verdict.ok, verdict.first_bad) == (False, 4)


# Checkpoints


def checkpoints(store: Store, path: Path) -> list[str]:
    with store.read() as session:
        write_checkpoint(session, path, "DICOMNODE")
    return path.read_text().splitlines()


def disagreement(store: Store, lines: list[str]) -> str:
    with store.read() as session:
        return check_against(session, lines)


def test_a_checkpoint_states_size_and_head(log: Store, tmp_path: Path) -> None:
    entry = json.loads(checkpoints(log, tmp_path / "far" / "c.jsonl")[0])
    assert (entry["size"], entry["hash"], entry["origin"]) == (6, check(log).head.hex(), "DICOMNODE")
    assert datetime.fromisoformat(entry["time"]).tzinfo == UTC


def test_checkpoints_of_a_growing_log_all_hold(log: Store, tmp_path: Path) -> None:
    for _ in range(3):
        lines = checkpoints(log, tmp_path / "c.jsonl")
        add_rows(log, "x", 2)
    assert len(lines) == 3
    assert disagreement(log, [*lines, ""]) == ""


def test_a_checkpoint_of_an_empty_log_holds_for_ever(tmp_path: Path) -> None:
    store = new_log(tmp_path)
    lines = checkpoints(store, tmp_path / "c.jsonl")
    add_rows(store, "x", 1)
    assert disagreement(store, lines) == ""


def test_a_cut_tail_is_found_by_a_checkpoint_only(log: Store, tmp_path: Path) -> None:
    """B7: the chain alone does not find it."""
    lines = checkpoints(log, tmp_path / "c.jsonl")
    with intruder(log) as connection:
        connection.execute("DELETE FROM audit WHERE seq > 4")
    assert check(log).ok
    assert disagreement(log, lines) == "checkpoint line 1: the log was cut, row 6 is gone"


def test_a_log_rewritten_as_a_whole_is_found_by_a_checkpoint_only(log: Store, tmp_path: Path) -> None:
    """B7: a chain that was computed anew is a good chain; only the checkpoint remembers the other one."""
    lines = checkpoints(log, tmp_path / "c.jsonl")
    rows, prev = raw_rows(log), GENESIS
    with intruder(log) as connection:
        for seq, ts, kind, body, _prev, _hash in rows:
            forged = body.replace("P1", "P2")
            digest = row_hash(prev, seq, ts, kind, forged)
            connection.execute(
                "UPDATE audit SET body = ?, prev = ?, hash = ? WHERE seq = ?", (forged, prev, digest, seq)
            )
            prev = digest
    assert check(log).ok
    assert disagreement(log, lines) == "checkpoint line 1: row 6 is not the row that was written"


@pytest.mark.parametrize("line", ["nonsense", "[]", "{}", '{"size": 1}', '{"size": 1, "hash": "zz"}', '{"size": null}'])
def test_a_line_that_is_no_checkpoint_is_an_error(log: Store, line: str) -> None:
    with pytest.raises(Permanent, match="line 1"):
        disagreement(log, [line])


def test_a_checkpoint_that_cannot_be_written_is_tried_again(log: Store, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Transient, match="cannot be written"):
        checkpoints(log, tmp_path / "file" / "c.jsonl")


# Questions and export


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [1, 2, 3, 4, 5, 6]),
        ({"patient": "P1"}, [1, 4]),
        ({"patient": "p1"}, []),
        ({"study": "1.2.5"}, [5]),
        ({"event": "inference"}, [1, 3, 5]),
        ({"event": "instance_stored"}, [2, 4, 6]),
        ({"event": "INSTANCE STORED"}, [2, 4, 6]),
        ({"since": "2026-01-01T00:03"}, [3, 4, 5, 6]),
        ({"until": "2026-01-01T00:03"}, [1, 2]),
        ({"since": "2026-01-01T02:03+02:00", "until": "2026-01-01T00:05Z"}, [3, 4]),
        ({"since": "2026-01-02"}, []),
        ({"until": "2026-01-02"}, [1, 2, 3, 4, 5, 6]),
        ({"seq": 4}, [4]),
        ({"limit": 2}, [5, 6]),
        ({"patient": "P1", "limit": 1}, [4]),
        ({"patient": "P1", "event": "inference"}, [1]),
        ({"patient": "' OR 1 = 1 --"}, []),
    ],
)
def test_filters_choose_rows(log: Store, options: dict[str, Any], expected: list[int]) -> None:
    assert found(log, **options) == expected
    assert [int(row["seq"]) for row in exported(log, **options)] == expected


def test_a_time_that_is_none_is_an_error(log: Store) -> None:
    with pytest.raises(Permanent, match="ISO 8601"):
        found(log, since="yesterday")


def test_a_found_row_is_plain(log: Store) -> None:
    with log.read() as session:
        row = next(iter(find(session, AuditFilter(seq=1))))
    assert row["body"] == {"PatientID": "P1", "StudyInstanceUID": "1.2.1", "text": "Grün"}
    assert (row["ts"], row["kind"]) == ((START + timedelta(minutes=1)).isoformat(timespec="microseconds"), "inference")
    assert row["prev"] == "00" * 32


def test_the_hashes_can_be_computed_again_from_the_csv(log: Store) -> None:
    prev = GENESIS
    for row in exported(log):
        prev = row_hash(prev, int(row["seq"]), row["ts"], row["kind"], row["body"])
        assert row["hash"] == prev.hex()


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_a_formula_in_a_patient_id_does_nothing_in_a_spreadsheet(tmp_path: Path, start: str) -> None:
    """trust.md S16."""
    store = new_log(tmp_path)
    value = f"{start}cmd|' /C calc'!A0"
    with store.write() as session:
        append(session, Event.INFERENCE, {"PatientID": value, "StudyInstanceUID": '=HYPERLINK("x")'})
    row = exported(store)[0]
    escaped = start.encode("unicode_escape").decode() + value[1:]
    assert row["PatientID"] == (f"'{value}" if start in "=+-@" else escaped)
    assert row["StudyInstanceUID"].startswith("'=")
    assert all(cell[:1] not in ("=", "+", "-", "@", "\t", "\r", "\n") for cell in row.values())
