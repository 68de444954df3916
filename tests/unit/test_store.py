"""The database: one schema whichever way it was made, and no lost update."""

from __future__ import annotations

import multiprocessing
import re
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from pydicom.datadict import tag_for_keyword
from sqlalchemy import Engine, inspect, select, text
from sqlalchemy.exc import IntegrityError

from dicomnode.errors import ConfigError, Transient
from dicomnode.store.audit_sql import TRIGGERS
from dicomnode.store.engine import BUSY_TIMEOUT_S, Store
from dicomnode.store.schema import migrate
from dicomnode.store.tables import AssignmentRow, ProcessRow, Row, StudyRow

EXPRESSIONS = pytest.mark.filterwarnings("ignore:Skipped unsupported reflection", "ignore:autogenerate skipping")
"""Neither SQLAlchemy nor Alembic reads indexes on expressions; ``described`` compares their SQL."""


def open_store(folder: Path, **options: Any) -> Store:
    return Store(f"sqlite:///{folder / 'x.sqlite3'}", **options)


@pytest.fixture
def store(tmp_path: Path):
    made = open_store(tmp_path)
    migrate(made)
    yield made
    made.close()


def add_study(store: Store, uid: str) -> None:
    with store.write() as session:
        session.add(StudyRow(StudyInstanceUID=uid, created_at=0.0))


def described(engine: Engine) -> dict[str, Any]:
    """Columns, constraints and indexes of every table, and the SQL of every trigger."""
    inspector = inspect(engine)
    tables = set(inspector.get_table_names()) - {"alembic_version"}
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT name, sql FROM sqlite_master WHERE type IN ('trigger', 'index')")).all()
    return {
        "sql": {name: " ".join(sql.split()) for name, sql in rows if sql},
        **{
            table: {
                "columns": [
                    {**column, "type": str(column["type"])} for column in inspector.get_columns(table)
                ],
                "key": inspector.get_pk_constraint(table),
                "foreign": sorted(map(str, inspector.get_foreign_keys(table))),
                "unique": sorted(map(str, inspector.get_unique_constraints(table))),
            }
            for table in tables
        },
    }  # fmt: skip


@EXPRESSIONS
def test_a_migrated_schema_is_the_fresh_schema(tmp_path: Path, store: Store) -> None:
    fresh = Store(f"sqlite:///{tmp_path}/fresh.sqlite3")
    with fresh.engine.begin() as connection:
        Row.metadata.create_all(connection)
    assert described(fresh.engine) == described(store.engine)
    assert {"job", "audit", "delivery"} < set(described(store.engine))
    fresh.close()


@EXPRESSIONS
def test_alembic_finds_nothing_left_to_migrate(store: Store) -> None:
    with store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        found = compare_metadata(context, Row.metadata)
    assert found == []


@EXPRESSIONS
def test_the_comparison_would_notice_a_difference(tmp_path: Path, store: Store) -> None:
    before = described(store.engine)
    with store.engine.begin() as connection:
        connection.exec_driver_sql("DROP INDEX ix_series_study_id")
    assert described(store.engine) != before


def test_migrating_twice_changes_nothing(store: Store) -> None:
    add_study(store, "1.2.3")
    migrate(store)
    assert store.scalar(select(StudyRow.StudyInstanceUID)) == "1.2.3"


def test_a_schema_of_a_newer_version_is_refused_and_left_alone(store: Store) -> None:
    with store.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(ConfigError, match="newer"):
        migrate(store)
    assert store.scalar(text("SELECT version_num FROM alembic_version")) == "9999"


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.sqlite3").write_bytes(b"not a database" * 1000)
    with pytest.raises(ConfigError, match="not a database"):
        migrate(open_store(tmp_path))


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="folder cannot be made"):
        migrate(Store(f"sqlite:///{tmp_path}/file/x.sqlite3"))


@pytest.mark.parametrize("url", ["", "nonsense", "sqlite://", "postgresql://h/db", "mysql+pymysql://h/db"])
def test_only_sqlite_files_are_taken(url: str) -> None:
    with pytest.raises(ConfigError, match=r"node\.database"):
        Store(url)


@pytest.mark.parametrize("name", [*TRIGGERS])
def test_the_start_is_refused_without_a_trigger(store: Store, name: str) -> None:
    with store.engine.begin() as connection:
        connection.exec_driver_sql(f"DROP TRIGGER {name}")
    with pytest.raises(ConfigError, match=name):
        migrate(store)


def test_the_start_is_refused_with_an_altered_trigger(store: Store) -> None:
    with store.engine.begin() as connection:
        connection.exec_driver_sql("DROP TRIGGER audit_no_update")
        connection.exec_driver_sql("CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit BEGIN SELECT 1; END")
    with pytest.raises(ConfigError, match="audit_no_update"):
        migrate(store)


def test_the_start_is_refused_with_a_foreign_trigger_that_could_swallow_rows(store: Store) -> None:
    with store.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TRIGGER quiet BEFORE INSERT ON AUDIT BEGIN SELECT RAISE(IGNORE); END")
    with pytest.raises(ConfigError, match="quiet"):
        migrate(store)


def test_every_connection_is_durable_and_checks_foreign_keys(store: Store) -> None:
    """trust.md B5: WAL and synchronous FULL, a time-out, no trust in the schema."""
    wanted = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "trusted_schema": 0, "busy_timeout": 30000}
    for transaction in (store.read, store.write):
        with transaction() as session:
            assert {name: session.scalar(text(f"PRAGMA {name}")) for name in wanted} == wanted


def test_a_row_without_its_parent_is_refused(store: Store) -> None:
    with pytest.raises(IntegrityError), store.write() as session:
        session.add(AssignmentRow(series_id=99, generation=1, route="r", send_to=[], created_at=0.0))


def test_a_transaction_that_raises_leaves_nothing(store: Store) -> None:
    def break_off() -> None:
        with store.write() as session:
            session.add(StudyRow(StudyInstanceUID="1.2.3", created_at=0.0))
            session.flush()
            raise LookupError

    with pytest.raises(LookupError):
        break_off()
    assert store.scalar(select(StudyRow.id)) is None


def test_a_reader_keeps_its_snapshot_and_does_not_wait(store: Store) -> None:
    with store.read() as session:
        assert session.scalars(select(StudyRow.id)).all() == []
        add_study(store, "1.2.3")
        assert session.scalars(select(StudyRow.id)).all() == []
    assert store.scalar(select(StudyRow.StudyInstanceUID)) == "1.2.3"


def test_a_writer_holds_the_lock_from_its_first_read_on(store: Store) -> None:
    """Without BEGIN IMMEDIATE a SELECT would read before the lock, and the write would be lost or refused."""
    with store.write() as session:
        session.scalar(select(StudyRow.id))
        other = sqlite3.connect(store.path, timeout=0)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        other.close()


def test_a_lock_beyond_the_time_out_is_transient(tmp_path: Path, store: Store) -> None:
    """trust.md R4."""
    hasty = open_store(tmp_path, busy_timeout_s=0.05)
    with store.write() as session:
        session.scalar(select(StudyRow.id))
        started = time.monotonic()
        with pytest.raises(Transient, match="locked"):
            add_study(hasty, "1.2.3")
        assert time.monotonic() - started < BUSY_TIMEOUT_S
    add_study(hasty, "1.2.3")
    hasty.close()


def test_a_full_database_is_transient(store: Store) -> None:
    """SQLite's own page limit stands for a full disk: the same SQLITE_FULL."""
    many = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) INSERT INTO study "
        "(StudyInstanceUID, PatientID, AccessionNumber, StudyDate, StudyDescription, created_at) "
        "SELECT i, '', '', '', hex(zeroblob(4000)), 0 FROM n"
    )

    def fill() -> None:
        with store.write() as session:
            session.execute(text("PRAGMA max_page_count = 1"))
            session.execute(text(many))

    with pytest.raises(Transient, match="full"):
        fill()
    assert store.scalar(select(StudyRow.id)) is None


def count_up(store: Store, times: int) -> None:
    """Read, then write what was read plus one: the step that loses updates without a lock."""
    for _ in range(times):
        with store.write() as session:
            row = session.get_one(ProcessRow, "counter")
            seen = row.pid
            time.sleep(0.0005)
            row.pid = seen + 1


def count_up_in_process(url: str, times: int) -> None:
    store = Store(url)
    count_up(store, times)
    store.close()


def start_counter(store: Store) -> None:
    with store.write() as session:
        session.add(ProcessRow(owner="counter", role="work", pid=0, started_at=0.0, heartbeat_at=0.0))


def test_threads_lose_no_update(store: Store) -> None:
    start_counter(store)
    threads = [threading.Thread(target=count_up, args=(store, 25)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.scalar(select(ProcessRow.pid)) == 100


def test_processes_lose_no_update(store: Store) -> None:
    start_counter(store)
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=count_up_in_process, args=(store.url, 25)) for _ in range(2)]
    for process in processes:
        process.start()
    count_up(store, 25)
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    assert store.scalar(select(ProcessRow.pid)) == 75


def migrate_in_process(url: str) -> None:
    store = Store(url)
    migrate(store)
    store.close()


def test_two_processes_may_start_on_a_new_database_at_once(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=migrate_in_process, args=(f"sqlite:///{tmp_path}/n.sqlite3",)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]


def test_dicom_values_keep_their_keyword_as_column_name() -> None:
    """A column in capitals is a DICOM keyword; anything else is lower case."""
    names = {column.name for table in Row.metadata.tables.values() for column in table.columns}
    strays = {name for name in names if not re.fullmatch(r"[a-z0-9_]+", name) and tag_for_keyword(name) is None}
    assert strays == {"CallingAETitle", "CalledAETitle"}
