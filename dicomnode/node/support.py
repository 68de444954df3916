"""``support-bundle``: what somebody else needs to help, and nothing about a patient."""

from __future__ import annotations

import json
import os
import platform
import re
import sqlite3
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

import dicomnode
from dicomnode.config import Config
from dicomnode.console.metrics import prometheus
from dicomnode.console.status import read_status, troubles
from dicomnode.deid.redaction import REMOVED, Redactor
from dicomnode.errors import ConfigError, Permanent
from dicomnode.node.build import Blueprint
from dicomnode.store.clock import running
from dicomnode.store.tables import AuditRow, InstanceRow, Row, StudyRow

MAX_LOG_BYTES = 50 * 1024 * 1024
"""Of each log, from its end."""
_NEWEST_ROWS = 500
_QUOTED = re.compile(r'"[^"]*"')
_PACKAGE = re.compile(r"[A-Za-z0-9._-]+")


def write_bundle(plan: Blueprint, target: Path, logs: Sequence[Path] = ()) -> list[str]:
    """Write the new file ``target`` (ZIP, mode 0600); returns the names of its members.

    ``logs``: files with what the node has written to stderr. Every text is redacted with the identifiers that the
    database knows, and looked through again before the file gets its name. Raises ConfigError when it cannot be
    written or read, Permanent when an identifier would be in it.
    """
    store = plan.store()
    if not store.path.exists():
        raise ConfigError(f"there is no database at {store.path}: has the node run with this configuration?")
    try:
        with store.read() as session:
            redactor = Redactor(_identifiers(session, plan.config))
            tables = {"database.json": _database(session), "audit.json": _audit(session)}
        status = read_status(plan.config, store, plan.spool(), running(store)())
        members: dict[str, str] = {
            name: _json(redactor.tree(content))
            for name, content in {
                "about.json": _about(),
                "configuration.json": _configuration(plan.config),
                "status.json": {**status, "look_at": troubles(status)},
                **tables,
            }.items()
        }
        members["metrics.txt"] = _QUOTED.sub(lambda found: redactor.text(found[0]), prometheus(status))
        for number, path in enumerate(logs, 1):
            members[f"logs/{number}.txt"] = "".join(_log(path, redactor))
    finally:
        store.close()
    _require_clean(members, redactor)
    _write(target, members)
    return sorted(members)


def _identifiers(session: Session, config: Config) -> Iterator[str]:
    """What the database knows of patients that could stand in a text."""
    for column in (StudyRow.PatientID, StudyRow.AccessionNumber):
        yield from session.scalars(select(column).where(column != "").distinct())
    for keyword in sorted(config.rule_keywords & _TELLING):
        value = func.json_extract(InstanceRow.header, f"$.{keyword}[0]")
        for found in session.scalars(select(value).where(value.is_not(None)).distinct()):
            yield str(found)
            yield from str(found).replace("=", "^").split("^")


_TELLING = frozenset(
    {
        "PatientName",
        "PatientBirthDate",
        "OtherPatientIDs",
        "OtherPatientNames",
        "PatientAddress",
        "PatientTelephoneNumbers",
        "ReferringPhysicianName",
        "PerformingPhysicianName",
        "OperatorsName",
        "RequestingPhysician",
        "StudyID",
        "RequestedProcedureID",
    }
)


def _configuration(config: Config) -> dict[str, Any]:
    """The settings in force. Secrets are in files of their own; what a rule asks about a patient is left out."""
    said = config.model_dump(mode="json")
    for rule in (*said["route"], *said["deid"]["export"], *said["deid"]["remote"]):
        for keyword in rule["when"].keys() & (_TELLING | {"PatientID", "AccessionNumber"}):
            rule["when"][keyword] = REMOVED
    return said


def _about() -> dict[str, Any]:
    wanted = {found[0] for line in metadata.requires("dicomnode") or [] if (found := _PACKAGE.match(line))}
    versions = {}
    for name in sorted(wanted):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "dicomnode": dicomnode.__version__,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": sys.version.split()[0],
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "sqlite": sqlite3.sqlite_version,
        "cores": os.cpu_count(),
        "packages": versions,
    }


def _database(session: Session) -> dict[str, Any]:
    schema = session.scalars(text("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type, name"))
    pragmas = ("journal_mode", "page_count", "page_size", "freelist_count", "user_version")
    return {
        "schema": list(schema),
        "rows": {
            name: session.scalar(select(func.count()).select_from(table)) for name, table in Row.metadata.tables.items()
        },
        "pragmas": {name: session.scalar(text(f"PRAGMA {name}")) for name in pragmas},
        "migration": session.scalar(text("SELECT version_num FROM alembic_version")),
    }


def _audit(session: Session) -> dict[str, Any]:
    """How many rows of each kind, and which kinds came last; no body."""
    counts = session.execute(select(AuditRow.kind, func.count()).group_by(AuditRow.kind)).all()
    newest = session.execute(select(AuditRow.seq, AuditRow.ts, AuditRow.kind).order_by(AuditRow.seq.desc()))
    rows = [{"seq": row.seq, "ts": row.ts[:19], "kind": row.kind} for row in newest.fetchmany(_NEWEST_ROWS)]
    return {"rows": {str(row[0]): row[1] for row in counts}, "newest": rows}


def _log(path: Path, redactor: Redactor) -> Iterator[str]:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - MAX_LOG_BYTES))
            content = file.read()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    for line in content.decode(errors="replace").splitlines():
        try:
            yield json.dumps(redactor.tree(json.loads(line))) + "\n"
        except ValueError:
            yield redactor.text(line) + "\n"


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _require_clean(members: Mapping[str, str], redactor: Redactor) -> None:
    """Numbers are no texts: a port can look like a Patient ID."""
    for name, content in members.items():
        if redactor.finds("\n".join(_texts_of(name, content))):
            raise Permanent(f"{name} would hold an identifier of a patient: nothing is written")


def _texts_of(name: str, content: str) -> Iterator[str]:
    if name == "metrics.txt":
        yield from _QUOTED.findall(content)
        return
    for part in [content] if name.endswith(".json") else content.splitlines():
        try:
            yield from _texts(json.loads(part))
        except ValueError:
            yield part


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def _write(target: Path, members: Mapping[str, str]) -> None:
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"{target}: cannot be written: {error.strerror}") from error
    with os.fdopen(descriptor, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, content in sorted(members.items()):
            bundle.writestr(name, content)
