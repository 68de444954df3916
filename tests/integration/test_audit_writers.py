"""Several processes write one chain, are killed, and lose nothing that they were told is there (trust.md B4 to B6)."""

from __future__ import annotations

import multiprocessing
import random
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from dicomnode.audit import append
from dicomnode.audit.chain import Entry, append_many
from dicomnode.audit.events import Event
from dicomnode.store.engine import BUSY_TIMEOUT_S, Store
from tests.unit.audit_fixtures import check, new_log

EACH = 25
ROUNDS = 6
WRITER = """
import sys
from dicomnode.audit import append
from dicomnode.audit.events import Event
from dicomnode.store.engine import Store

store, number = Store(sys.argv[1]), 0
while True:
    number += 1
    with store.write() as session:
        seq = append(session, Event.INFERENCE, {"writer": sys.argv[2], "number": number})
    print(seq, number, flush=True)
"""


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Store]:
    store = new_log(tmp_path)
    yield store
    store.close()


def by_session(url: str, name: str) -> None:
    store = Store(url)
    for number in range(EACH):
        with store.write() as session:
            append(session, Event.INFERENCE, {"writer": name, "number": number})
    store.close()


def by_transaction(url: str, name: str) -> None:
    """As reception does: several rows in a transaction, over the driver's own connection."""
    store = Store(url)
    for number in range(0, EACH, 5):
        with store.transaction() as connection:
            bodies = ({"writer": name, "number": number + more} for more in range(5))
            append_many(connection, [Entry(Event.INSTANCE_STORED, body, 1.7e9) for body in bodies])
    store.close()


def rows(store: Store) -> list[tuple[int, str, int]]:
    wanted = "SELECT seq, json_extract(body, '$.writer'), json_extract(body, '$.number') FROM audit ORDER BY seq"
    with store.read() as session:
        return [tuple(row) for row in session.execute(text(wanted))]


def test_four_processes_write_one_chain(log: Store) -> None:
    """B4: four processes, of which two write in batches; no fork, no row lost, each writer's rows in its order."""
    spawn = multiprocessing.get_context("spawn")
    duties = {"a": by_session, "b": by_session, "c": by_transaction, "d": by_transaction}
    writers = [spawn.Process(target=duty, args=(log.url, name)) for name, duty in duties.items()]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
        assert writer.exitcode == 0
    verdict = check(log)
    assert (verdict.ok, verdict.rows) == (True, 4 * EACH)
    for name in duties:
        assert [number for _, writer, number in rows(log) if writer == name] == list(range(EACH))


def test_a_writer_without_the_lock_cannot_fork_the_chain(log: Store) -> None:
    """B4: a deferred transaction that read the last hash before another writer came is refused, not written."""
    by_session(log.url, "a")
    late = sqlite3.connect(log.path, isolation_level=None, timeout=0.1)
    late.execute("BEGIN")
    late.execute("SELECT max(seq) FROM audit").fetchone()
    by_session(log.url, "b")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        late.execute("INSERT INTO audit SELECT seq + 1, ts, kind, body, hash, zeroblob(32) FROM audit WHERE seq = 25")
    late.close()
    assert check(log).rows == 2 * EACH


def pragmas(execute: Any) -> dict[str, Any]:
    names = ("journal_mode", "synchronous", "trusted_schema", "foreign_keys", "busy_timeout")
    return {name: execute(f"PRAGMA {name}").fetchone()[0] for name in names}


def test_every_connection_is_as_safe_as_it_has_to_be(log: Store) -> None:
    """B5: WAL, FULL, no trusted schema, a busy timeout; on connections to write, to read and of reception."""
    wanted = {"journal_mode": "wal", "synchronous": 2, "trusted_schema": 0, "foreign_keys": 1}
    waits = wanted | {"busy_timeout": int(BUSY_TIMEOUT_S * 1000)}
    with log.write() as session:
        assert pragmas(session.connection().exec_driver_sql) == waits
    with log.read() as session:
        assert pragmas(session.connection().exec_driver_sql) == waits
    with log.transaction() as connection:
        assert pragmas(connection.execute) == wanted | {"busy_timeout": 0}, "the store itself waits here"


def test_the_lock_is_taken_at_begin(log: Store) -> None:
    """B4: a write transaction holds the lock before its first statement wrote anything."""
    with log.write() as session:
        session.execute(text("SELECT 1"))
        other = sqlite3.connect(log.path, isolation_level=None, timeout=0.1)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        other.close()


def read_acknowledged(writer: subprocess.Popen[str], name: str, into: list[tuple[int, str, int]]) -> None:
    assert writer.stdout is not None
    for line in writer.stdout:
        if line.endswith("\n"):
            seq, number = line.split()
            into.append((int(seq), name, int(number)))


def test_no_acknowledged_row_is_lost_by_sigkill(log: Store) -> None:
    """B5: rounds of two writers killed at any moment; what they said is there, is there, and the chain is whole."""
    dice, acknowledged = random.Random(6), 0
    for number in range(ROUNDS):
        told: list[tuple[int, str, int]] = []
        names = [f"{number}a", f"{number}b"]
        command = [sys.executable, "-c", WRITER, log.url]
        writers = [subprocess.Popen([*command, name], stdout=subprocess.PIPE, text=True) for name in names]
        readers = [
            threading.Thread(target=read_acknowledged, args=(writer, name, told))
            for writer, name in zip(writers, names, strict=True)
        ]
        for reader in readers:
            reader.start()
        enough, pause = dice.randint(1, 30), threading.Event()
        for _ in range(6000):
            if len(told) >= enough:
                break
            pause.wait(0.01)
        pause.wait(dice.random() / 50)
        for writer in writers:
            writer.kill()
            writer.wait(60)
        for reader, writer in zip(readers, writers, strict=True):
            reader.join(60)
            assert writer.stdout is not None
            writer.stdout.close()
        assert len(told) >= enough
        assert set(told) <= set(rows(log))
        assert check(log).ok
        acknowledged += len(told)
    assert check(log).rows >= acknowledged
