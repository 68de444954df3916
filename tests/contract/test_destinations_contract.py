"""Every kind of Destination keeps the same promises: once, whole, unaltered, tried again, or given up visibly."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import pytest
from pydicom import dcmread
from sqlalchemy import update

from dicomnode.config import Config, Destination, FolderPeer
from dicomnode.deliver.association import SendLimits
from dicomnode.deliver.channels import send_to
from dicomnode.deliver.outbox import outbound
from dicomnode.deliver.sending import OutboundFile
from dicomnode.deliver.worker import Deliverer
from dicomnode.dicom.status import Disposition
from dicomnode.jobs import release_owner
from dicomnode.store.tables import DeliveryRow, DerivedRow, JobRow
from tests.integration.deliver_fixtures import FakePacs, Outbox, body_of, config
from tests.integration.stow_fixtures import Part, Reply, StowServer, make_authority, replying

PATIENT = SendLimits(connect_s=20.0, acse_s=20.0, dimse_s=20.0, stall_s=20.0, slowest_bytes_s=1e9)
TOKEN = "sEcReT-bearer-token.0123456789"
DAY_LATER_S = 400.0


class Harness(Protocol):
    """One Destination under test."""

    def peer(self) -> Destination: ...
    def arrived(self) -> list[tuple[str, str]]:
        """(SOP Instance UID, SHA-256 of the content) of each Instance, as often as it came."""

    def sent(self, path: Path) -> str:
        """SHA-256 of what should arrive of the file ``path``."""

    def fail(self, row: DerivedRow, *, for_good: bool) -> None:
        """Do not take this Instance: never, or not until ``mend``."""

    def mend(self) -> None: ...
    def when_begun(self, act: Callable[[], None]) -> None:
        """Call ``act`` when the first Instance has arrived, before it is answered where there are answers."""


def digest(content: bytes) -> str:
    return sha256(content).hexdigest()


class DimsePacs:
    """C-STORE to a fake archive."""

    def __init__(self, _: Path) -> None:
        self.statuses: dict[str, int] = {}
        self.act: Callable[[], None] = lambda: None
        self.pacs = FakePacs(self._answer)

    def __enter__(self) -> DimsePacs:
        self.pacs.__enter__()
        return self

    def __exit__(self, *args: object) -> None:
        self.pacs.__exit__(*args)

    def _answer(self, _: int, uid: str, __: object) -> int:
        self.act()
        if uid in self.statuses:
            self.pacs.received.pop()
        return self.statuses.get(uid, 0)

    def peer(self) -> Destination:
        return self.pacs.peer()

    def arrived(self) -> list[tuple[str, str]]:
        return [(uid, digest(content)) for uid, _, content in self.pacs.received]

    def sent(self, path: Path) -> str:
        return digest(body_of(path))

    def fail(self, row: DerivedRow, *, for_good: bool) -> None:
        self.statuses[row.SOPInstanceUID] = 0xC000 if for_good else 0xA700

    def mend(self) -> None:
        self.statuses.clear()

    def when_begun(self, act: Callable[[], None]) -> None:
        self.act = act


class OriginServer:
    """STOW-RS to a small HTTP server."""

    def __init__(self, folder: Path) -> None:
        self.reasons: dict[str, int] = {}
        self.act: Callable[[], None] = lambda: None
        self.changes: dict[str, Any] = {}
        self.server = StowServer(self._answer)

    def __enter__(self) -> OriginServer:
        self.server.__enter__()
        return self

    def __exit__(self, *args: object) -> None:
        self.server.__exit__(*args)

    def _answer(self, server: StowServer, parts: list[Part]) -> Reply:
        bad = {part.SOPInstanceUID: self.reasons[part.SOPInstanceUID] for part in parts if self._is_bad(part)}
        good = [part for part in parts if not self._is_bad(part)]
        server.received += good
        self.act()
        return replying(good, bad)

    def _is_bad(self, part: Part) -> bool:
        return part.SOPInstanceUID in self.reasons

    def peer(self) -> Destination:
        return self.server.peer(**self.changes)

    def arrived(self) -> list[tuple[str, str]]:
        return [(part.SOPInstanceUID, digest(part.content)) for part in self.server.received]

    def sent(self, path: Path) -> str:
        return digest(path.read_bytes())

    def fail(self, row: DerivedRow, *, for_good: bool) -> None:
        self.reasons[row.SOPInstanceUID] = 0xC000 if for_good else 0xA700

    def mend(self) -> None:
        self.reasons.clear()

    def when_begun(self, act: Callable[[], None]) -> None:
        self.act = act


class SecureOriginServer(OriginServer):
    """The same over TLS with an own authority, a client certificate and a bearer token."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        authority = make_authority(folder / "tls")
        token = folder / "token"
        token.touch(mode=0o600)
        token.write_text(f"{TOKEN}\n")
        self.server = StowServer(self._checked, tls=authority.server(mutual=True))
        tls = {"ca": authority.cert, "cert": authority.cert, "key": authority.key}
        self.changes = {"token_file": token, "tls": tls}

    def _checked(self, server: StowServer, parts: list[Part]) -> Reply:
        _, _, headers = server.requests[-1]
        return self._answer(server, parts) if headers.get("Authorization") == f"Bearer {TOKEN}" else Reply(401)


class SharedFolder:
    """Files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "share"
        self.away = folder / "away"
        self.planted: list[Path] = []

    def __enter__(self) -> SharedFolder:
        self.folder.mkdir()
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""

    def peer(self) -> Destination:
        return FolderPeer(name="pacs", folder=self.folder)

    def arrived(self) -> list[tuple[str, str]]:
        files = [path for path in sorted(self.folder.rglob("*.dcm")) if path not in self.planted]
        return [(path.stem, digest(path.read_bytes())) for path in files]

    def sent(self, path: Path) -> str:
        return digest(path.read_bytes())

    def fail(self, row: DerivedRow, *, for_good: bool) -> None:
        if not for_good:
            self.folder.rename(self.away)
            return
        self.planted.append(self._place_of(row))
        self.planted[-1].parent.mkdir(parents=True)
        self.planted[-1].write_bytes(b"somebody else's")

    def _place_of(self, row: DerivedRow) -> Path:
        (found,) = (path for path in self.folder.parent.rglob("derived/**/*") if path.name == Path(row.path).name)
        study = str(dcmread(found).StudyInstanceUID)
        return self.folder / study / row.SeriesInstanceUID / f"{row.SOPInstanceUID}.dcm"

    def mend(self) -> None:
        self.away.rename(self.folder)

    def when_begun(self, act: Callable[[], None]) -> None:
        def watch() -> None:
            until = time.monotonic() + 120
            while not self.arrived() and time.monotonic() < until:
                time.sleep(0.001)
            act()

        threading.Thread(target=watch, daemon=True).start()


HARNESSES: dict[str, Callable[[Path], AbstractContextManager[Harness]]] = {
    "c-store": DimsePacs,
    "stow-rs": OriginServer,
    "stow-rs with tls and token": SecureOriginServer,
    "folder": SharedFolder,
}


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path)


@pytest.fixture(params=HARNESSES)
def there(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Harness]:
    with HARNESSES[request.param](tmp_path) as harness:
        yield harness


def deliverer(outbox: Outbox, there: Harness) -> Deliverer:
    return Deliverer(config(there.peer()), outbox.store, outbox.spool, "deliver-1", outbox.clock, limits=PATIENT)


def expected(outbox: Outbox, there: Harness) -> list[tuple[str, str]]:
    rows = outbox.derived()
    return sorted((row.SOPInstanceUID, there.sent(outbox.spool.absolute(row.path))) for row in rows)


def files_of(outbox: Outbox) -> list[OutboundFile]:
    from dicomnode.deliver.outbox import load
    from dicomnode.jobs import Job

    (row,) = outbox.jobs()
    with outbox.store.read() as session:
        consignment = load(session, Job(row.id, row.kind, row.dedup_key, dict(row.payload), 1, ""))
    return [outbound(outbox.spool, parcel) for parcel in consignment.parcels]


def test_every_instance_arrives_once_and_no_byte_is_altered(outbox: Outbox, there: Harness) -> None:
    outbox.add_result(outbox.add_study(), "pacs", pixels=64_000)
    worker = deliverer(outbox, there)
    assert worker.step()
    assert not worker.step()
    assert sorted(there.arrived()) == expected(outbox, there)
    assert outbox.states() == ["delivered"] * 3
    assert outbox.jobs()[0].state == "done"
    (told,) = outbox.audit("delivered")
    assert told["counts"] == {"sc": 2, "sr": 1}
    assert [line["sha256"] for line in told["instances"]] == [row.sha256 for row in outbox.derived()]


def test_every_file_gets_one_answer_in_order(outbox: Outbox, there: Harness) -> None:
    outbox.add_result(outbox.add_study(), "pacs")
    files = files_of(outbox)
    answers = list(send_to(there.peer(), "NODE", files, PATIENT))
    assert [answer.file for answer in answers] == files
    assert all(answer.accepted and answer.tried and answer.status == 0 for answer in answers)
    assert list(send_to(there.peer(), "NODE", [], PATIENT)) == []


def test_sending_again_changes_nothing(outbox: Outbox, there: Harness) -> None:
    outbox.add_result(outbox.add_study(), "pacs")
    worker = deliverer(outbox, there)
    worker.step()
    with outbox.store.write() as session:
        session.execute(update(DeliveryRow).values(state="waiting"))
        session.execute(update(JobRow).values(state="ready"))
    worker.step()
    assert sorted(set(there.arrived())) == expected(outbox, there)
    assert outbox.states() == ["delivered"] * 3


def test_what_may_pass_is_tried_again_until_it_is_there(outbox: Outbox, there: Harness) -> None:
    outbox.add_result(outbox.add_study(), "pacs")
    there.fail(outbox.derived()[1], for_good=False)
    worker = deliverer(outbox, there)
    assert worker.step()
    assert "waiting" in outbox.states()
    (job,) = outbox.jobs()
    assert job.state == "ready"
    assert job.error
    assert outbox.audit("delivery failed")[0]["retry_at"] == job.not_before
    there.mend()
    outbox.now += DAY_LATER_S
    assert worker.step()
    assert outbox.states() == ["delivered"] * 3
    assert outbox.jobs()[0].state == "done"
    assert sorted(set(there.arrived())) == expected(outbox, there)


def test_what_will_never_pass_is_a_dead_letter_and_the_others_arrive(outbox: Outbox, there: Harness) -> None:
    outbox.add_result(outbox.add_study(), "pacs")
    bad = outbox.derived()[1]
    there.fail(bad, for_good=True)
    worker = deliverer(outbox, there)
    worker.step()
    assert outbox.states() == ["delivered", "failed", "delivered"]
    (job,) = outbox.jobs()
    assert job.state == "dead"
    assert job.error.startswith("1 of 3 instances not delivered: ")
    assert outbox.audit("dead letter")[0]["reason"] == job.error
    assert sorted(there.arrived()) == [one for one in expected(outbox, there) if one[0] != bad.SOPInstanceUID]


def test_a_file_that_is_gone_fails_by_itself(outbox: Outbox, there: Harness) -> None:
    outbox.add_result(outbox.add_study(), "pacs")
    files = files_of(outbox)
    files[1].path.unlink()
    answers = {answer.file: answer for answer in send_to(there.peer(), "NODE", files, PATIENT)}
    assert answers[files[1]].disposition is Disposition.PERMANENT
    assert [answers[file].accepted for file in files] == [True, False, True]


def test_closing_the_iterator_ends_the_sending_in_order(outbox: Outbox, there: Harness) -> None:
    outbox.add_result(outbox.add_study(), "pacs")
    files = files_of(outbox)
    with closing(send_to(there.peer(), "NODE", files, PATIENT)) as answers:
        assert next(answers).accepted
    assert all(answer.accepted for answer in send_to(there.peer(), "NODE", files, PATIENT))


def test_no_record_no_log_line_and_no_url_holds_a_secret_or_a_name(
    outbox: Outbox, there: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    worker = deliverer(outbox, there)
    for for_good in (True, False):
        outbox.add_result(outbox.add_study(), "pacs")
        there.fail(outbox.derived()[-1], for_good=for_good)
        worker.step()
        outbox.now += DAY_LATER_S
    records = [str(outbox.audit(kind)) for kind in ("delivered", "delivery failed", "dead letter")]
    records += [job.error for job in outbox.jobs()]
    if isinstance(there, OriginServer):
        records += [path for _, path, _ in there.server.requests]
        assert all(path == "/dicom-web/studies" for path in records[-len(there.server.requests) :])
    everything = " ".join(records) + caplog.text
    assert "Sentinel" not in everything
    assert TOKEN not in everything
    outbox.store.close()
    assert not any(TOKEN.encode() in path.read_bytes() for path in outbox.store.path.parent.glob("x.sqlite3*"))


VICTIM = """
import json, os, sys, time
from pathlib import Path
from dicomnode.config import Config
from dicomnode.deliver.worker import Deliverer
from dicomnode.store.engine import Store
from dicomnode.store.spool import Spool
folder, peer, now = Path(sys.argv[1]), json.loads(sys.argv[2]), float(sys.argv[3])
sync, unfinished = os.fsync, set()

def fsync(descriptor):  # the second file in a folder stays unfinished until the end comes
    path = os.readlink(f"/proc/self/fd/{descriptor}")
    unfinished.update([path] if path.endswith(".part") else [])
    if len(unfinished) == 2:
        time.sleep(600)
    sync(descriptor)

os.fsync = fsync
store = Store(f"sqlite:///{folder}/x.sqlite3")
config = Config.model_validate({"peer": [peer]})
Deliverer(config, store, Spool(folder / "spool"), "victim", lambda: now).step()
"""


def test_killed_in_the_middle_nothing_is_half_there_and_all_arrives_afterwards(
    outbox: Outbox, there: Harness, tmp_path: Path
) -> None:
    outbox.add_result(outbox.add_study(), "pacs", kinds=["sc"] * 12, pixels=256_000)
    settings = json.loads(Config(peer=(there.peer(),)).model_dump_json())["peer"][0]
    arguments = [sys.executable, "-c", VICTIM, str(tmp_path), json.dumps(settings), str(outbox.now)]
    started: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()

    def kill() -> None:
        process = started.get(timeout=60)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(60)

    there.when_begun(kill)
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL) as victim:
        started.put(victim)
        victim.wait(120)
    there.when_begun(lambda: None)
    assert victim.returncode == -signal.SIGKILL
    assert "delivered" not in outbox.states(), "what nobody recorded is not said to be there"
    assert there.arrived()
    assert set(there.arrived()) <= set(expected(outbox, there)), "no Instance is half there"
    with outbox.store.write() as session:
        release_owner(session, "victim", outbox.now, crashed=True)
    assert deliverer(outbox, there).step()
    assert sorted(set(there.arrived())) == expected(outbox, there)
    assert outbox.states() == ["delivered"] * 12
    assert outbox.jobs()[0].state == "done"
