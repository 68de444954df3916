"""The schema: created and changed by Alembic migrations only, checked at every start."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import select, text
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.orm import Session

from dicomnode.errors import ConfigError
from dicomnode.store.audit_sql import PROTECTED
from dicomnode.store.engine import Store
from dicomnode.store.tables import Row

UNFINISHED = ".restoring"
"""What a restore puts behind the name of the database while data is on its way to its place."""
MEND = "stop the node, then: dicomnode restore BACKUP --replace"


def migrate(store: Store) -> None:
    """Bring the database to the newest schema.

    Raises ConfigError when it cannot be opened, is newer than this software, or its audit table is not protected.
    """
    check_restored(store)
    try:
        store.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _upgrade(store)
        _probe(store)
    except OSError as error:
        raise ConfigError(f"node.database: its folder cannot be made: {error.strerror}") from error
    except OperationalError as error:
        raise ConfigError(f"node.database: {error.orig}") from error
    except DatabaseError as error:
        raise ConfigError(f"node.database: {store.path}: {error.orig}: {MEND}") from error
    check_triggers(store)


def check_restored(store: Store) -> None:
    """Raise ConfigError when a restore of this database was begun and not finished."""
    if store.path.with_name(f"{store.path.name}{UNFINISHED}").exists():
        raise ConfigError(f"node.database: {store.path}: a restore was not finished: run it again, with --replace")


def check_schema(store: Store) -> None:
    """Raise ConfigError when the database is not of this software's schema. Reads only."""
    with store.read() as session:
        current = MigrationContext.configure(session.connection()).get_current_revision()
    script = ScriptDirectory.from_config(_alembic())
    if current is None:
        raise ConfigError("node.database: it has no tables")
    if current not in {revision.revision for revision in script.walk_revisions()}:
        raise ConfigError("node.database: its schema is newer than this dicomnode")


def check_triggers(store: Store) -> None:
    """Raise ConfigError when the audit table is not protected as it must be."""
    with store.read() as session:
        wrong = wrong_triggers(session)
    if wrong:
        raise ConfigError(f"node.database: audit triggers missing or altered: {', '.join(wrong)}")


def wrong_triggers(session: Session) -> list[str]:
    """The triggers of the audit tables that are missing, altered or not ours (one of those could drop new rows).

    A backup of an older version has no table of anchors, and no triggers of it either.
    """
    query = text("SELECT name, sql, lower(tbl_name) AS tbl FROM sqlite_master WHERE type = 'trigger'")
    found = [row for row in session.execute(query) if row.tbl in PROTECTED]
    present: dict[str, str] = {row.name: row.sql for row in found}
    names = text("SELECT lower(name) FROM sqlite_master WHERE type = 'table'")
    tables = {"audit", *session.scalars(names)}
    expected = {name: sql for table, own in PROTECTED.items() if table in tables for name, sql in own.items()}
    return [name for name in {**expected, **present} if present.get(name) != expected.get(name)]


def _probe(store: Store) -> None:
    """Read the first and the last row of every table: a look that stays short, however large the database is.

    ``dicomnode doctor`` reads all of it. Raises DatabaseError.
    """
    with store.engine.connect() as connection:
        for table in Row.metadata.sorted_tables:
            key = tuple(table.primary_key.columns)
            connection.execute(select(table).order_by(*key).limit(1)).first()
            connection.execute(select(table).order_by(*(column.desc() for column in key)).limit(1)).first()


def _upgrade(store: Store) -> None:
    config = _alembic()
    script = ScriptDirectory.from_config(config)
    known = {revision.revision for revision in script.walk_revisions()}
    with store.engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
        if current is not None and current not in known:
            raise ConfigError("node.database: its schema is newer than this dicomnode")
        config.attributes["connection"] = connection
        if current != script.get_current_head():
            command.upgrade(config, "head")
            connection.commit()


def _alembic() -> AlembicConfig:
    config = AlembicConfig()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    return config
