"""A database of an earlier version is brought up to date with everything that is in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config as AlembicConfig
from sqlalchemy import text

import dicomnode.store
from dicomnode.audit import append, verify
from dicomnode.audit.events import Event
from dicomnode.store.engine import Store
from dicomnode.store.schema import migrate

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
