"""R1: every acknowledged Instance is there after a power cut, whenever it comes."""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dicomnode.config import parse_config
from dicomnode.node.recovery import recover
from dicomnode.receive import StorageServer
from dicomnode.store.engine import Store
from dicomnode.store.schema import migrate
from dicomnode.store.spool import Spool
from tests.faults.powerloss import Disk, Event, answers, read_record
from tests.faults.receiver import READY_S, Receiver, chain_is_whole, leftovers, stored, stored_paths
from tests.faults.scu import SUCCESS, Image, Scu, make_image

LIMITS = "journal_mb = 1\nprocesses = 2"
"""A journal that is soon full, so that its files are synced and its segments used again within a record."""
SIDE = 160


@dataclass(frozen=True, slots=True)
class Recording:
    """A receiving node from its first start on. ``promised``: (sequence of the answer, UID, SHA-256).

    ``images``: UID to what was sent, ``paths``: UID to its file in the end.
    """

    root: Path
    images: dict[str, Image]
    paths: dict[str, str]
    events: list[Event]
    promised: list[tuple[int, str, str]]
    configuration: str


@dataclass(frozen=True, slots=True)
class CutResult:
    """What one cut left. ``missing``: UIDs that were acknowledged before it and are not there with equal bytes."""

    after: int
    promised: int
    missing: tuple[str, ...]
    chain_whole: bool
    left: tuple[str, ...]

    @property
    def good(self) -> bool:
        return not self.missing and self.chain_whole and not self.left


def record_reception(folder: Path, library: Path, associations: int, images: int) -> Recording:
    """Run a node under the recorder while scanners send side by side; the record holds all it did to its files."""
    root, record = (folder / "node").resolve(), folder / "record"
    root.mkdir()
    receiver = Receiver(
        root,
        receive=f"min_free_bytes = 1000000\n{LIMITS}",
        environment={"LD_PRELOAD": str(library), "RECORD_ROOT": str(root), "RECORD_FILE": str(record)},
    )
    receiver.config.rename(folder / "dicomnode.toml")
    receiver.config, receiver.log = folder / "dicomnode.toml", folder / "node.log"
    scanners: list[Scu] = []
    try:
        receiver.start()
        scanners = [Scu(receiver.port) for _ in range(associations)]
        _send_side_by_side(scanners, images)
        assert receiver.stop() == 0
    finally:
        receiver.close()
    events = read_record(record)
    _require_whole(root, events)
    sent = {(scu.local_port, message): image for scu in scanners for message, image in scu.sent.items()}
    promised = [
        (answer.sequence, sent[answer.port, answer.message].uid, sent[answer.port, answer.message].sha256)
        for answer in answers(events)
        if answer.status == SUCCESS
    ]
    assert len(promised) == associations * images, f"{len(promised)} answers in the record"
    images = {image.uid: image for image in sent.values()}
    return Recording(root, images, stored_paths(receiver.data), events, promised, receiver.config.read_text())


def _send_side_by_side(scanners: Sequence[Scu], images: int) -> None:
    refused: list[int] = []

    def send(scu: Scu, root: str) -> None:
        with scu:
            statuses = [scu.store(make_image(root, number, side=SIDE)) for number in range(1, images + 1)]
            refused.extend(status for status in statuses if status != SUCCESS)
            scu.release()

    threads = [threading.Thread(target=send, args=(scu, f"2.25.9.{n}")) for n, scu in enumerate(scanners, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(READY_S)
        assert not thread.is_alive(), "a scanner hangs"
    assert not refused, f"refused: {refused}"


def _require_whole(root: Path, events: list[Event]) -> None:
    """The record explains every byte that is on the disk: nothing was done behind the recorder's back."""
    disk = Disk(root)
    for event in events:
        disk.play(event)
    real = {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not path.name.endswith("-shm")
    }
    told = disk.everything()
    assert sorted(told) == sorted(real)
    different = [name for name in real if told[name] != real[name]]
    assert different == []


def cut_points(recording: Recording, count: int, seed: int) -> list[int]:
    """``count`` sequences to cut after: half of them right after an answer began to leave, half anywhere."""
    chance = random.Random(seed)
    after_answers = [sequence for sequence, _, _ in recording.promised]
    certain = {after_answers[0], after_answers[-1], len(recording.events)}
    chosen = certain | set(chance.sample(after_answers, min(len(after_answers), count // 2)))
    while len(chosen) < min(count, len(recording.events)):
        chosen.add(chance.randint(1, len(recording.events)))
    return sorted(chosen)


def cut_and_start(
    recording: Recording, events: list[Event], points: Sequence[int], work: Path, seed: int | None = None
) -> list[CutResult]:
    """Cut the power after each of ``points`` and start a node on what is left of it.

    ``events``: those of the recording, or what a worse node would have done. ``seed``: keep random parts of what
    was not synced; without it everything of that is lost.
    """
    disk, results, done = Disk(recording.root), [], 0
    for point in points:
        while done < len(events) and events[done].sequence <= point:
            disk.play(events[done])
            done += 1
        into = work / f"cut-{point}"
        disk.cut(into, None if seed is None else random.Random(f"{seed}-{point}"))
        results.append(_start_on(recording, point, into))
        shutil.rmtree(into)
    return results


def _start_on(recording: Recording, point: int, folder: Path) -> CutResult:
    text = recording.configuration.replace(str(recording.root), str(folder))
    config, _ = parse_config(text)
    config = config.model_copy(update={"node": config.node.model_copy(update={"port": 0})})
    data = config.node.data_dir
    data.mkdir(parents=True, exist_ok=True)
    store = Store(config.node.database_url)
    try:
        spool = Spool(data / "spool")
        migrate(store)
        recover(store, spool, config, ("receive",), time.time())
        server = StorageServer(config, store, spool)
        server.start()
        server.stop(0.0)
    finally:
        store.close()
    held = stored(data)
    promised = [(uid, sha256) for sequence, uid, sha256 in recording.promised if sequence <= point]
    missing = tuple(uid for uid, sha256 in promised if held.get(uid) != sha256)
    whole = chain_is_whole(data / "dicomnode.sqlite3")
    return CutResult(point, len(promised), missing, whole, tuple(leftovers(data)))
