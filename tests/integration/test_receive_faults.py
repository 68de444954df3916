"""When the disk, the database or the node itself fails: never Success, nothing partial, recovery at the next start."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from contextlib import closing
from io import BytesIO

import pytest
from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import ImplicitVRLittleEndian
from sqlalchemy import select

from dicomnode.audit import verify
from dicomnode.config import Config
from dicomnode.dicom.sop_classes import CT_IMAGE
from dicomnode.errors import Transient
from dicomnode.receive import StorageServer, incoming, scp
from dicomnode.receive.admission import CONGESTION, Admission, Request
from dicomnode.receive.arrival import StoreRequest
from dicomnode.receive.associations import opened
from dicomnode.receive.register import Register
from dicomnode.receive.scp import StorageScp
from dicomnode.receive.tally import OpenAssociation
from dicomnode.store.engine import Store
from dicomnode.store.schema import migrate
from dicomnode.store.spool import Spool
from dicomnode.store.tables import AssociationRow, AuditRow, InstanceRow

SCANNER = Request("CT1", "NODE", "127.0.0.1")


class Node:
    """The C-STORE operation without a network, on a real database and spool."""

    def __init__(self, folder, *, min_free_bytes=0, busy_timeout_s=30.0):
        self.config = Config.model_validate(
            {
                "node": {"ae_title": "NODE", "host": "127.0.0.1", "port": 0, "data_dir": str(folder)},
                "receive": {"min_free_bytes": min_free_bytes, "journal_mb": 0},
                "peer": [{"name": "ct", "ae_title": "CT1", "host": "127.0.0.1", "port": 104, "may_send": True}],
            }
        )
        self.store = Store(f"sqlite:///{folder / 'node.sqlite3'}", busy_timeout_s=busy_timeout_s)
        migrate(self.store)
        self.spool = Spool(folder / "spool")
        self.scp = StorageScp(self.config, self.store, self.spool)
        with self.store.write() as session:
            number = opened(session, SCANNER, "ct", time.time())
        self.association = OpenAssociation(number, SCANNER, "ct")

    def receive(self, number):
        request, data = ct_slice(number)
        incoming = self.scp.begin(self.association, request)
        for start in range(0, len(data), 100):
            incoming.write(memoryview(data)[start : start + 100])
        return incoming.finish()

    def files(self):
        return sorted(path for path in self.spool.root.rglob("*") if path.is_file())

    def rows(self, table):
        with self.store.read() as session:
            return session.scalars(select(table)).all()

    def audit(self, kind):
        return [json.loads(row.body) for row in self.rows(AuditRow) if row.kind == kind]


@pytest.fixture
def node(tmp_path):
    made = Node(tmp_path)
    yield made
    made.store.close()


@pytest.fixture
def hasty(tmp_path):
    """One that does not wait long for its database."""
    made = Node(tmp_path, busy_timeout_s=0.2)
    yield made
    made.store.close()


def ct_slice(number):
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = CT_IMAGE, f"1.2.3.1.{number}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", "1.2.3.1"
    dataset.PatientID, dataset.Modality, dataset.InstanceNumber = "P1", "CT", number
    buffer = BytesIO()
    dcmwrite(buffer, dataset, implicit_vr=True, little_endian=True)
    uid = str(dataset.SOPInstanceUID)
    return StoreRequest(CT_IMAGE, uid, CT_IMAGE, str(ImplicitVRLittleEndian)), buffer.getvalue()


def test_r3_a_disk_below_its_reserve_refuses_and_keeps_nothing(tmp_path):
    node = Node(tmp_path, min_free_bytes=10**18)
    assert node.receive(1) == 0xA700
    assert (node.files(), node.rows(InstanceRow)) == ([], [])
    assert node.association.tally("").refused == 1
    node.store.close()


def test_r3_space_is_looked_at_again_and_at_once_where_there_is_little(node, monkeypatch):
    """R3: far from full a look counts for a moment only, near it not even that."""
    free, ample = [], scp.AMPLE_BYTES + 1
    monkeypatch.setattr(Spool, "free_bytes", lambda _: free[-1])
    monkeypatch.setattr(scp, "LOOK_S", 0.05)
    for bytes_left in (0, ample - 1):
        free.append(bytes_left)
        node.scp.require_space()
        free.append(-1)
        with pytest.raises(Transient, match="min_free_bytes"):
            node.scp.require_space()
    free.append(ample)
    node.scp.require_space()
    free.append(-1)
    until = time.monotonic() + 60
    while node.receive(1) == 0x0000:
        assert time.monotonic() < until, "the disk is full, and nobody looks"
    free.append(0)
    assert node.receive(2) == 0x0000


def test_r3_a_disk_that_fills_while_an_instance_comes_refuses_it(node, monkeypatch):
    """R3: one that is large is not taken to the last byte of the reserve."""
    free = [0]
    monkeypatch.setattr(Spool, "free_bytes", lambda _: free[-1])
    monkeypatch.setattr(incoming, "SPACE_CHECK_BYTES", 50)
    request, data = ct_slice(1)
    coming = node.scp.begin(node.association, request)
    free.append(-1)
    for start in range(0, len(data), 100):
        coming.write(memoryview(data)[start : start + 100])
    assert coming.finish() == 0xA700
    assert (node.files(), node.rows(InstanceRow)) == ([], [])


def test_r3_a_spool_that_fails_refuses_and_recovers_without_restart(node):
    (node.spool.root / "incoming").rmdir()
    assert node.receive(1) == 0xA700
    assert (node.files(), node.rows(InstanceRow)) == ([], [])
    (node.spool.root / "incoming").mkdir()
    assert node.receive(1) == 0x0000


def test_r4_a_locked_database_never_gives_success_and_leaves_no_file(hasty, tmp_path):
    with closing(sqlite3.connect(tmp_path / "node.sqlite3", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert hasty.receive(1) == 0xA700
        assert hasty.files() == []
        other.execute("ROLLBACK")
    assert hasty.receive(1) == 0x0000
    assert len(hasty.files()) == 1


def test_r4_without_a_database_no_association_is_admitted(hasty, tmp_path):
    register = Register(Admission(hasty.config), hasty.store, time.time)
    with closing(sqlite3.connect(tmp_path / "node.sqlite3", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert register.admit(SCANNER) == CONGESTION


def test_an_end_that_cannot_be_written_is_written_later(hasty, tmp_path):
    register = Register(Admission(hasty.config), hasty.store, time.time)
    known = register.admit(SCANNER)
    with closing(sqlite3.connect(tmp_path / "node.sqlite3", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        register.end(known, "released")
        assert hasty.rows(AssociationRow)[-1].ended == "open"
        other.execute("ROLLBACK")
    register.reap()
    assert hasty.rows(AssociationRow)[-1].ended == "released"
    assert register.open == ()


def test_a_transaction_that_fails_leaves_neither_rows_nor_file(node, monkeypatch):
    def fail(*_arguments, **_keywords):
        raise Transient("database: disk I/O error")

    monkeypatch.setattr("dicomnode.receive.ledger.append_many", fail)
    assert node.receive(1) == 0xA700
    assert (node.files(), node.rows(InstanceRow)) == ([], [])


def test_an_error_of_ours_is_a_processing_failure_with_an_alert(node, monkeypatch):
    def fail(*_arguments, **_keywords):
        raise ZeroDivisionError

    monkeypatch.setattr("dicomnode.receive.ledger.append_many", fail)
    assert node.receive(1) == 0x0110
    assert (node.files(), node.rows(InstanceRow)) == ([], [])
    assert "ZeroDivisionError" in node.audit("security alert")[0]["reason"]


def test_a_start_closes_lost_associations_and_reconciles_their_transfers(node):
    for number in (1, 2, 3, 3):
        assert node.receive(number) == 0x0000
    server = StorageServer(node.config, node.store, node.spool)
    server.start()
    server.stop(1.0)
    [row] = node.rows(AssociationRow)
    assert row.ended == "lost"
    [begun], [done] = node.audit("begin transferring"), node.audit("instances transferred")
    assert done == begun | {"n_new": 3, "n_repeated": 1, "n_conflict": 0, "n_refused": None, "ended": "lost"}
    assert row.n_stored == 3
    with node.store.read() as session:
        assert verify(session).ok


def test_r2_a_start_removes_what_was_never_acknowledged_and_nothing_else(node):
    for number in range(5):
        assert node.receive(number) == 0x0000
    kept = node.files()
    (node.spool.root / "incoming" / "torn.part").write_bytes(b"half")
    node.spool.store((b"renamed, but no row",), "received", "ab" * 32 + f"-{node.association.id}-1.dcm")
    server = StorageServer(node.config, node.store, node.spool)
    server.start()
    server.stop(1.0)
    assert node.files() == kept


def test_a_start_after_a_clean_stop_does_not_search_for_orphans(node):
    with node.store.write() as session:
        session.scalar(select(AssociationRow)).ended = "released"
    path = node.spool.store(
        (b"older than any lost association",), "received", "cd" * 32 + f"-{node.association.id}-1.dcm"
    )
    server = StorageServer(node.config, node.store, node.spool)
    server.start()
    server.stop(1.0)
    assert node.spool.absolute(path).is_file()


def test_files_older_than_the_lost_association_are_left_alone(node):
    path = node.spool.store((b"old",), "received", "ef" * 32 + f"-{node.association.id}-1.dcm")
    long_ago = time.time() - 3600
    os.utime(node.spool.absolute(path), (long_ago, long_ago))
    server = StorageServer(node.config, node.store, node.spool)
    server.start()
    server.stop(1.0)
    assert node.spool.absolute(path).is_file()
