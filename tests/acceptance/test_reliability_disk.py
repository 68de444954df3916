"""R3, R4: a disk or a database that fails means "send again", never Success, never half an object."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomnode.store.journal_record import BLOCK
from tests.faults.breaker import Breaker
from tests.faults.load import Account, start_scanners, stop_scanners
from tests.faults.receiver import READY_S, Receiver, leftovers, serving, stored, torn_files, wait_until
from tests.faults.scu import OUT_OF_RESOURCES, SUCCESS, Image, Scu, make_image
from tests.faults.shims import needs_gcc

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]
BIG = 256
BIG_BYTES = BIG * BIG * 2


@pytest.fixture(scope="module")
def broken_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Receiver, Breaker]]:
    """A receiving node on a disk that can be broken, with its journal in use: it is made in the background."""
    folder = tmp_path_factory.mktemp("broken").resolve()
    breaker = Breaker(folder)
    limits = "min_free_bytes = 1000000\nprocesses = 1"
    with Receiver(folder / "node", receive=limits, environment=breaker.environment) as receiver:
        wait_until(lambda: _journal_is_used(receiver), READY_S, "the journal is made in the background")
        yield receiver, breaker


def _journal_is_used(receiver: Receiver) -> bool:
    """Its files are there before they are whole, so that only what is written into one of them shows it."""
    with Scu(receiver.port) as scu:
        assert scu.store(make_image("2.25.30", 1)) == SUCCESS
        scu.release()
    for segment in (receiver.data / "spool" / "journal").iterdir():
        with segment.open("rb") as stream:
            if stream.read(BLOCK).strip(b"\0"):
                return True
    return False


@needs_gcc
@pytest.mark.parametrize("where", ["spool", "database"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS], ids=errno.errorcode.get)
def test_a_failing_disk_refuses_keeps_nothing_and_recovers(
    broken_node: tuple[Receiver, Breaker], where: str, number: int
) -> None:
    """R3: ENOSPC, EDQUOT, EIO, EROFS on spool or database: A700, no partial, recovery without a restart."""
    receiver, breaker = broken_node
    place = receiver.data / "spool" if where == "spool" else receiver.database
    first, second = (make_image(f"2.25.3.{number}.{len(where)}", n) for n in (1, 2))
    with Scu(receiver.port) as scu:
        assert scu.store(first) == SUCCESS
        before = sorted((receiver.data / "spool").rglob("*.*"))
        breaker.fail(number, place)
        try:
            statuses = [scu.store(second) for _ in range(2)]
        finally:
            breaker.mend()
        assert statuses == [OUT_OF_RESOURCES] * 2
        assert sorted((receiver.data / "spool").rglob("*.*")) == before
        assert second.uid not in stored(receiver.data)
        assert scu.store(second) == SUCCESS
        scu.release()
    held = stored(receiver.data)
    assert [held[image.uid] for image in (first, second)] == [first.sha256, second.sha256]
    assert (torn_files(receiver.data), leftovers(receiver.data)) == ([], [])


class SmallDisk:
    """A tmpfs of a few megabytes."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)])
        if mounted.returncode:
            pytest.skip("no right to mount a small disk")

    def grow(self, megabytes: int) -> None:
        """Give it more room."""
        subprocess.run(["mount", "-o", f"remount,size={megabytes}m", str(self.folder)], check=True)

    def free(self) -> int:
        """Free bytes."""
        about = os.statvfs(self.folder)
        return about.f_bavail * about.f_frsize

    def close(self) -> None:
        """Unmount; waits for nobody."""
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)


def _send_until_refused(scu: Scu, root: str, limit: int) -> tuple[list[Image], Image, int]:
    """What was acknowledged, what was not, and its status."""
    kept = []
    for number in range(1, limit + 1):
        image = make_image(root, number, side=BIG)
        status = scu.store(image)
        if status != SUCCESS:
            return kept, image, status
        kept.append(image)
    raise AssertionError(f"{limit} images went on a disk that is too small for them")


@pytest.mark.parametrize("where", ["spool", "database"])
def test_a_full_disk_refuses_keeps_nothing_partial_and_recovers(tmp_path: Path, where: str) -> None:
    """R3: a disk that is really full: A700, what was acknowledged is whole, room again means Success again."""
    disk = SmallDisk(tmp_path / "node" / ("data/spool" if where == "spool" else "db"), 3)
    database = disk.folder / "n.sqlite3" if where == "database" else None
    receiver = Receiver(
        tmp_path / "node",
        receive="min_free_bytes = 0",
        node=f'database = "sqlite:///{database}"' if database else "",
    )
    try:
        with serving(receiver) as port, Scu(port) as scu:
            kept, refused, status = _send_until_refused(scu, "2.25.31", 600)
            assert status == OUT_OF_RESOURCES
            assert scu.store(refused) == OUT_OF_RESOURCES
            assert leftovers(receiver.data) == []
            held = stored(receiver.data, database)
            assert {image.uid: image.sha256 for image in kept} == held
            disk.grow(64)
            assert scu.store(refused) == SUCCESS
            scu.release()
        assert stored(receiver.data, database)[refused.uid] == refused.sha256
    finally:
        disk.close()


def test_the_reserve_stops_the_intake_before_the_disk_is_full(tmp_path: Path) -> None:
    """R3: below min_free_bytes every instance is refused, from all scanners, while there is still room."""
    reserve, scanners = 4_000_000, 3
    disk = SmallDisk(tmp_path / "node" / "data" / "spool", 10)
    account = Account()
    receiver = Receiver(tmp_path / "node", receive=f"min_free_bytes = {reserve}")
    try:
        with serving(receiver) as port:
            senders = start_scanners(port, scanners, account, images=25, studies=1, side=BIG)
            wait_until(lambda: account.refused.get(OUT_OF_RESOURCES, 0) >= 2 * scanners, READY_S, "refusals")
            stop_scanners(senders)
            assert set(account.refused) == {OUT_OF_RESOURCES}
            assert reserve - scanners * (BIG_BYTES + 8192) < disk.free() < reserve + 2 * BIG_BYTES
            held = stored(receiver.data)
            assert {uid: held.get(uid) for uid in account.acknowledged} == account.acknowledged
            disk.grow(64)
            with Scu(port) as scu:
                assert scu.store(make_image("2.25.32", 1, side=BIG)) == SUCCESS
                scu.release()
    finally:
        disk.close()


HOLD = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
database.execute("ROLLBACK")
"""


def test_a_locked_database_never_gives_success(tmp_path: Path) -> None:
    """R4: another process holds the write lock beyond the time-out: A7xx, never 0000; then all is well."""
    receiver = Receiver(tmp_path)
    with serving(receiver, busy_timeout_s=0.5) as port:
        scanners = [Scu(port) for _ in range(3)]
        command = [sys.executable, "-c", HOLD, str(receiver.database)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            for index, scu in enumerate(scanners):
                scu.send(make_image(f"2.25.4.{index}", 1))
            statuses = [scu.status() for scu in scanners]
            assert [status & 0xFF00 for status in statuses] == [OUT_OF_RESOURCES] * 3
            assert [path for path in (receiver.data / "spool").rglob("*.*") if path.parent.name != "journal"] == []
            holder.communicate("")
        assert stored(receiver.data) == {}
        assert [scu.store(make_image(f"2.25.4.{index}", 1)) for index, scu in enumerate(scanners)] == [SUCCESS] * 3
        for scu in scanners:
            scu.release()
        assert len(stored(receiver.data)) == 3
