"""No question that the node asks often looks at every row of a table that grows for years."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import event

from dicomnode.assemble import sweep
from dicomnode.audit import AuditFilter, append, find
from dicomnode.audit.events import Event
from dicomnode.cli import cli
from dicomnode.config import Config, parse_config
from dicomnode.console.status import read_status
from dicomnode.deliver.commit_worker import CommitWorker
from dicomnode.deliver.outbox import next_job
from dicomnode.jobs import claim, expire, release_owner, waiting
from dicomnode.receive.associations import lose_open
from dicomnode.store.audit_sql import subject_sql
from dicomnode.store.engine import Store
from dicomnode.store.schema import migrate
from dicomnode.store.spool import Spool
from tests.bench.scale import fill, patient_id, study_uid

BIG = "audit|job|instance|series|study|assignment|derived|delivery|association|observation"
COUNTS = {
    "study",
    "series",
    "instance",
    "assignment",
    "job",
    "delivery",
}
"""Tables that ``status`` counts: by an index that holds all it needs, never by the rows themselves."""
SMALL = {"ix_job_retrying", "ix_instance_conflict"}
"""Indexes of a few rows of a big table."""
NOW = 1e9


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A filled database; SQLite plans without statistics, so the plans are those of a full one."""
    made = Store(f"sqlite:///{tmp_path_factory.mktemp('plans')}/x.sqlite3")
    fill(made, 1200, 1000)
    yield made
    made.close()


@pytest.fixture(scope="module")
def config() -> Config:
    text = '[[peer]]\nname = "ct"\nae_title = "CT1"\nhost = "127.0.0.1"\nport = 1\nmay_send = true\n'
    return parse_config(text, "test")[0]


def plans(store: Store, ask: Callable[[], object]) -> list[tuple[str, list[str]]]:
    """(statement, the lines of its plan) for everything that ``ask`` asks."""
    seen: list[tuple[str, Any]] = []

    def hear(_connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool) -> None:
        seen.append((statement, parameters[0] if many else parameters))

    engines = (store._writer, store._reader)
    for engine in engines:
        event.listen(engine, "before_cursor_execute", hear)
    try:
        ask()
    finally:
        for engine in engines:
            event.remove(engine, "before_cursor_execute", hear)
    connection = sqlite3.connect(store.path)
    connection.execute("PRAGMA trusted_schema=OFF")
    asked = [pair for pair in seen if pair[0].split(None, 1)[0] in ("SELECT", "UPDATE", "DELETE", "WITH")]
    found = [
        (statement, [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)])
        for statement, parameters in asked
    ]
    connection.close()
    assert found
    return found


def scans(store: Store, ask: Callable[[], object]) -> list[tuple[str, str, str]]:
    """(table, how, statement) of every look at all rows of a big table."""
    return [
        (match[1], match[2], statement)
        for statement, lines in plans(store, ask)
        for line in lines
        if (match := re.match(rf"SCAN ({BIG})\b *(.*)", line))
    ]


def written(store: Store, step: Callable[[Any], object]) -> Callable[[], object]:
    def ask() -> object:
        with store.write() as session:
            return step(session)

    return ask


def look(store: Store, step: Callable[[Any], object]) -> Callable[[], object]:
    def ask() -> object:
        with store.read() as session:
            return step(session)

    return ask


def test_the_check_notices_a_scan(store: Store) -> None:
    found = scans(store, lambda: list(rows(store, AuditFilter(since="2020-01-01", event="inference"))))
    assert found == []
    bare = look(
        store, lambda session: session.connection().exec_driver_sql("SELECT count(*) FROM audit WHERE body = 1")
    )
    assert [item[0] for item in scans(store, bare)] == ["audit"]


def rows(store: Store, wanted: AuditFilter) -> list[dict[str, Any]]:
    with store.read() as session:
        return list(find(session, wanted))


def test_a_claim_takes_the_first_entry_of_its_index(store: Store) -> None:
    """Done jobs, jobs of other kinds and jobs put off cost nothing: no sorting, no table but the row itself."""
    asked = plans(store, written(store, lambda session: claim(session, ("detect", "route"), "w", NOW, 60.0)))
    assert [lines for statement, lines in asked if statement.startswith("SELECT")] == [
        ["SEARCH job USING INDEX ix_job_claim (kind=?)"]
    ] * 2


@pytest.mark.parametrize(
    "step",
    [
        lambda session: claim(session, ("detect",), "w", NOW, 60.0),
        lambda session: waiting(session, ("count", "route", "status"), NOW),
        lambda session: expire(session, NOW),
        lambda session: release_owner(session, "w", NOW, crashed=False),
        lambda session: next_job(session, (), NOW),
        lambda session: lose_open(session, NOW),
    ],
    ids=["claim", "waiting", "expire", "release", "next delivery", "start"],
)
def test_what_workers_ask_all_the_time_scans_nothing(store: Store, step: Callable[[Any], object]) -> None:
    assert scans(store, written(store, step)) == []


def test_a_start_after_a_crash_looks_back_no_further_than_the_oldest_open_association(store: Store) -> None:
    """The index of times, not that of kinds, which holds every Instance ever."""
    with store.write() as session:
        session.connection().exec_driver_sql("UPDATE association SET ended = 'open', opened_at = 1700000000")
    asked = plans(store, written(store, lambda session: lose_open(session, NOW)))
    of_audit = [line for statement, lines in asked for line in lines if "audit" in line and "hash" not in statement]
    assert of_audit
    assert all("ix_audit_ts" in line for line in of_audit), of_audit


def test_the_sweep_scans_nothing(store: Store, config: Config) -> None:
    with store.write() as session:
        session.connection().exec_driver_sql("UPDATE series SET last_received_at = 999999995 WHERE state = 'open'")
    asked = []
    found = scans(store, lambda: asked.append(sweep(store, config, NOW)))
    assert found == []


def test_the_worker_of_storage_commitment_scans_nothing(store: Store, config: Config) -> None:
    worker = CommitWorker(config, store, "w", lambda: NOW)
    assert scans(store, worker.step) == []


def test_status_counts_by_indexes_alone(store: Store, config: Config, tmp_path: Path) -> None:
    """A look at all rows is a count by an index that covers it, or the newest few of an order."""
    for table, how, statement in scans(store, lambda: read_status(config, store, Spool(tmp_path), NOW)):
        covering = how.startswith("USING COVERING INDEX") and table in COUNTS
        few = any(name in how for name in SMALL)
        newest = how.startswith("USING INDEX") and "LIMIT" in statement
        sums = table == "association" and "sum(" in statement
        assert covering or few or newest or sums, f"{table} {how}: {statement}"


@pytest.mark.parametrize("more", [{}, {"event": "inference"}, {"limit": 200}, {"since": "2020-01-01"}])
@pytest.mark.parametrize(
    ("about", "index"), [({"patient": patient_id(1)}, "PatientID"), ({"study": study_uid(1)}, "StudyInstanceUID")]
)
def test_questions_by_subject_go_by_its_index(store: Store, about: Any, index: str, more: Any) -> None:
    """trust.md: what happened to this patient, this study? Answered without reading the log."""
    lines = [line for _, found in plans(store, lambda: rows(store, AuditFilter(**about, **more))) for line in found]
    assert any(f"ix_audit_{index} (" in line for line in lines), lines
    assert not any(line.startswith("SCAN audit") for line in lines)


def test_the_answers_are_those_of_a_whole_look(store: Store) -> None:
    """By its index a question finds what looking at each row finds."""
    everything = rows(store, AuditFilter())
    for keyword, about, value in (("PatientID", "patient", patient_id(2)), ("StudyInstanceUID", "study", study_uid(2))):
        wanted = [row["seq"] for row in everything if row["body"].get(keyword) == value]
        assert wanted
        assert [row["seq"] for row in rows(store, AuditFilter(**{about: value}))] == wanted


def test_bodies_say_their_subject_before_any_inner_object_does(store: Store) -> None:
    """The index reads the first mention; sorted keys put PatientID and StudyInstanceUID before every lower-case one."""
    body = {"outputs": [{"PatientID": "inner"}], "PatientID": "outer", "StudyInstanceUID": "1.2", "Series": {}}
    assert json.dumps(body, sort_keys=True).index("outer") < json.dumps(body, sort_keys=True).index("inner")


ODD = ["", "P1", "P10", 'a"b', "a\\b", "Ünal Ö", "x" * 64, "x" * 65, "y" * 70, "{}", "P1,", "~", "\U0010ffff", "a~"]


def test_odd_identifiers_are_found_and_only_they(tmp_path: Path) -> None:
    """A quote, a backslash, a beginning of another, a longer value than DICOM allows: none hides a row."""
    store = Store(f"sqlite:///{tmp_path}/odd.sqlite3")
    migrate(store)
    with store.write() as session:
        for value in ODD:
            append(session, Event.INSTANCE_STORED, {"PatientID": value, "StudyInstanceUID": value, "zz": ODD})
            append(session, Event.INFERENCE, {"PatientID": value})
        append(session, Event.INFERENCE, {"outputs": [{"PatientID": "P1", "StudyInstanceUID": "P1"}]})
    for number, value in enumerate(ODD):
        assert [row["seq"] for row in rows(store, AuditFilter(patient=value))] == [2 * number + 1, 2 * number + 2]
        assert [row["seq"] for row in rows(store, AuditFilter(study=value))] == [2 * number + 1]
    store.close()


def alter(store: Store, *statements: str) -> None:
    connection = sqlite3.connect(store.path, isolation_level=None)
    connection.execute("PRAGMA writable_schema=ON")
    for statement in statements:
        connection.execute(statement)
    connection.close()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Store]:
    made = Store(f"sqlite:///{tmp_path}/dicomnode.sqlite3")
    migrate(made)
    with made.write() as session:
        for number in range(20):
            append(session, Event.INSTANCE_STORED, {"PatientID": f"P{number % 4}"})
    yield made
    made.close()


PARTIAL = subject_sql("PatientID")
HIDE = (
    "DROP INDEX ix_audit_PatientID",
    f"CREATE INDEX ix_audit_PatientID ON audit ({PARTIAL}) WHERE seq != 6",
)


@pytest.mark.parametrize("statements", [HIDE[:1], HIDE], ids=["without the index", "with one that leaves a row out"])
def test_an_index_that_is_not_ours_hides_no_row(log: Store, statements: tuple[str, ...]) -> None:
    alter(log, *statements)
    assert [row["seq"] for row in rows(log, AuditFilter(patient="P1"))] == [2, 6, 10, 14, 18]


def test_a_forged_index_hides_a_row_and_verify_tells(log: Store, tmp_path: Path) -> None:
    """An intruder who writes SQLite's own tables can hide a row from a question, though not from verify."""
    honest = f"CREATE INDEX ix_audit_PatientID ON audit ({PARTIAL})".replace("'", "''")
    alter(log, *HIDE, f"UPDATE sqlite_master SET sql = '{honest}' WHERE name = 'ix_audit_PatientID'")
    log.close()
    assert [row["seq"] for row in rows(log, AuditFilter(patient="P1"))] == [2, 10, 14, 18], "the forgery does not work"
    config = tmp_path / "node.toml"
    config.write_text(f'[node]\ndata_dir = "{tmp_path}"\n')
    answer = CliRunner().invoke(cli, ["audit", "verify", "--config", str(config), "--json"], standalone_mode=False)
    assert answer.return_value == 1
    assert "row 6 missing from index ix_audit_PatientID" in json.loads(answer.output)["reason"]
