"""A database of an earlier version is brought up to date with everything that is in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config as AlembicConfig
from sqlalchemy import select, text

import dicomnode.store
from dicomnode.audit import append, verify
from dicomnode.audit.events import Event
from dicomnode.deliver.worker import Deliverer
from dicomnode.store.engine import Store
from dicomnode.store.schema import migrate
from dicomnode.store.spool import Spool, digest
from dicomnode.store.tables import DeliveryRow, JobRow
from tests.integration.deliver_fixtures import FakePacs, config, make_file

MIGRATIONS = Path(dicomnode.store.__file__).parent / "migrations"
ROWS = {
    "study": {"id": 1, "StudyInstanceUID": "1.2.3", "PatientID": "P", "AccessionNumber": "A", "StudyDate": ""}
    | {"StudyDescription": "", "created_at": 1.0},
    "series": {"id": 1, "study_id": 1, "SeriesInstanceUID": "1.2.3.4", "Modality": "CT", "SeriesDescription": ""}
    | {"CallingAETitle": "CT1", "generation": 1, "state": "complete", "incomplete": False}
    | {"first_received_at": 1.0, "last_received_at": 2.0},
    "assignment": {"id": 1, "series_id": 1, "generation": 1, "route": "r", "detector": "d", "send_to": '["pacs"]'}
    | {"priority": 0, "outcome": "findings", "reason": "", "score": 0.9, "created_at": 3.0},
    "derived": {"id": 1, "assignment_id": 1, "kind": "sc", "SOPInstanceUID": "1.2.9", "SOPClassUID": "1.2"}
    | {"SeriesInstanceUID": "1.2.8", "sha256": "ab", "size": 3, "path": "derived/xx/y.dcm", "created_at": 4.0},
    "delivery": {"id": 1, "derived_id": 1, "destination": "pacs", "state": "delivered", "attempts": 1},
}


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Store]:
    """A database of the first version with a delivered result and an audit log."""
    store = Store(f"sqlite:///{tmp_path}/old.sqlite3")
    config = AlembicConfig()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    with store.engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.commit()
    with store.write() as session:
        for table, values in ROWS.items():
            names = ", ".join(f'"{name}"' for name in values)
            marks = ", ".join(f":{name}" for name in values)
            session.execute(text(f"INSERT INTO {table} ({names}) VALUES ({marks})"), values)
        append(session, Event.INFERENCE, {"assignment": 1})
    yield store
    store.close()


def test_a_database_of_the_first_version_keeps_its_rows_and_its_audit_chain(old: Store) -> None:
    migrate(old)
    with old.read() as session:
        for table, values in ROWS.items():
            row = session.execute(text(f"SELECT * FROM {table}")).mappings().one()
            assert {name: row[name] for name in values} == values
        assert verify(session).ok
        new = session.execute(
            text('SELECT gate, "SeriesNumber", committed_at FROM assignment, derived, delivery')
        ).one()
    assert tuple(new) == (None, None, None)


def test_migrating_twice_changes_nothing(old: Store) -> None:
    migrate(old)
    migrate(old)
    with old.read() as session:
        assert session.execute(text("SELECT count(*) FROM delivery")).scalar_one() == 1


def test_what_waited_in_a_database_of_the_first_version_is_delivered(old: Store, tmp_path: Path) -> None:
    """Its result has no Series Number, no stand-ins, and no commitment."""
    spool, made = Spool(tmp_path / "spool"), make_file(tmp_path / "a.dcm")
    content = (tmp_path / "a.dcm").read_bytes()
    file = {"sha256": digest(content), "path": spool.store((content,), "derived", digest(content))}
    file |= {"SOPInstanceUID": made.SOPInstanceUID, "SOPClassUID": made.SOPClassUID}
    job = {"payload": '{"assignment_id": 1, "destination": "pacs"}'}
    with old.write() as session:
        session.execute(text("UPDATE delivery SET state = 'waiting'"))
        session.execute(text(f"UPDATE derived SET {', '.join(f'{name} = :{name}' for name in file)}"), file)
        columns = "kind, dedup_key, payload, state, priority, attempt, crashes, interruptions, not_before, error"
        values = "'deliver', '1:pacs', :payload, 'ready', 0, 0, 0, 0, 0.0, ''"
        session.execute(text(f"INSERT INTO job ({columns}, created_at) VALUES ({values}, 5.0)"), job)
    migrate(old)
    with FakePacs() as pacs:
        worker = Deliverer(config(pacs.peer(commit=True)), old, spool, "deliver-1", lambda: 10.0)
        while worker.step():
            pass
    assert pacs.uids == [made.SOPInstanceUID]
    with old.read() as session:
        assert session.scalars(select(DeliveryRow.state)).all() == ["delivered"]
        assert session.execute(select(JobRow.kind, JobRow.state)).all() == [("deliver", "done"), ("commit", "ready")]
