"""``backup``: the database and the spool as they are at one moment, while the node runs and writes (R18)."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

import dicomnode
from dicomnode.audit import append, verify
from dicomnode.audit.actor import actor
from dicomnode.audit.events import Event
from dicomnode.errors import ConfigError, DicomNodeError, Permanent, Transient
from dicomnode.node.backup_files import DATABASE, MANIFEST, SPOOL, SUMS, copy, sync_folders, write_lists
from dicomnode.node.build import Blueprint
from dicomnode.store.engine import Store
from dicomnode.store.schema import check_schema
from dicomnode.store.snapshot import NeededFile, copy_database, damage, looking_at, needed_files
from dicomnode.store.spool import sync_folder

Progress = Callable[[str, int, int], None]
"""Called with the step, how much of it is done, and how much there is."""
ROOM = 64 * 1024 * 1024
"""Free bytes that a backup leaves on its disk."""
SHOWN = 10


@dataclass(slots=True)
class _Work:
    """A backup that is being written below ``part``; ``sums``: path within it to SHA-256."""

    spool: Path
    part: Path
    link: bool
    sums: dict[str, str] = field(default_factory=dict)
    proven: dict[str, NeededFile] = field(default_factory=dict)
    size: int = 0

    def take(self, needed: NeededFile) -> str:
        """Copy one spool file, unless it is there; returns what is wrong with it, empty when nothing is."""
        if self.proven.get(needed.path) == needed:
            return ""
        self.drop(needed.path)
        target = self.part / SPOOL / needed.path
        try:
            read = copy(self.spool / needed.path, target, needed.size, link=self.link)
        except FileNotFoundError:
            return "it is missing"
        fault = read.fault(needed)
        if fault:
            target.unlink()
            return fault
        self.sums[f"{SPOOL}/{needed.path}"], self.proven[needed.path] = read.whole, needed
        self.size += read.size
        return ""

    def drop(self, path: str) -> None:
        """Forget a file that is not part of the backup."""
        if self.proven.pop(path, None) is not None:
            del self.sums[f"{SPOOL}/{path}"]
            target = self.part / SPOOL / path
            self.size -= target.stat().st_size
            target.unlink()


def write_backup(
    plan: Blueprint, target: Path, progress: Progress, *, link: bool = False, damaged: bool = False
) -> dict[str, Any]:
    """Write a backup of the node to the folder ``target``, which must be new or empty; returns its manifest.

    Files are copied once before the database and what came since after it: every row's file is in the backup, and
    retention has no time to remove one in between. Everything is proved by digest, the copy of the database by its
    integrity check and its audit chain, before the folder gets its name. ``link``: hard links where the file system is
    the same. ``damaged``: write it although files are missing or altered, and list them in the manifest.

    Raises ConfigError when ``target`` or the database cannot be used, Transient when the disk is full or fails,
    Permanent when what is to be kept is damaged.
    """
    store = plan.store()
    try:
        _check(plan, store, target)
        _room(store, target, link=link)
        part = target.with_name(f"{target.name}.part")
        try:
            manifest = _write(plan, store, part, progress, link=link, damaged=damaged)
            _place(part, target)
        except BaseException as error:
            shutil.rmtree(part, ignore_errors=True)
            if isinstance(error, DicomNodeError):
                _record(store, {"outcome": "failed", "reason": str(error), "folder": str(target)})
            raise
        _record(store, {"outcome": "written", "folder": str(target), **told(manifest)})
        return manifest
    finally:
        store.close()


def told(manifest: dict[str, Any]) -> dict[str, Any]:
    """What an audit row says of a backup."""
    audit = manifest["audit"]
    facts = {"made_at": manifest["made_at"], "sha256": manifest["sha256"], "files": manifest["files"]}
    return facts | {"bytes": manifest["bytes"], "audit_rows": audit["rows"], "audit_head": audit["head"]}


def _check(plan: Blueprint, store: Store, target: Path) -> None:
    data = plan.config.node.data_dir.resolve()
    if not store.path.exists():
        raise ConfigError(f"there is no database at {store.path}: has the node run with this configuration?")
    check_schema(store)
    if (data / SPOOL).is_relative_to(target.resolve()) or target.resolve().is_relative_to(data / SPOOL):
        raise ConfigError(f"{target}: a backup cannot lie in the spool, nor the spool in it")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{target}: it is not empty; a backup never writes over anything")
    part = target.with_name(f"{target.name}.part")
    if part.exists():
        if {entry.name for entry in part.iterdir()} - {DATABASE, f"{DATABASE}-journal", SPOOL, SUMS, MANIFEST}:
            raise ConfigError(f"{part}: it is not of an interrupted backup; move it away")
        shutil.rmtree(part)
    part.mkdir(parents=True, mode=0o700)


def _room(store: Store, target: Path, *, link: bool) -> None:
    """Raise Transient before anything is copied, when the disk cannot hold it. Links take no room."""
    sizes = "SELECT (SELECT coalesce(sum(size), 0) FROM instance) + (SELECT coalesce(sum(size), 0) FROM derived)"
    with store.read() as session:
        files = 0 if link else int(session.scalar(text(sizes)) or 0)
    needed = files + store.path.stat().st_size + ROOM
    free = shutil.disk_usage(target.parent).free
    if free < needed:
        target.with_name(f"{target.name}.part").rmdir()
        raise Transient(f"{target}: {free / 1e9:.1f} GB are free there, the backup needs {needed / 1e9:.1f} GB")


def _write(
    plan: Blueprint, store: Store, part: Path, progress: Progress, *, link: bool, damaged: bool
) -> dict[str, Any]:
    work = _Work(plan.config.node.data_dir.resolve() / SPOOL, part, link)
    with store.read() as session:
        live = list(needed_files(session))
    for number, needed in enumerate(live, 1):
        work.take(needed)
        progress("files", number, len(live))
    copy_database(store.path, part / DATABASE, lambda done, total: progress("database", done, total))
    progress("check", 0, 1)
    with looking_at(part / DATABASE) as session:
        facts = _facts(session)
        progress("check", 1, 1)
        faults, kept = _take_new(work, needed_files(session), len(live), progress)
    if faults and not damaged:
        more = f" (and {len(faults) - SHOWN} more)" if len(faults) > SHOWN else ""
        raise Permanent(f"the spool is damaged: {'; '.join(faults[:SHOWN])}{more}; --damaged keeps what there is")
    for path in set(work.proven) - kept:
        work.drop(path)
    work.sums[DATABASE] = copy(part / DATABASE, None).whole
    node = {"ae_title": plan.config.node.ae_title, "config_sha256": plan.source.sha256}
    size = work.size + (part / DATABASE).stat().st_size
    facts |= node | {"software_version": dicomnode.__version__, "made_at": datetime.now(UTC).isoformat()}
    manifest = write_lists(part, work.sums, facts | {"files": len(work.sums), "bytes": size, "faults": faults})
    sync_folders(part)
    return manifest


def _take_new(work: _Work, kept: Iterable[NeededFile], expected: int, progress: Progress) -> tuple[list[str], set[str]]:
    """Copy what came since the first look: (what cannot be copied, and why; every path of the backup)."""
    faults, paths = [], set()
    for number, needed in enumerate(kept, 1):
        paths.add(needed.path)
        fault = work.take(needed)
        faults += [f"{SPOOL}/{needed.path}: {fault}"] if fault else []
        progress("new files", number, max(number, expected))
    return faults, paths


def _facts(session: Session) -> dict[str, Any]:
    """Schema and audit head of the copy, which has to be sound. Raises Permanent."""
    found = damage(session)
    if found:
        raise Permanent(f"{DATABASE}: {'; '.join(found)}")
    verdict = verify(session)
    if not verdict.ok:
        where = f"row {verdict.first_bad}: " if verdict.first_bad is not None else ""
        raise Permanent(f"audit log: {where}{verdict.reason}")
    schema = session.scalar(text("SELECT version_num FROM alembic_version"))
    return {"schema": schema, "audit": {"rows": verdict.rows, "head": verdict.head.hex()}}


def _place(part: Path, target: Path) -> None:
    try:
        part.rename(target)
        sync_folder(target.parent)
    except OSError as error:
        raise Transient(f"{target}: {error.strerror}") from error


def _record(store: Store, facts: dict[str, Any]) -> None:
    with store.write() as session:
        append(session, Event.BACKUP, {**facts, **actor()})
