"""``restore``: a backup becomes the node's data again, after every byte of it was proved."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy.exc import DatabaseError
from sqlalchemy.orm import Session

from dicomnode.audit import append, check_against, verify
from dicomnode.audit.actor import actor
from dicomnode.audit.checkpoint import Checkpoint
from dicomnode.audit.events import Event
from dicomnode.errors import ConfigError, Permanent, Transient
from dicomnode.node.backup import ROOM, SHOWN, Progress, told
from dicomnode.node.backup_files import DATABASE, SPOOL, copy, read_lists, sync_file, sync_folders
from dicomnode.node.build import Blueprint
from dicomnode.node.locks import exclusive
from dicomnode.node.supervisor import ROLES
from dicomnode.store.schema import UNFINISHED, migrate
from dicomnode.store.snapshot import damage, looking_at, needed_files
from dicomnode.store.spool import sync_folder

STAGE = "restore.part"


@dataclass(frozen=True, slots=True)
class Checked:
    """A backup that was read to its last byte. ``faults``: what is wrong, by file; empty when nothing is."""

    manifest: dict[str, Any]
    faults: tuple[str, ...]


def check_backup(folder: Path, progress: Progress, copy_to: Path | None = None) -> Checked:
    """Prove every file of the backup in ``folder``, its database and its audit chain; copy it on the way if asked.

    Raises Permanent when ``folder`` is no backup, Transient when a disk fails.
    """
    manifest, sums = read_lists(folder)
    database = _file(folder, DATABASE, sums, copy_to)
    if database:
        return Checked(manifest, (database,))
    try:
        with looking_at((copy_to or folder) / DATABASE) as session:
            faults = list(_database_faults(session, manifest))
            faults += [] if faults else _file_faults(folder, session, manifest, sums, progress, copy_to)
    except (Permanent, DatabaseError) as error:
        faults = [f"{DATABASE}: {error}"]
    return Checked(manifest, tuple(faults))


def _file(folder: Path, path: str, sums: dict[str, str], copy_to: Path | None, tail: int = 0) -> str:
    if path not in sums:
        return f"{path}: it is not in the list of the backup"
    try:
        read = copy(folder / path, None if copy_to is None else copy_to / path, tail)
    except FileNotFoundError:
        return f"{path}: it is missing"
    return "" if read.whole == sums[path] else f"{path}: it is not what was written (SHA-256)"


def _database_faults(session: Session, manifest: dict[str, Any]) -> Iterator[str]:
    for line in damage(session):
        yield f"{DATABASE}: {line}"
    verdict = verify(session)
    if not verdict.ok:
        yield f"{DATABASE}: audit log: {verdict.reason}"
    elif {"rows": verdict.rows, "head": verdict.head.hex()} != manifest["audit"]:
        yield f"{DATABASE}: its audit log is not the one of the manifest"


def _file_faults(
    folder: Path,
    session: Session,
    manifest: dict[str, Any],
    sums: dict[str, str],
    progress: Progress,
    copy_to: Path | None,
) -> list[str]:
    """Each file that a row names; those that were damaged when the backup was made are known."""
    known = {fault.partition(": ")[0] for fault in manifest["faults"]}
    seen, faults = {DATABASE}, []
    for needed in needed_files(session):
        path = f"{SPOOL}/{needed.path}"
        if path in known or path in seen:
            continue
        seen.add(path)
        fault = _file(folder, path, sums, copy_to, needed.size)
        faults += [fault] if fault else []
        progress("files", len(seen) - 1, len(sums) - 1)
    return faults + [f"{path}: no row of the database names it" for path in sorted(set(sums) - seen)]


def restore(
    plan: Blueprint, folder: Path, progress: Progress, *, replace: bool = False, checkpoint: Path | None = None
) -> dict[str, Any]:
    """Make the backup in ``folder`` the data of the node; returns what was done.

    Holds the locks of every role. The backup is copied beside the data and proved to its last byte, only then the old
    data goes to a folder ``replaced-…`` (``replace``) and the copy into its place. Rows that ``checkpoint`` proves and
    the backup lacks are told: they were written after it and are lost.

    Raises ConfigError when a node runs, or data is there and ``replace`` was not asked for; Permanent when the backup
    is damaged or disagrees with the checkpoint; Transient when the disk is full or fails.
    """
    data, database = plan.config.node.data_dir.resolve(), plan.store().path.resolve()
    if folder.resolve().is_relative_to(data / SPOOL):
        raise ConfigError(f"{folder}: a backup cannot lie in the spool")
    with exclusive(data, ROLES):
        there = [path for path in _data(data, database) if path.exists()]
        if any(_holds(path) for path in there) and not replace:
            raise ConfigError(f"{data}: it holds the data of a node; --replace moves that aside")
        stage = data / STAGE
        shutil.rmtree(stage, ignore_errors=True)
        _room(folder, data)
        try:
            stage.mkdir(mode=0o700)
            manifest, lost = _staged(folder, stage, progress, checkpoint)
            aside = _swap(data, database, stage, there)
        finally:
            shutil.rmtree(stage, ignore_errors=True)
        facts = {**told(manifest), "folder": str(folder), "replaced": str(aside) if aside else None, "lost_rows": lost}
        _record(plan, facts)
        return facts | {"faults": manifest["faults"]}


def _data(data: Path, database: Path) -> list[Path]:
    beside = [database.with_name(f"{database.name}{end}") for end in ("", "-wal", "-shm", "-journal")]
    return [*beside, data / SPOOL]


def _holds(path: Path) -> bool:
    return path.is_file() or any(entry.is_file() for entry in path.rglob("*"))


def _room(folder: Path, data: Path) -> None:
    manifest, _ = read_lists(folder)
    needed, free = int(manifest["bytes"]) + ROOM, shutil.disk_usage(data).free
    if free < needed:
        raise Transient(f"{data}: {free / 1e9:.1f} GB are free there, the backup needs {needed / 1e9:.1f} GB")


def _staged(
    folder: Path, stage: Path, progress: Progress, checkpoint: Path | None
) -> tuple[dict[str, Any], int | None]:
    checked = check_backup(folder, progress, stage)
    if checked.faults:
        more = f" (and {len(checked.faults) - SHOWN} more)" if len(checked.faults) > SHOWN else ""
        raise Permanent(f"the backup is damaged: {'; '.join(checked.faults[:SHOWN])}{more}")
    for area in ("incoming", "received", "derived"):
        (stage / SPOOL / area).mkdir(parents=True, exist_ok=True)
    sync_folders(stage)
    return checked.manifest, None if checkpoint is None else _lost(stage / DATABASE, checkpoint, checked.manifest)


def _lost(database: Path, checkpoint: Path, manifest: dict[str, Any]) -> int:
    """How many rows the newest checkpoint has beyond the backup. Raises Permanent when they are not the same log.

    Of a file that several nodes share, the lines of this one count.
    """
    origin = str(manifest.get("ae_title", ""))
    try:
        lines = [line for line in checkpoint.read_text(errors="replace").splitlines() if line.strip()]
    except OSError as error:
        raise Permanent(f"checkpoints {checkpoint}: {error.strerror}") from error
    points = [(line, Checkpoint.parse(line)) for line in lines]
    own = [(line, point.size) for line, point in points if point.origin == origin]
    own = own or [(line, point.size) for line, point in points]
    rows, sizes = int(manifest["audit"]["rows"]), [size for _, size in own]
    with looking_at(database) as session:
        fault = check_against(session, [line for line, size in own if size <= rows])
    if fault:
        raise Permanent(f"the backup is not of the log that the checkpoints are of: {fault}")
    return max(0, max(sizes, default=0) - rows)


def _swap(data: Path, database: Path, stage: Path, there: list[Path]) -> Path | None:
    """Old data aside, new data in place. ``serve`` does not start while the mark of an unfinished restore is there."""
    mark = database.with_name(f"{database.name}{UNFINISHED}")
    aside = data / f"replaced-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}" if there else None
    try:
        mark.touch(mode=0o600)
        sync_folder(mark.parent)
        if aside is not None:
            aside.mkdir(mode=0o700)
            for path in there:
                shutil.move(path, aside / path.name)
            sync_folder(aside)
        shutil.move(stage / SPOOL, data / SPOOL)
        shutil.move(stage / DATABASE, database)
        sync_file(database)
        sync_folder(data)
        sync_folder(database.parent)
        mark.unlink()
        sync_folder(mark.parent)
    except OSError as error:
        raise Transient(f"{error.filename or data}: {error.strerror}: run dicomnode restore again") from error
    return aside


def _record(plan: Blueprint, facts: dict[str, Any]) -> None:
    """In the restored log itself: its schema may be an older one, which the next start migrates anyway."""
    store = plan.store()
    try:
        migrate(store)
        with store.write() as session:
            append(session, Event.RESTORED, {**facts, **actor()})
    finally:
        store.close()
