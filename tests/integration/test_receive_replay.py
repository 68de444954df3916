"""What a start takes from the intake journal after a power failure, and what it leaves there (trust.md R1, R2)."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dicomnode.errors import Transient
from dicomnode.receive.recovery import recover
from dicomnode.receive.replay import replay
from dicomnode.store.journal import IntakeJournal
from dicomnode.store.journal_record import records
from dicomnode.store.spool import digest
from dicomnode.store.tables import InstanceRow, ProcessRow
from tests.integration.test_intake_journal import ready, saved
from tests.integration.test_receive_storage import Node, slice_of

NOW = 1000.0


@pytest.fixture
def node(tmp_path: Path):
    """A node with a journal; ``stop`` may have been called already."""
    made = Node(tmp_path, journal_mb=2)
    ready(made.server._services.scp.journal)
    yield made
    made.store.close()


def stop_and_keep_the_journal(node: Node) -> list[Path]:
    """As power goes: the files of the journal are there, the received ones are gone."""
    copies = {path: path.read_bytes() for path in node.spool.journal.iterdir()}
    node.server.stop(1.0)
    for file in (node.spool.root / "received").rglob("*.dcm"):
        file.unlink()
    for path, content in copies.items():
        path.write_bytes(content)
    return sorted(copies)


def stored(node: Node) -> list[bool]:
    """Of every row: is its file there, with what was acknowledged?"""
    found = []
    for row in node.rows(InstanceRow):
        file = node.spool.absolute(row.path)
        found.append(file.is_file() and digest(file.read_bytes()[-row.size :]) == row.sha256)
    return found


def test_r1_a_record_that_the_disk_has_spoiled_is_not_put_back(node: Node) -> None:
    """R1: a file is restored with the hash of its row or not at all; the others come back."""
    assert node.send(*(slice_of(number) for number in range(3))) == [0x0000] * 3
    journal = stop_and_keep_the_journal(node)[0]
    with journal.open("rb+") as file:
        second = list(records(file.fileno()))[1]
        file.seek(second.content_offset + second.size - 1)
        file.write(b"\xff")
    assert replay(node.store, node.spool, ()) == 2
    assert sorted(stored(node)) == [False, True, True]
    assert not node.spool.absolute(second.path).exists()


def test_r1_a_journal_stays_until_every_file_of_it_is_written(node: Node) -> None:
    """R1: a start on a disk that fails tells so, and the next one finds the journal as it was."""
    assert node.send(slice_of(1)) == [0x0000]
    journals = stop_and_keep_the_journal(node)
    shutil.rmtree(node.spool.root / "incoming")
    with pytest.raises(Transient):
        replay(node.store, node.spool, ())
    assert journals[0].exists()
    (node.spool.root / "incoming").mkdir()
    assert replay(node.store, node.spool, ()) == 1
    assert stored(node) == [True]
    assert list(node.spool.journal.iterdir()) == []


def test_r1_a_repeat_that_replaced_a_lost_file_is_put_back_and_no_orphan(node: Node) -> None:
    """R1, R2: its file is named by the Association that sent it again, its row belongs to the first."""
    assert node.send(slice_of(1)) == [0x0000]
    first = node.rows(InstanceRow)[0].path
    node.spool.remove(first)
    assert node.send(slice_of(1)) == [0x0000]
    assert node.rows(InstanceRow)[0].path != first
    stop_and_keep_the_journal(node)
    assert replay(node.store, node.spool, ()) == 1
    with node.store.transaction() as connection:
        connection.execute("UPDATE association SET ended = 'open', owner = 'gone'")
    recover(node.store, node.spool, NOW)
    assert stored(node) == [True]


def test_r1_the_journal_of_a_process_that_runs_is_left_alone(node: Node) -> None:
    """R1: another receiving process that starts takes nothing from those beside it; when they are gone it does."""
    node.server.stop(1.0)
    journal = ready(IntakeJournal(node.spool, "beside", 256 * 1024))
    assert saved(journal, "received/aa/x.dcm", b"content")
    files = sorted(node.spool.journal.iterdir())
    with node.store.write() as session:
        session.add(ProcessRow(owner="beside", role="receive", pid=1, started_at=NOW, heartbeat_at=NOW))
    recover(node.store, node.spool, NOW)
    assert sorted(node.spool.journal.iterdir()) == files
    with node.store.write() as session:
        session.get_one(ProcessRow, "beside").stopped_at = NOW
    recover(node.store, node.spool, NOW)
    assert list(node.spool.journal.iterdir()) == []
    journal.close()
