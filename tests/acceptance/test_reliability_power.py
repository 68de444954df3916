"""R1: Success means durable. Seen from the kernel, and by cutting the power at every kind of moment."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.faults.cuts import Recording, cut_and_start, cut_points, record_reception
from tests.faults.order import STRACE, out_of_order, read_trace
from tests.faults.powerloss import Answer, answers, without_syncs
from tests.faults.receiver import Receiver, stored_paths
from tests.faults.scu import SUCCESS, Scu, make_image
from tests.faults.shims import build, needs_gcc

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]
ASSOCIATIONS, IMAGES = 3, 8
FORGOTTEN = {
    "content": ((".part", ".dcm"), ("journal",)),
    "names": (("/journal",), ("received",)),
    "database": (("-wal", ".sqlite3"), ()),
    "data folder": (("/node",), ()),
}
"""What a node could forget to sync: files with these endings, and those in folders of these names."""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_the_kernel_saw_every_sync_before_the_answer(tmp_path: Path) -> None:
    """R1: bytes, their sync, the folder's sync, the row, its sync, and only then the C-STORE-RSP with 0x0000."""
    root = (tmp_path / "node").resolve()
    limits = "min_free_bytes = 1000000\njournal_mb = 4\nprocesses = 2"
    receiver = Receiver(root, receive=limits, wrapper=[*STRACE, "-o", str(tmp_path / "trace")])
    try:
        receiver.start()
        scanners = [Scu(receiver.port) for _ in range(2)]
        for number in range(1, 4):
            for index, scu in enumerate(scanners):
                scu.send(make_image(f"2.25.5.{index}", number))
            assert [scu.status() for scu in scanners] == [SUCCESS] * 2
        for scu in scanners:
            scu.release()
        assert receiver.stop() == 0
    finally:
        receiver.close()
    events = read_trace(tmp_path / "trace", root)
    seen = [answer for answer in answers(events) if answer.status == SUCCESS]
    sent = {(scu.local_port, message): image for scu in scanners for message, image in scu.sent.items()}
    assert len(seen) == len(sent) == 6
    paths = stored_paths(receiver.data)

    def faults(events, answer: Answer) -> list[str]:
        image = sent[answer.port, answer.message]
        return out_of_order(events, answer.sequence, paths[image.uid], image.uid, image.data)

    assert [faults(events, answer) for answer in seen] == [[]] * 6
    for name, (endings, folders) in FORGOTTEN.items():
        worse = without_syncs(events, endings, folders)
        assert all(faults(worse, answer) for answer in seen) == (name != "data folder"), name


FILE, FOLDER, WAL = "/n/spool/received/ab/x.dcm", "/n/spool/received/ab", "/n/d.sqlite3-wal"
JOURNAL = "/n/spool/journal/1.0"
CALLS = {
    "make journal": ("pwrite64(8<{journal}>, {zeros}, 3, 0) = 3", "fsync(9<{journals}>) = 0"),
    "journal": ("pwritev(8<{journal}>, [{{iov_base={zeros}, iov_len=3}}, {{iov_base={data}, iov_len=3}}], 2, 0) = 6",),
    "sync journal": ("fdatasync(8<{journal}>) = 0",),
    "bytes": ("pwrite64(5<{incoming}>, {data}, 9, 0) = 9",),
    "sync file": ("fsync(5<{incoming}>) = 0",),
    "rename": ("rename({incoming_name}, {file_name}) = 0",),
    "sync folder": ("fsync(6<{folder}>) = 0",),
    "row": ("pwrite64(7<{wal}>, {uid}, 9, 0) = 9",),
    "sync row": ("fdatasync(7<{wal}>) = 0",),
}
RIGHT = ["bytes", "sync file", "rename", "sync folder", "row", "sync row"]


def _hex(text: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in text.encode())


def _judge(folder: Path, steps: list[str]) -> list[str]:
    names = {
        "incoming": _hex("/n/spool/incoming/1.part"),
        "incoming_name": f'"{_hex("/n/spool/incoming/1.part")}"',
        "file_name": f'"{_hex(FILE)}"',
        "folder": _hex(FOLDER),
        "wal": _hex(WAL),
        "journal": _hex(JOURNAL),
        "journals": _hex("/n/spool/journal"),
        "zeros": f'"{_hex("000")}"',
        "data": f'"{_hex("ABC")}"',
        "uid": f'"{_hex("2.25.77")}"',
    }
    lines = [f"9 {call.format(**names)}" for step in steps for call in CALLS[step]]
    (folder / "trace").write_text("\n".join(lines))
    events = read_trace(folder / "trace", Path("/n"))
    return out_of_order(events, len(lines) + 1, FILE, "2.25.77", b"ABC")


def test_the_judge_of_the_order_knows_every_wrong_one(tmp_path: Path) -> None:
    """R1: the check of the system calls can fail: each step that is left out or comes too late is found."""
    assert _judge(tmp_path, RIGHT) == []
    for step in RIGHT:
        assert _judge(tmp_path, [other for other in RIGHT if other != step]), f"without {step}"
    assert _judge(tmp_path, ["sync file", "bytes", *RIGHT[2:]]) == ["the file was not synced after its last byte"]
    late_folder = ["bytes", "sync file", "sync folder", "rename", "row", "sync row"]
    assert _judge(tmp_path, late_folder)[0] == "the folder of the file was not synced after the file got its name"
    assert _judge(tmp_path, ["row", "sync row", *RIGHT[:4]]) == ["no row was written after the file was durable"]
    assert _judge(tmp_path, [*RIGHT[:4], "sync row", "row"]) == ["the row was not synced"]


def test_the_judge_takes_a_journal_for_the_file_and_nothing_less(tmp_path: Path) -> None:
    """R1: a whole copy in a synced journal under a synced name is as good as the file; each step of it is needed."""
    right = ["make journal", "bytes", "rename", "journal", "sync journal", "row", "sync row"]
    assert _judge(tmp_path, right) == []
    for step in ("make journal", "journal", "sync journal", "row", "sync row"):
        assert _judge(tmp_path, [other for other in right if other != step]), f"without {step}"
    assert _judge(tmp_path, ["make journal", "bytes", "rename", "sync journal", "journal", "row", "sync row"])
    assert _judge(tmp_path, ["make journal", "bytes", "rename", "row", "sync row", "journal", "sync journal"])


def test_a_sync_that_began_before_the_bytes_covers_nothing(tmp_path: Path) -> None:
    """R1: a sync under way while the bytes are written is none for them."""
    part = _hex("/n/spool/incoming/1.part")
    lines = [
        f"8 fsync(5<{part}> <unfinished ...>",
        f'9 pwrite64(5<{part}>, "{_hex("ABC")}", 3, 0) = 3',
        "8 <... fsync resumed>)              = 0",
        f'9 rename("{part}", "{_hex(FILE)}") = 0',
    ]
    (tmp_path / "trace").write_text("\n".join(lines))
    faults = out_of_order(read_trace(tmp_path / "trace", Path("/n")), 9, FILE, "2.25.77", b"ABC")
    assert "the file was not synced after its last byte" in faults


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """A node from its very first start, with scanners side by side."""
    folder = tmp_path_factory.mktemp("recording")
    return record_reception(folder, build("recorder", folder), ASSOCIATIONS, IMAGES)


@needs_gcc
def test_the_record_shows_every_sync_before_the_answer(recording: Recording) -> None:
    """R1: the same order in the record of the shim, which works where the kernel lets nobody trace."""
    faults = {
        uid: out_of_order(recording.events, sequence, recording.paths[uid], uid, recording.images[uid].data)
        for sequence, uid, _ in recording.promised
    }
    assert {uid: found for uid, found in faults.items() if found} == {}
    assert len(faults) == ASSOCIATIONS * IMAGES


@needs_gcc
@pytest.mark.parametrize("seed", [None, 1], ids=["all unsynced lost", "random parts kept"])
def test_no_power_cut_loses_what_was_acknowledged(recording: Recording, tmp_path: Path, seed: int | None) -> None:
    """R1: with unsynced writes dropped, every acknowledged UID is there with equal hash and the chain verifies."""
    points = cut_points(recording, 16, 20261121 + (seed or 0))
    results = cut_and_start(recording, recording.events, points, tmp_path, seed)
    assert [result for result in results if not result.good] == []
    assert results[-1].promised == ASSOCIATIONS * IMAGES


@needs_gcc
@pytest.mark.parametrize("forgotten", FORGOTTEN)
def test_a_node_that_forgets_a_sync_would_be_found_out(recording: Recording, tmp_path: Path, forgotten: str) -> None:
    """R1: the power cuts can fail: without the syncs of one kind, acknowledged instances are missing."""
    worse = without_syncs(recording.events, *FORGOTTEN[forgotten])
    last_answer = max(sequence for sequence, _, _ in recording.promised)
    [result] = cut_and_start(recording, worse, [last_answer], tmp_path)
    assert result.missing
