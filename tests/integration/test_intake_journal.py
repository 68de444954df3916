"""The intake journal: what was acknowledged survives although its own file was never synced (trust.md R1)."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomnode.errors import Transient
from dicomnode.store.journal import IntakeJournal, Saving, _in_a_row, _Segment
from dicomnode.store.journal_record import BLOCK, Record, RecordMemory, encode_head, records, span
from dicomnode.store.spool import Spool, digest, write_all
from dicomnode.store.sync import FileSystemSync, tells_of_failure, unwritten_bytes
from dicomnode.store.tables import InstanceRow
from tests.integration.test_receive_storage import Node, slice_of

SEGMENT = 256 * 1024
LIMIT_S = 60.0
"""The bound of a hang."""


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


def ready(journal: IntakeJournal) -> IntakeJournal:
    wait_for(lambda: bool(journal._segments))
    return journal


def wait_for(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def begun(journal: IntakeJournal, path: str, content: bytes) -> Saving | None:
    memory = RecordMemory(len(content) + BLOCK)
    memory.content(path)[: len(content)] = content
    return journal.begin(path, memory, len(content))


def saved(journal: IntakeJournal, path: str, content: bytes) -> bool:
    """Did the journal take it? Returns when it is durable."""
    saving = begun(journal, path, content)
    if saving is None:
        return False
    with saving:
        saving.wait()
    return True


def placed(spool: Spool, number: int, size: int = 1000) -> tuple[str, bytes]:
    """A file with its name and no sync, as reception has it when it asks the journal."""
    content = number.to_bytes(4, "big") * (size // 4)
    with spool.begin("received", "a1") as file:
        file.write(content)
        path = file.place(f"{digest(content)}-1-{number}.dcm")
        file.keep()
    return path, content


def lose_power(node: Node, what: str) -> None:
    """The worst that a file system may do to files that were not synced; the process is gone without a word."""
    for file in (node.spool.root / "received").rglob("*.dcm"):
        if what == "gone":
            file.unlink()
        else:
            os.truncate(file, 0 if what == "empty" else 700)


@pytest.mark.parametrize("what", ["gone", "empty", "short"])
def test_r1_a_start_puts_back_from_the_journal_what_power_took(tmp_path, what):
    """R1: every acknowledged instance is there with equal hash, though its file was never synced by itself."""
    node = Node(tmp_path, journal_mb=2)
    ready(node.server._services.scp.journal)
    data = [slice_of(number) for number in range(5)]
    assert node.send(*data) == [0x0000] * 5
    copies = {path.name: path.read_bytes() for path in node.spool.journal.iterdir()}
    node.close()
    lose_power(node, what)
    for name, content in copies.items():
        (node.spool.journal / name).write_bytes(content)
    again = Node(tmp_path, journal_mb=0)
    try:
        rows = again.rows(InstanceRow)
        assert len(rows) == 5
        for row in rows:
            stored = again.spool.absolute(row.path).read_bytes()
            assert digest(stored[len(stored) - row.size :]) == row.sha256
            assert stored[128:132] == b"DICM"
        assert list(again.spool.journal.iterdir()) == []
    finally:
        again.close()


def test_r1_nothing_that_was_never_acknowledged_comes_back(tmp_path, spool):
    """R1: a record without a row is no instance."""
    journal = ready(IntakeJournal(spool, "dead", SEGMENT))
    path, content = placed(spool, 1)
    assert saved(journal, path, content)
    spool.remove(path)
    node = Node(tmp_path)
    try:
        assert not spool.absolute(path).exists()
        assert not node.rows(InstanceRow)
    finally:
        node.close()


@pytest.fixture
def one_by_one(monkeypatch):
    """As on a system whose syncfs(2) fails, or does not tell."""

    def fail(_: FileSystemSync, _most: int) -> None:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(FileSystemSync, "sync", fail)


def test_a_clean_stop_syncs_the_file_system_and_removes_the_journal(spool, monkeypatch):
    """R1: after a stop nothing depends on the journal."""
    synced, sync = [], FileSystemSync.sync
    monkeypatch.setattr("dicomnode.store.sync.unwritten_bytes", lambda: 0)
    monkeypatch.setattr(
        FileSystemSync, "sync", lambda it, most: (synced.append(os.fstat(it._descriptor).st_ino), sync(it, most))
    )
    journal = ready(IntakeJournal(spool, "one", SEGMENT))
    path, content = placed(spool, 1)
    assert saved(journal, path, content)
    assert synced == []
    journal.close()
    assert set(synced) == {(spool.root / "received").stat().st_ino}
    assert list(spool.journal.iterdir()) == []


@pytest.mark.parametrize(
    ("release", "honest"),
    [("6.1.0-9-amd64", True), ("5.8.0", True), ("5.7.19", False), ("4.19.0", False), ("x", False)],
)
def test_r3_an_old_kernel_whose_syncfs_hides_failures_is_not_trusted(release, honest):
    """R3: before Linux 5.8 syncfs(2) returned success after a failed write."""
    assert tells_of_failure(release) is honest


def test_r3_the_file_system_is_synced_as_a_whole_only_by_a_kernel_that_tells_of_failures(tmp_path, monkeypatch):
    """R3: neither silence of an old kernel nor an error of a new one is taken for durable."""
    monkeypatch.setattr("dicomnode.store.sync.unwritten_bytes", lambda: 0)
    with monkeypatch.context() as old:
        old.setattr("dicomnode.store.sync.tells_of_failure", lambda: False)
        none = FileSystemSync(tmp_path)
    with pytest.raises(OSError, match="no syncfs"):
        none.sync(10**9)
    none.close()
    if tells_of_failure():
        whole = FileSystemSync(tmp_path)
        whole.sync(10**9)
        whole.close()
        with pytest.raises(OSError, match="syncfs failed"):
            whole.sync(10**9)


def test_what_others_have_to_write_is_not_waited_for(spool, tmp_path, monkeypatch):
    """R1: with much under way on the machine the files are synced one by one, as durable as otherwise."""
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(
        "MemTotal: 24684096 kB\nDirty:            100 kB\nWriteback:         28 kB\nWritebackTmp: 7 kB\n"
    )
    assert unwritten_bytes(meminfo) == 128 * 1024
    assert unwritten_bytes(tmp_path / "none") == 0
    monkeypatch.setattr("dicomnode.store.sync.unwritten_bytes", lambda: 10**9)
    with pytest.raises(OSError, match="no syncfs"):
        FileSystemSync(spool.root).sync(10**9 - 1)
    journal = ready(IntakeJournal(spool, "one", SEGMENT))
    assert saved(journal, *placed(spool, 1))
    synced, sync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(fd), sync(fd)))
    journal.close()
    assert synced


@pytest.mark.usefixtures("one_by_one")
def test_a_clean_stop_syncs_each_file_where_it_has_to(spool, monkeypatch):
    """R1: after a stop nothing depends on the journal."""
    journal = ready(IntakeJournal(spool, "one", SEGMENT))
    path, content = placed(spool, 1)
    assert saved(journal, path, content)
    synced, sync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(str(Path(f"/proc/self/fd/{fd}").readlink())), sync(fd)))
    journal.close()
    assert str(spool.absolute(path)) in synced
    assert str(spool.absolute(path).parent) in synced
    assert list(spool.journal.iterdir()) == []


def test_a_full_journal_says_so_and_begins_anew_when_its_files_are_durable(spool):
    """R1: no record is overwritten before its file is durable by itself."""
    journal = ready(IntakeJournal(spool, "one", SEGMENT))
    count = 0
    deadline = time.monotonic() + LIMIT_S
    while count < 60 and time.monotonic() < deadline:
        path, content = placed(spool, count, 30_000)
        if saved(journal, path, content):
            count += 1
        else:
            assert any(segment.end for segment in journal._segments)
            time.sleep(0.01)
    assert count == 60
    journal.close()


def test_what_does_not_fit_is_left_to_the_caller(spool):
    """R1: a file larger than a segment is synced by itself."""
    journal = ready(IntakeJournal(spool, "one", SEGMENT))
    assert not saved(journal, "received/aa/x.dcm", bytes(SEGMENT))
    journal.close()
    assert not saved(journal, "received/aa/x.dcm", b"closed")


def test_r3_a_disk_that_fails_at_the_journal_is_told_and_the_journal_is_left_alone(spool, monkeypatch):
    """R3: the caller answers A700; what comes later is synced by itself."""
    journal = ready(IntakeJournal(spool, "one", SEGMENT))

    def fail(_descriptor: int) -> None:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(os, "fdatasync", fail)
    path, content = placed(spool, 1)
    with pytest.raises(Transient, match="disk error 5"):
        saved(journal, path, content)
    monkeypatch.undo()
    assert not saved(journal, path, content)
    journal.close()


@pytest.mark.usefixtures("one_by_one")
def test_r3_a_file_whose_own_sync_fails_is_written_again_from_the_journal(spool, monkeypatch):
    """R3: a failed fsync may have dropped the pages; the journal still has them."""
    journal = ready(IntakeJournal(spool, "one", SEGMENT))
    path, content = placed(spool, 1)
    assert saved(journal, path, content)
    sync, failed = os.fsync, []

    def fail_once(descriptor: int) -> None:
        name = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        if name.endswith(".dcm") and not failed:
            failed.append(name)
            os.truncate(spool.absolute(path), 10)
            raise OSError(errno.EIO, "input/output error")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fail_once)
    journal.close()
    assert failed
    assert spool.absolute(path).read_bytes() == content


def test_threads_that_wait_share_a_sync_that_began_after_they_asked(spool, monkeypatch):
    """R1: group commit never answers for a write that came after the sync had begun."""
    journal = ready(IntakeJournal(spool, "one", SEGMENT))
    began, go, calls, sync = threading.Event(), threading.Event(), [], os.fdatasync

    def slow(descriptor: int) -> None:
        calls.append(descriptor)
        began.set()
        assert go.wait(LIMIT_S)
        sync(descriptor)

    monkeypatch.setattr(os, "fdatasync", slow)
    files = [placed(spool, number) for number in range(9)]
    first = threading.Thread(target=saved, args=(journal, *files[0]))
    first.start()
    assert began.wait(LIMIT_S)
    late = [threading.Thread(target=saved, args=(journal, *file)) for file in files[1:]]
    for thread in late:
        thread.start()
    wait_for(lambda: journal._asked.qsize() == len(late))
    assert all(thread.is_alive() for thread in late)
    assert len(calls) == 1
    go.set()
    for thread in (first, *late):
        thread.join(LIMIT_S)
        assert not thread.is_alive()
    assert len(calls) == 2
    journal.close()


@pytest.mark.parametrize("direct", [True, False])
def test_r1_records_that_follow_each_other_come_back_whole(spool, monkeypatch, direct):
    """R1: written by one call or by several, past the page cache or, where the file system refuses that, through it."""
    opened = os.open

    def without_direct(path, flags, *mode):
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "invalid argument")
        return opened(path, flags, *mode)

    if not direct:
        monkeypatch.setattr(os, "open", without_direct)
    journal = ready(IntakeJournal(spool, "one", SEGMENT))
    contents = {f"received/aa/{size}.dcm": os.urandom(size) for size in (1, 4000, 4096, 30_000, 60_001)}
    waiting = [begun(journal, path, content) for path, content in contents.items()]
    for saving in waiting:
        assert saving is not None
        saving.wait()
    with (spool.journal / "one.0").open("rb") as file:
        found = {one.path: os.pread(file.fileno(), one.size, one.content_offset) for one in records(file.fileno())}
    assert found == contents
    for saving in waiting:
        with saving:
            pass
    journal.close()


def test_r1_a_record_stays_until_its_file_has_its_name(spool):
    """R1: a segment is not begun anew over the record of an instance whose file is not there yet."""
    journal = ready(IntakeJournal(spool, "one", SEGMENT))
    content = bytes(200_000)
    late = begun(journal, "received/aa/late.dcm", content)
    assert late is not None
    late.wait()
    other = begun(journal, "received/aa/other.dcm", content)
    assert other is not None
    for _ in range(5):
        journal._recycle(0, journal._segments[0])
    assert journal._segments[0].end > 0
    assert begun(journal, "received/aa/third.dcm", content) is None
    with other, late:
        pass
    journal._recycle(0, journal._segments[0])
    assert journal._segments[0].end == 0
    journal.close()


def test_r1_the_segment_that_takes_records_is_not_begun_anew(spool):
    """R1: one that comes while the files before it are synced would be written over, and its file never synced."""
    journal = ready(IntakeJournal(spool, "one", SEGMENT))
    assert saved(journal, *placed(spool, 1))
    journal._recycle(0, journal._segments[0])
    assert journal._segments[0].end > 0
    assert len(journal._segments[0].records) == 1
    journal.close()


def test_r1_what_is_answered_was_synced_after_it_was_written_in_whatever_segment(spool, monkeypatch):
    """R1: those that share a sync may lie in two segments; each of these is synced, and after its last write."""
    journal = ready(IntakeJournal(spool, "one", SEGMENT))
    began, go, calls = threading.Event(), threading.Event(), []
    write, sync = os.pwritev, os.fdatasync

    def slow(descriptor: int) -> None:
        began.set()
        assert go.wait(LIMIT_S)
        sync(descriptor)
        calls.append(("sync", descriptor))

    def written(descriptor: int, *what: object) -> int:
        calls.append(("write", descriptor))
        return write(descriptor, *what)

    monkeypatch.setattr(os, "fdatasync", slow)
    monkeypatch.setattr(os, "pwritev", written)
    sizes = {"received/aa/first.dcm": 1000, "received/aa/full.dcm": 200_000, "received/aa/next.dcm": 200_000}
    waiting = [begun(journal, path, bytes(size)) for path, size in sizes.items()]
    assert began.wait(LIMIT_S)
    go.set()
    for saving in waiting:
        assert saving is not None
        saving.wait()
    assert len({saving.segment.descriptor for saving in waiting}) == 2
    for descriptor in {saving.segment.descriptor for saving in waiting}:
        assert [what for what, where in calls if where == descriptor][-1] == "sync"
    for saving in waiting:
        with saving:
            pass
    journal.close()


def test_r1_memory_that_is_being_written_is_not_given_back(spool, monkeypatch):
    """R1: who gives an instance up waits until its record is written; the next one would be laid over it."""
    journal = ready(IntakeJournal(spool, "one", SEGMENT))
    began, go, write = threading.Event(), threading.Event(), os.pwritev

    def slow(*what: object) -> int:
        began.set()
        assert go.wait(LIMIT_S)
        return write(*what)

    monkeypatch.setattr(os, "pwritev", slow)
    saving = begun(journal, "received/aa/given_up.dcm", bytes(5000))
    assert saving is not None
    given_back = threading.Event()

    def give_up() -> None:
        with saving:
            pass
        given_back.set()

    leaving = threading.Thread(target=give_up)
    leaving.start()
    assert began.wait(LIMIT_S)
    assert not given_back.wait(0.3)
    go.set()
    assert given_back.wait(LIMIT_S)
    leaving.join(LIMIT_S)
    journal.close()


@pytest.mark.usefixtures("one_by_one")
@pytest.mark.parametrize("what", ["file", "folder", "descriptors"])
def test_r1_a_segment_is_not_begun_anew_while_the_disk_refuses_its_files(spool, monkeypatch, what):
    """R1, R3: where a file, or its name, cannot be made durable by itself, the record is all there is."""
    journal = ready(IntakeJournal(spool, "one", SEGMENT))
    first, second = placed(spool, 1, 200_000), placed(spool, 2, 200_000)
    opened, sync = os.open, os.fsync

    def refuse_open(path, *how):
        if what == "descriptors" and str(path).endswith(".dcm"):
            raise OSError(errno.EMFILE, "too many open files")
        return opened(path, *how)

    def refuse_sync(descriptor: int) -> None:
        is_folder = Path(f"/proc/self/fd/{descriptor}").is_dir()
        if what == ("folder" if is_folder else "file"):
            raise OSError(errno.EIO, "input/output error")
        sync(descriptor)

    monkeypatch.setattr(os, "open", refuse_open)
    monkeypatch.setattr(os, "fsync", refuse_sync)
    assert saved(journal, *first)
    assert saved(journal, *second)
    journal._recycle(0, journal._segments[0])
    assert journal._segments[0].end > 0
    assert len(journal._segments[0].records) == 1
    monkeypatch.undo()
    journal._recycle(0, journal._segments[0])
    assert journal._segments[0].end == 0
    journal.close()


def test_what_is_written_by_one_call_lies_in_a_row():
    """R1: a call never covers a gap or two segments; everything is written, in its order."""
    first, second = (_Segment(Path(name), -1) for name in ("one", "two"))
    memory = RecordMemory(BLOCK)
    places = [(first, 0), (first, 1), (first, 3), (second, 4), (second, 5), (first, 6)]
    waiting = [Saving(where, Record("x", at * BLOCK, 10), memory.block(Record("x", 0, 10))) for where, at in places]
    rows = list(_in_a_row(waiting))
    assert [len(row) for row in rows] == [2, 1, 2, 1]
    assert [one for row in rows for one in row] == waiting


def test_r1_a_stop_leaves_the_journal_of_what_is_still_on_its_way(spool):
    """R1: what has no file yet when the node gives up waiting is found by the next start."""
    journal = ready(IntakeJournal(spool, "one", SEGMENT))
    saving = begun(journal, "received/aa/late.dcm", b"content")
    assert saving is not None
    journal.close()
    assert [file.name for file in spool.journal.iterdir()] == ["one.0"]
    with saving:
        saving.wait()


@given(
    st.lists(st.tuples(st.text("abcdef0123456789/-.", min_size=1, max_size=300), st.binary(max_size=9000)), max_size=6)
)
def test_a_segment_is_read_back_up_to_the_first_byte_that_is_no_record(tmp_path_factory, entries):
    """R1: whatever lies behind the newest record is not taken for one; contents come back as they were."""
    file = tmp_path_factory.mktemp("segment") / "x"
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT)
    try:
        offset, written = 0, []
        for path, content in entries:
            record = Record(path, offset, len(content))
            write_all(descriptor, (encode_head(record), content), offset)
            written.append((record, content))
            offset += span(path, len(content))
        os.ftruncate(descriptor, offset)
        os.pwrite(descriptor, b"DNINTAKE" + os.urandom(BLOCK), offset)
        found = list(records(descriptor))
        assert found == [record for record, _ in written]
        for record, content in written:
            assert os.pread(descriptor, record.size, record.content_offset) == content
    finally:
        os.close(descriptor)
