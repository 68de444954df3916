"""R18: a backup is taken while the node writes, proves itself, and becomes a node again; damage is named."""

from __future__ import annotations

import functools
import hashlib
import json
import multiprocessing
import os
import sqlite3
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text

from dicomnode.audit import append, verify, write_checkpoint
from dicomnode.audit.events import Event
from dicomnode.cli import main
from dicomnode.config import load_config
from dicomnode.errors import ConfigError, DicomNodeError, Permanent, Transient
from dicomnode.jobs import claim, enqueue, finish
from dicomnode.node import backup as backup_module
from dicomnode.node.backup import write_backup
from dicomnode.node.build import Blueprint
from dicomnode.node.doctor import diagnose
from dicomnode.node.locks import exclusive
from dicomnode.node.restore import check_backup, restore
from dicomnode.store.engine import Store
from dicomnode.store.schema import UNFINISHED, migrate
from dicomnode.store.spool import Spool
from dicomnode.store.tables import AuditRow, InstanceRow, JobRow, SeriesRow, StudyRow


def quiet(*_: Any) -> None:
    """Nobody watches."""


@functools.cache
def empty_database() -> bytes:
    """The content of a migrated database."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(f"sqlite:///{folder}/x.sqlite3")
        migrate(store)
        with store.engine.connect() as connection:
            connection.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        store.close()
        return store.path.read_bytes()


def plan_in(folder: Path, more: str = "") -> Blueprint:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "node.toml").write_text(f'[node]\ndata_dir = "{folder / "data"}"\nconsole_port = 0\nport = 0\n{more}')
    return Blueprint(*load_config(folder / "node.toml"))


def receive(store: Store, spool: Spool, number: int) -> str:
    """What reception does for one Instance, in its order: file, then row, audit record and a job in one transaction."""
    data = f"data set {number}".encode() * 50
    sha256 = hashlib.sha256(data).hexdigest()
    path = spool.store((b"\0" * 128 + b"DICM", data), "received", f"{sha256}-{number}.dcm")
    uid = f"1.2.3.{number}"
    with store.write() as session:
        image = {"SOPClassUID": "1.2", "TransferSyntaxUID": "1.2", "header": {}, "generation": 1, "received_at": 1.0}
        session.add(InstanceRow(series_id=1, SOPInstanceUID=uid, sha256=sha256, size=len(data), path=path, **image))
        enqueue(session, "route", str(number), {"number": number}, 1.0)
        append(session, Event.INSTANCE_STORED, {"SOPInstanceUID": uid, "PatientID": "P"})
    return uid


def new_node(folder: Path, instances: int, more: str = "") -> Blueprint:
    plan = plan_in(folder, more)
    (folder / "data").mkdir(mode=0o700)
    (folder / "data" / "dicomnode.sqlite3").write_bytes(empty_database())
    store = plan.store()
    with store.write() as session:
        session.add(StudyRow(id=1, StudyInstanceUID="1.2.3", created_at=1.0))
        session.flush()
        times = {"first_received_at": 1.0, "last_received_at": 1.0}
        session.add(SeriesRow(id=1, study_id=1, SeriesInstanceUID="1.2.3.1", CallingAETitle="CT", **times))
    spool = plan.spool()
    for number in range(instances):
        receive(store, spool, number)
    store.close()
    return plan


@pytest.fixture
def node(tmp_path: Path) -> Blueprint:
    return new_node(tmp_path / "node", 5)


def instances_of(plan: Blueprint) -> set[str]:
    store = plan.store()
    with store.read() as session:
        found = set(session.scalars(select(InstanceRow.SOPInstanceUID)))
    store.close()
    return found


def events_of(plan: Blueprint, event: Event) -> list[dict[str, Any]]:
    store = plan.store()
    with store.read() as session:
        found = [json.loads(body) for body in session.scalars(select(AuditRow.body).where(AuditRow.kind == event))]
    store.close()
    return found


def is_sound(plan: Blueprint) -> bool:
    """Chain, database, and each row's file with its digest, looked at without the code under test."""
    store, data = plan.store(), plan.config.node.data_dir / "spool"
    with store.read() as session:
        rows = session.execute(select(InstanceRow.path, InstanceRow.sha256, InstanceRow.size)).all()
        whole = session.scalar(text("PRAGMA integrity_check")) == "ok" and verify(session).ok
    store.close()
    return whole and all(
        hashlib.sha256((data / path).read_bytes()[-size:]).hexdigest() == sha256 for path, sha256, size in rows
    )


class Writers:
    """Reception in two threads and in a process of its own, and a worker that claims and finishes jobs."""

    def __init__(self, plan: Blueprint) -> None:
        self.plan, self.acknowledged, self.errors = plan, [], []
        self._stop = threading.Event()
        spawn = multiprocessing.get_context("spawn")
        self._stop_process = spawn.Event()
        url, root = plan.config.node.database_url, str(plan.config.node.data_dir)
        self._process = spawn.Process(target=receive_in_process, args=(url, root, self._stop_process))
        self._threads = [threading.Thread(target=self._receive, args=(n,), daemon=True) for n in (1000, 2000)]
        self._threads.append(threading.Thread(target=self._work, daemon=True))

    def __enter__(self) -> Writers:
        self._process.start()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._stop_process.set()
        for thread in self._threads:
            thread.join(60)
        self._process.join(60)
        assert self._process.exitcode == 0

    def wait_for(self, count: int) -> None:
        until = time.monotonic() + 120
        while len(self.acknowledged) < count and time.monotonic() < until:
            time.sleep(0.01)
        assert len(self.acknowledged) >= count

    def _receive(self, first: int) -> None:
        store, spool, number = self.plan.store(), self.plan.spool(), first
        while not self._stop.is_set():
            try:
                self.acknowledged.append(receive(store, spool, number))
            except DicomNodeError as error:
                self.errors.append(error)
            number += 1
        store.close()

    def _work(self) -> None:
        store = self.plan.store()
        while not self._stop.is_set():
            with store.write() as session:
                job = claim(session, ("route",), "w", 10.0, 60.0)
                if job is not None:
                    finish(session, job, 11.0)
        store.close()


def receive_in_process(url: str, data: str, stop: Any) -> None:
    """Another process that receives: its writes must not start the copy of the database again."""
    store, spool, number = Store(url), Spool(Path(data) / "spool"), 50_000
    while not stop.is_set():
        receive(store, spool, number)
        number += 1
    store.close()


def test_a_backup_of_a_busy_node_holds_all_that_was_acknowledged_before_it(tmp_path: Path) -> None:
    """R18: integrity check and chain verify pass, no row lacks its file, and the restored node is that node."""
    plan = new_node(tmp_path / "node", 30)
    with Writers(plan) as busy:
        busy.wait_for(10)
        before = set(busy.acknowledged) | {f"1.2.3.{number}" for number in range(30)}
        manifest = write_backup(plan, tmp_path / "backup", quiet)
        count = len(busy.acknowledged)
        busy.wait_for(count + 5)
    assert busy.errors == []
    assert check_backup(tmp_path / "backup", quiet).faults == ()
    other = plan_in(tmp_path / "other")
    done = restore(other, tmp_path / "backup", quiet)
    restored = instances_of(other)
    assert before <= restored < instances_of(plan)
    assert is_sound(other)
    assert done["audit_rows"] == manifest["audit"]["rows"]
    assert not list((tmp_path / "backup").glob("*-wal")), "a backup is one file of database and needs no other"


def test_the_copy_of_the_database_is_one_moment_although_it_takes_many_steps(
    tmp_path: Path, node: Blueprint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R18: rows committed between two steps of the copy are not half in it, and do not start it again."""
    from dicomnode.store import snapshot

    monkeypatch.setattr(snapshot, "PAGES", 5)
    store, spool, steps = node.store(), node.spool(), []

    def write_more(done: int, total: int) -> None:
        steps.append((done, total))
        receive(store, spool, 500 + len(steps))

    snapshot.copy_database(store.path, tmp_path / "copy.sqlite3", write_more)
    store.close()
    assert len(steps) > 5
    assert [done for done, _ in steps] == sorted({done for done, _ in steps}), "it started again"
    copied = sqlite3.connect(tmp_path / "copy.sqlite3")
    assert copied.execute("SELECT count(*) FROM instance").fetchone() == (5,)
    assert copied.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    copied.close()


def test_backup_and_restore_are_in_the_audit_log(tmp_path: Path, node: Blueprint) -> None:
    manifest = write_backup(node, tmp_path / "backup", quiet)
    assert [row["sha256"] for row in events_of(node, Event.BACKUP)] == [manifest["sha256"]]
    other = plan_in(tmp_path / "other")
    restore(other, tmp_path / "backup", quiet)
    assert [row["audit_head"] for row in events_of(other, Event.RESTORED)] == [manifest["audit"]["head"]]


def test_a_link_is_a_file_of_the_backup_too(tmp_path: Path, node: Blueprint) -> None:
    write_backup(node, tmp_path / "backup", quiet, link=True)
    some = next((tmp_path / "backup" / "spool" / "received").rglob("*.dcm"))
    assert some.stat().st_nlink == 2
    assert check_backup(tmp_path / "backup", quiet).faults == ()


def test_what_retention_removes_while_files_are_copied_is_not_missed(
    tmp_path: Path, node: Blueprint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R18: rows that go with their files after the first look are not in the backup, and no fault of it."""
    store, spool = node.store(), node.spool()
    real = backup_module.copy_database

    def remove_one_first(source: Path, target: Path, progress: Any) -> None:
        with store.write() as session:
            row = session.scalars(select(InstanceRow)).first()
            assert row is not None
            session.delete(row)
        spool.remove(row.path)
        real(source, target, progress)

    monkeypatch.setattr(backup_module, "copy_database", remove_one_first)
    manifest = write_backup(node, tmp_path / "backup", quiet)
    store.close()
    assert manifest["files"] == 5
    assert len(list((tmp_path / "backup" / "spool").rglob("*.dcm"))) == 4
    assert check_backup(tmp_path / "backup", quiet).faults == ()


def flip(path: Path, offset: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("which", ["received", "dicomnode.sqlite3", "SHA256SUMS", "manifest.json"])
def test_one_changed_byte_is_found_named_and_nothing_is_restored(tmp_path: Path, node: Blueprint, which: str) -> None:
    """R18: the file at fault is named; the data that was there stays as it is."""
    write_backup(node, tmp_path / "backup", quiet)
    victim = tmp_path / "backup" / which
    if which == "received":
        victim = sorted((tmp_path / "backup" / "spool").rglob("*.dcm"))[2]
    flip(victim, len(victim.read_bytes()) // 2)
    before = instances_of(node)
    with pytest.raises(Permanent, match=victim.name):
        restore(node, tmp_path / "backup", quiet, replace=True)
    assert instances_of(node) == before
    assert is_sound(node)
    left = {
        path.name for path in node.config.node.data_dir.iterdir() if not path.name.endswith((".lock", "-wal", "-shm"))
    }
    assert left == {"spool", "dicomnode.sqlite3"}, "nothing half restored is left"


def test_a_missing_and_a_foreign_file_are_named(tmp_path: Path, node: Blueprint) -> None:
    write_backup(node, tmp_path / "backup", quiet)
    gone = min((tmp_path / "backup" / "spool").rglob("*.dcm"))
    gone.unlink()
    faults = check_backup(tmp_path / "backup", quiet).faults
    assert len(faults) == 1
    assert gone.name in faults[0]
    assert "missing" in faults[0]


def test_a_spool_that_lost_a_file_is_told_and_kept_only_on_request(tmp_path: Path, node: Blueprint) -> None:
    """R18: no row's file is missing silently; --damaged keeps what there is and lists the rest."""
    victim = next((node.config.node.data_dir / "spool" / "received").rglob("*.dcm"))
    flip(victim)
    with pytest.raises(Permanent, match=victim.name):
        write_backup(node, tmp_path / "backup", quiet)
    assert list(tmp_path.glob("backup*")) == [], "nothing of a failed backup is left"
    assert [row["outcome"] for row in events_of(node, Event.BACKUP)] == ["failed"]
    manifest = write_backup(node, tmp_path / "backup", quiet, damaged=True)
    assert [victim.name in fault for fault in manifest["faults"]] == [True]
    assert check_backup(tmp_path / "backup", quiet).faults == ()


def test_a_corrupt_database_is_not_kept_as_a_backup(tmp_path: Path, node: Blueprint) -> None:
    """R18: a copy that does not pass its integrity check is no backup."""
    path = node.store().path
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    root = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'ix_audit_PatientID'").fetchone()[0]
    page = connection.execute("PRAGMA page_size").fetchone()[0]
    connection.close()
    content = bytearray(path.read_bytes())
    content[(root - 1) * page + 200 : root * page] = os.urandom(page - 200)
    path.write_bytes(content)
    with pytest.raises((Permanent, Transient), match=r"dicomnode\.sqlite3|malformed"):
        write_backup(node, tmp_path / "backup", quiet)
    assert list(tmp_path.glob("backup*")) == []


def test_a_backup_writes_over_nothing(tmp_path: Path, node: Blueprint) -> None:
    target = tmp_path / "backup"
    target.mkdir()
    (target / "precious").touch()
    with pytest.raises(ConfigError, match="not empty"):
        write_backup(node, target, quiet)
    with pytest.raises(ConfigError, match="spool"):
        write_backup(node, node.config.node.data_dir / "spool" / "backup", quiet)
    (target / "precious").unlink()
    (tmp_path / "backup.part" / "spool").mkdir(parents=True)
    write_backup(node, target, quiet)


def test_a_disk_without_room_is_refused_before_anything_is_copied(
    tmp_path: Path, node: Blueprint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup_module, "ROOM", 10**18)
    with pytest.raises(Transient, match="are free there"):
        write_backup(node, tmp_path / "backup", quiet)
    assert list(tmp_path.glob("backup*")) == []


def test_a_node_that_runs_and_data_that_is_there_are_left_alone(tmp_path: Path, node: Blueprint) -> None:
    """R16, R18: restore holds the locks of every role, and moves old data aside only when told to."""
    write_backup(node, tmp_path / "backup", quiet)
    with exclusive(node.config.node.data_dir, ["receive"]), pytest.raises(ConfigError, match="another node"):
        restore(node, tmp_path / "backup", quiet, replace=True)
    with pytest.raises(ConfigError, match="--replace"):
        restore(node, tmp_path / "backup", quiet)
    store, spool = node.store(), node.spool()
    late = receive(store, spool, 900)
    store.close()
    done = restore(node, tmp_path / "backup", quiet, replace=True)
    assert late not in instances_of(node)
    assert is_sound(node)
    aside = sqlite3.connect(Path(done["replaced"]) / "dicomnode.sqlite3")
    assert (late,) in aside.execute("SELECT SOPInstanceUID FROM instance").fetchall()
    aside.close()


def test_a_restore_that_was_interrupted_keeps_the_node_from_starting_empty(tmp_path: Path, node: Blueprint) -> None:
    """R18: between old and new data there is no moment at which a start would begin a new, empty database."""
    write_backup(node, tmp_path / "backup", quiet)
    mark = node.store().path.with_name(f"{node.store().path.name}{UNFINISHED}")
    mark.touch()
    with pytest.raises(ConfigError, match="a restore was not finished"):
        migrate(node.store())
    restore(node, tmp_path / "backup", quiet, replace=True)
    assert not mark.exists()
    assert is_sound(node)


def test_checkpoints_prove_the_restored_log_and_tell_what_it_lacks(tmp_path: Path, node: Blueprint) -> None:
    """trust.md B8: a backup of another log, or one that was altered, does not pass for this node's."""
    points = tmp_path / "points.jsonl"
    store, spool = node.store(), node.spool()
    with store.read() as session:
        write_checkpoint(session, points, "NODE")
    write_backup(node, tmp_path / "backup", quiet)
    receive(store, spool, 700)
    receive(store, spool, 701)
    with store.read() as session:
        write_checkpoint(session, points, "NODE")
    store.close()
    done = restore(plan_in(tmp_path / "other"), tmp_path / "backup", quiet, checkpoint=points)
    assert done["lost_rows"] == 3, "the record of the backup itself, and two instances"
    stranger = new_node(tmp_path / "stranger", 5)
    write_backup(stranger, tmp_path / "foreign", quiet)
    with pytest.raises(Permanent, match="not of the log"):
        restore(plan_in(tmp_path / "third"), tmp_path / "foreign", quiet, checkpoint=points)
    assert not (tmp_path / "third" / "data" / "dicomnode.sqlite3").exists()


@dataclass
class Answer:
    """What a command said and how it ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def dicomnode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """The command line in this process, in the folder of the node: a process of its own takes seconds to start."""

    def run(*arguments: str) -> Answer:
        monkeypatch.chdir(tmp_path / "node")
        monkeypatch.setattr(sys, "argv", ["dicomnode", *arguments, "--config", "node.toml"])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return Answer(int(ended.value.code or 0), said.out, said.err)

    return run


def test_the_commands_tell_and_exit_as_documented(tmp_path: Path, node: Blueprint, dicomnode: Any) -> None:
    """R18: rehearsed as an operator does it; 0 done, 1 damaged, 2 refused."""
    made = dicomnode("backup", "../backup", "--json")
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["files"] == 6
    again = dicomnode("backup", "../backup")
    assert (again.returncode, "not empty" in again.stderr) == (2, True)
    proved = dicomnode("backup", "../backup", "--verify")
    assert (proved.returncode, proved.stdout[:11]) == (0, "ok: 6 files")
    there = dicomnode("restore", "../backup")
    assert (there.returncode, "--replace" in there.stderr) == (2, True)
    back = dicomnode("restore", "../backup", "--replace")
    assert back.returncode == 0, back.stderr
    assert "the data that was there" in back.stdout
    assert dicomnode("audit", "verify").returncode == 0
    victim = next((tmp_path / "backup" / "spool").rglob("*.dcm"))
    flip(victim)
    bad = dicomnode("backup", "../backup", "--verify")
    assert (bad.returncode, victim.name in bad.stderr) == (1, True)
    refused = dicomnode("restore", "../backup", "--replace")
    assert (refused.returncode, victim.name in refused.stderr) == (1, True)


@pytest.fixture
def broken(tmp_path: Path, node: Blueprint) -> Path:
    """A node whose database has a page of noise in the middle, behind a header that is good."""
    path = node.store().path
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    query = "SELECT rootpage FROM sqlite_master WHERE name IN ('audit', 'job')"
    roots = [row[0] for row in connection.execute(query)]
    page = connection.execute("PRAGMA page_size").fetchone()[0]
    connection.close()
    content = bytearray(path.read_bytes())
    for root in roots:
        content[(root - 1) * page : root * page] = b"\xa5" * page
    path.write_bytes(content)
    return tmp_path / "node"


def test_serve_on_a_corrupt_database_says_what_is_wrong_and_how_to_restore(broken: Path, dicomnode: Any) -> None:
    """R18: exit status 2, the database named, the way out named; nothing is written over it."""
    before = (broken / "data" / "dicomnode.sqlite3").read_bytes()
    answer = dicomnode("serve")
    assert answer.returncode == 2, answer.stderr
    assert "dicomnode.sqlite3" in answer.stderr
    assert "dicomnode restore" in answer.stderr
    assert (broken / "data" / "dicomnode.sqlite3").read_bytes() == before


def test_doctor_tells_of_a_corrupt_database(broken: Path) -> None:
    """R18: with the way out."""
    found = list(islice(diagnose(Blueprint(*load_config(broken / "node.toml"))), 6))
    assert [item.level for item in found if item.check == "database"] == ["fault"]
    assert "dicomnode restore" in next(item for item in found if item.check == "database").mend


def test_the_queue_goes_on_after_a_restore(tmp_path: Path, node: Blueprint) -> None:
    """R15, R18: what waited at the time of the backup waits in the restored node."""
    write_backup(node, tmp_path / "backup", quiet)
    other = plan_in(tmp_path / "other")
    restore(other, tmp_path / "backup", quiet)
    store = other.store()
    with store.read() as session:
        assert set(session.execute(select(JobRow.kind, JobRow.state))) == {("route", "ready")}
    store.close()
