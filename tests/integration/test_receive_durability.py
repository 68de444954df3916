"""R1 inside the node: rows are written while the file is saved, and committed after it."""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
from contextlib import closing

import pytest
from pydicom.uid import ImplicitVRLittleEndian

from dicomnode.dicom.sop_classes import CT_IMAGE
from dicomnode.errors import Transient
from dicomnode.receive import incoming
from dicomnode.receive.ledger import Ledger, _Waiting
from dicomnode.receive.part10 import file_head
from dicomnode.store.journal_record import BLOCK, RecordMemory
from dicomnode.store.spool import digest
from dicomnode.store.tables import InstanceRow
from tests.integration.test_intake_journal import ready
from tests.integration.test_receive_storage import SERIES, Node, slice_of

WAIT_S = 20.0


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


def test_r1_one_file_that_fails_does_not_take_the_others_with_it(node):
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

    batch = [_Waiting(kept[0][0], never), _Waiting(kept[1][0], kept[1][1])]
    ledger._write(batch)
    assert failed.is_set()
    assert isinstance(batch[0].error, Transient)
    assert batch[1].recorded is not None
    assert [row.SOPInstanceUID for row in node.rows(InstanceRow)] == [kept[1][0].examined.reference.SOPInstanceUID]


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
