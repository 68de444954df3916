"""R1 inside the node: rows are written while the file is saved, and committed after it."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from pydicom.uid import ImplicitVRLittleEndian

from dicomnode.dicom.sop_classes import CT_IMAGE
from dicomnode.errors import Transient
from dicomnode.receive import incoming
from dicomnode.receive.ledger import Ledger, _Waiting
from dicomnode.receive.part10 import file_head
from dicomnode.store.journal_record import BLOCK, RecordMemory
from dicomnode.store.spool import Spool, digest
from dicomnode.store.tables import InstanceRow
from tests.integration.test_intake_journal import ready
from tests.integration.test_receive_storage import SERIES, Node, slice_of, store_bytes

WAIT_S = 60.0


@pytest.fixture
def node(tmp_path):
    made = Node(tmp_path, journal_mb=4)
    ready(made.server._services.scp.journal)
    yield made
    made.close()


def committed(folder) -> int:
    """Instances that another process would see."""
    with closing(sqlite3.connect(folder / "node.sqlite3")) as other:
        return int(other.execute("SELECT count(*) FROM instance").fetchone()[0])


def test_r1_rows_are_not_committed_before_the_file_is_durable(node, tmp_path, monkeypatch):
    """R1: while the journal is being synced nobody sees a row, and the sender has no answer."""
    began, go, sync = threading.Event(), threading.Event(), os.fdatasync

    def slow(descriptor: int) -> None:
        began.set()
        assert go.wait(WAIT_S)
        sync(descriptor)

    monkeypatch.setattr(os, "fdatasync", slow)
    written, add = threading.Event(), Ledger._commit

    def watched(ledger, waiting):
        saved = waiting[0].durable
        waiting[0].durable = lambda: (written.set(), saved())
        add(ledger, waiting)

    monkeypatch.setattr(Ledger, "_commit", watched)
    statuses: list[int] = []
    sending = threading.Thread(target=lambda: statuses.extend(node.send(slice_of(1))))
    sending.start()
    assert began.wait(WAIT_S)
    assert written.wait(WAIT_S)
    assert (committed(tmp_path), statuses) == (0, [])
    go.set()
    sending.join(WAIT_S)
    assert (committed(tmp_path), statuses) == (1, [0x0000])


def test_r3_a_journal_that_fails_under_the_rows_takes_them_back(node, tmp_path, monkeypatch):
    """R3: rows are written when the disk fails at the journal: 0xA700, nothing is kept, the next one is stored."""

    def fail(_descriptor: int) -> None:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(os, "fdatasync", fail)
    assert node.send(slice_of(1)) == [0xA700]
    assert committed(tmp_path) == 0
    assert list((node.spool.root / "received").rglob("*.dcm")) == []
    assert list((node.spool.root / "incoming").iterdir()) == []
    monkeypatch.undo()
    assert node.send(slice_of(1)) == [0x0000]
    assert committed(tmp_path) == 1


def test_r3_a_file_that_cannot_be_written_is_refused_though_the_journal_holds_it(node, tmp_path):
    """R3: the journal's copy goes with its segment; without a file there is no Success."""
    received = node.spool.root / "received"
    shutil.rmtree(received)
    assert node.send(slice_of(1)) == [0xA700]
    assert committed(tmp_path) == 0
    received.mkdir()
    node.spool.prepare("received")
    assert node.send(slice_of(1)) == [0x0000]
    assert committed(tmp_path) == 1


def test_r2_nothing_stays_of_an_instance_that_is_refused_while_its_file_is_made(node, monkeypatch):
    """R2: the refusal waits for the file, to remove it, and to have the memory back for the next instance."""
    made, create = threading.Event(), Spool.create

    def slow(spool, area, name):
        time.sleep(0.3)
        file = create(spool, area, name)
        made.set()
        return file

    monkeypatch.setattr(Spool, "create", slow)
    association = node.associate()
    assert store_bytes(association, slice_of(1)[:100], instance=f"{SERIES}.1") == 0xC000
    assert made.wait(WAIT_S)
    assert list((node.spool.root / "received").rglob("*.dcm")) == []
    association.release()
    node.settle()


@pytest.fixture
def without_journal(tmp_path):
    made = Node(tmp_path, journal_mb=0)
    yield made
    made.close()


def _of_an_instance(descriptor: int) -> bool:
    return Path(f"/proc/self/fd/{descriptor}").readlink().suffix == ".dcm"


def test_r1_a_file_that_is_synced_by_itself_is_durable_before_its_rows(without_journal, tmp_path, monkeypatch):
    """R1: a large file, or one for which the journal has no room, is waited for like any other."""
    began, go, sync = threading.Event(), threading.Event(), os.fsync

    def slow(descriptor: int) -> None:
        if _of_an_instance(descriptor):
            began.set()
            assert go.wait(WAIT_S)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", slow)
    statuses: list[int] = []
    sending = threading.Thread(target=lambda: statuses.extend(without_journal.send(slice_of(1))))
    sending.start()
    assert began.wait(WAIT_S)
    sending.join(0.5)
    assert (committed(tmp_path), statuses) == (0, [])
    go.set()
    sending.join(WAIT_S)
    assert (committed(tmp_path), statuses) == (1, [0x0000])


def test_r3_a_file_whose_own_sync_fails_is_refused(without_journal, tmp_path, monkeypatch):
    """R3: 0xA700, neither rows nor file, and the next one is stored."""
    sync = os.fsync

    def fail(descriptor: int) -> None:
        if _of_an_instance(descriptor):
            raise OSError(errno.EIO, "input/output error")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    assert without_journal.send(slice_of(1)) == [0xA700]
    assert (committed(tmp_path), without_journal.files()) == (0, [])
    monkeypatch.undo()
    assert without_journal.send(slice_of(1)) == [0x0000]


@pytest.mark.parametrize("failing", [0, 1])
def test_r1_one_file_that_fails_does_not_take_the_others_with_it(node, failing):
    """R1: of those that share a transaction, the one whose file is not durable is refused, the others are recorded."""
    failed, kept = threading.Event(), []
    ledger = node.server._services.scp.ledger
    record = ledger.record

    def shared(spooled, durable):
        kept.append((spooled, durable))
        return record(spooled, durable)

    ledger.record = shared
    assert node.send(slice_of(1), slice_of(2)) == [0x0000] * 2
    with node.store.transaction() as connection:
        connection.execute("DELETE FROM instance")

    def never() -> None:
        failed.set()
        raise Transient("spool: disk error 5")

    batch = [_Waiting(spooled, never if at == failing else durable) for at, (spooled, durable) in enumerate(kept)]
    ledger._write(batch)
    assert failed.is_set()
    assert isinstance(batch[failing].error, Transient)
    assert batch[1 - failing].recorded is not None
    sound = kept[1 - failing][0].examined.reference.SOPInstanceUID
    assert [row.SOPInstanceUID for row in node.rows(InstanceRow)] == [sound]


@pytest.mark.parametrize("over", [-2, 0, 2])
def test_an_instance_is_whole_whether_it_stays_in_memory_or_not(node, monkeypatch, over):
    """R1: around the size up to which an Instance stays in memory, files hold what was sent; memory serves again."""
    assert node.send(slice_of(9)) == [0x0000]
    room = len(RecordMemory(2 * BLOCK).content(node.rows(InstanceRow)[0].path)) // 2 * 2
    head = len(file_head(CT_IMAGE, f"{SERIES}.1", ImplicitVRLittleEndian, "CT1"))
    missing = room + over - head - len(slice_of(1, ImageComments=""))
    data = [slice_of(n, filling=bytes([n, 7]), ImageComments="x" * missing) for n in (1, 2, 3)]
    monkeypatch.setattr(incoming, "JOURNALED_BYTES", 2 * BLOCK)
    assert node.send(*data) == [0x0000] * 3
    rows = [row for row in node.rows(InstanceRow) if row.SOPInstanceUID != f"{SERIES}.9"]
    assert len(rows) == 3
    for row, sent in zip(sorted(rows, key=lambda row: row.SOPInstanceUID), data, strict=True):
        stored = node.spool.absolute(row.path).read_bytes()
        assert stored[len(stored) - row.size :] == sent
        assert digest(sent) == row.sha256
    in_journal = sum(len(segment.records) for segment in node.server._services.scp.journal._segments)
    assert in_journal == 1 + (0 if over > 0 else 3)
