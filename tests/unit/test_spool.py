"""Spool files: whole or not there, durable before anybody is told, named by digests."""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import threading
from pathlib import Path
from typing import Any

import pytest

from dicomnode.errors import Transient
from dicomnode.store.spool import Spool, digest

NAME = digest(b"x") + ".dcm"
PLACE = f"received/{NAME[:2]}/{NAME}"


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


def files(spool: Spool) -> list[str]:
    return sorted(str(path.relative_to(spool.root)) for path in spool.root.rglob("*") if path.is_file())


def refused(spool: Spool, content: bytes = b"content") -> str:
    with pytest.raises(Transient) as caught:
        spool.store((content,), "received", NAME)
    return str(caught.value)


def test_parts_are_written_in_order_and_found_below_their_area(spool: Spool) -> None:
    path = spool.store((b"DICM", memoryview(b"header"), b"pixels"), "received", NAME)
    assert path == PLACE
    assert spool.absolute(path).read_bytes() == b"DICMheaderpixels"
    assert files(spool) == [PLACE]
    assert digest(b"DICM", memoryview(b"header"), b"pixels") == digest(spool.absolute(path).read_bytes())


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "/etc/passwd", "a\0b", "..\\x", ".hidden", "a b", "1"])
def test_a_name_that_could_leave_the_spool_is_refused(spool: Spool, name: str) -> None:
    """trust.md S7: names are ours; this is the second lock on that door."""
    with pytest.raises(ValueError, match="spool file"):
        spool.store((b"x",), "received", name)
    with pytest.raises(ValueError, match="spool file"):
        spool.create("received", name)
    assert files(spool) == []


def test_a_file_under_its_final_name_is_gone_unless_it_is_kept_and_takes_nobodys_place(spool: Spool) -> None:
    """R1: what an Instance left that was refused after all; and no file is written twice."""
    with spool.create("received", NAME) as file:
        file.write(b"content")
    assert files(spool) == []
    with spool.create("received", NAME) as file:
        file.write(b"content")
        file.keep()
    assert spool.absolute(PLACE).read_bytes() == b"content"
    with pytest.raises(Transient, match="spool: disk error 17"):
        spool.create("received", NAME)
    assert spool.absolute(PLACE).read_bytes() == b"content"


def test_the_file_and_its_folders_are_synced_before_the_path_is_told(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, sync = [], os.fsync

    def record(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()).replace(str(spool.root), ""))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    spool.store((b"x",), "received", NAME)
    assert synced[0] == "/received"
    assert synced[1].startswith("/incoming/")
    assert synced[2] == f"/received/{NAME[:2]}"
    synced.clear()
    spool.store((b"y",), "received", NAME)
    assert [place.split("/")[1] for place in synced] == ["incoming", "received"]


def test_a_folder_that_somebody_else_made_is_synced_too(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may exist and not be on disk yet."""
    (spool.root / "received" / NAME[:2]).mkdir()
    synced, sync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(Path(f"/proc/self/fd/{fd}").readlink()), sync(fd)))
    spool.store((b"x",), "received", NAME)
    assert synced[0] == spool.root / "received"


@pytest.mark.parametrize(
    ("number", "reason"),
    [(errno.ENOSPC, "disk full"), (errno.EDQUOT, "disk full"), (errno.EIO, "disk error 5"), (errno.EROFS, "error 30")],
)
def test_a_disk_that_fails_at_sync_leaves_no_file(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, number: int, reason: str
) -> None:
    """trust.md R3. Delayed allocation and network disks report a full disk at fsync, after write succeeded."""

    def fail(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    assert reason in refused(spool)
    assert files(spool) == []
    monkeypatch.undo()
    assert spool.store((b"again",), "received", NAME) == PLACE


def test_a_disk_that_fails_does_not_touch_the_file_that_was_there(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool.store((b"acknowledged",), "received", NAME)

    def fail(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", fail)
    refused(spool, b"other")
    assert files(spool) == [PLACE]
    assert spool.absolute(PLACE).read_bytes() == b"acknowledged"


def store_with_a_limit(root: Path, answers: Any) -> None:
    """In a process of its own: the kernel refuses to let a file grow beyond 64 KiB, in the middle of a write."""
    spool = Spool(root)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
    try:
        spool.store((b"a" * 40000, b"b" * 40000), "received", NAME)
        answers.put("stored")
    except Transient as error:
        answers.put(str(error))


def test_a_write_that_the_kernel_cuts_short_leaves_no_file(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    process = context.Process(target=store_with_a_limit, args=(tmp_path / "spool", answers))
    process.start()
    assert answers.get(timeout=60) == f"spool: disk error {errno.EFBIG}"
    process.join(60)
    assert files(Spool(tmp_path / "spool")) == []


def test_a_spool_whose_folder_is_gone_answers_transient(spool: Spool) -> None:
    (spool.root / "incoming").rmdir()
    assert "disk error 2" in refused(spool)


def test_the_same_name_is_replaced_in_one_step(spool: Spool) -> None:
    """A reader sees the old or the new content, never a mixture or nothing."""
    contents = [bytes([letter]) * 200_000 for letter in b"ab"]
    spool.store((contents[0],), "received", NAME)
    stop, seen = threading.Event(), set()

    def read() -> None:
        while not stop.is_set():
            seen.add(spool.absolute(PLACE).read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(40):
        spool.store((contents[number % 2],), "received", NAME)
    stop.set()
    reader.join()
    assert seen <= set(contents)
    assert files(spool) == [PLACE]


def test_threads_that_store_at_once_keep_every_file(spool: Spool) -> None:
    def work(start: int) -> None:
        for number in range(start, start + 20):
            spool.store((str(number).encode(),), "received", digest(str(number).encode()))

    threads = [threading.Thread(target=work, args=(start,)) for start in (0, 20, 40, 60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(files(spool)) == 80
    assert all(digest(spool.absolute(path).read_bytes()) == Path(path).name for path in files(spool))


def test_a_start_removes_unfinished_files_and_nothing_else(spool: Spool) -> None:
    spool.store((b"x",), "received", NAME)
    (spool.root / "incoming" / "left.part").write_bytes(b"half")
    [name] = Spool(spool.root).unfinished()
    assert name == "left.part"
    assert (spool.unfinished_age_s(name) or 0.0) < 60
    spool.drop_unfinished(name)
    assert files(spool) == [PLACE]
    assert spool.unfinished() == []
    assert spool.unfinished_age_s(name) is None


def test_removing_is_final_and_repeatable(spool: Spool) -> None:
    path = spool.store((b"x",), "derived", NAME)
    spool.remove(path)
    spool.remove(path)
    assert files(spool) == []


def test_free_space_is_that_of_the_file_system(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    stated = os.statvfs(spool.root)
    assert abs(spool.free_bytes() - stated.f_bavail * stated.f_frsize) < 2**28
    spool.root = spool.root / "gone"
    with pytest.raises(Transient, match="disk error 2"):
        spool.free_bytes()


def test_prepared_folders_are_durable_before_the_first_file(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """R1: one sync for all folders; a file in one of them needs no other than its own and its folder's."""
    synced, sync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(Path(f"/proc/self/fd/{fd}").readlink()), sync(fd)))
    spool.prepare("received")
    assert synced == [spool.root / "received"]
    synced.clear()
    spool.store((b"x",), "received", NAME)
    assert synced[1:] == [spool.root / "received" / NAME[:2]]
