"""``dicomnode serve --role receive`` as a process: started, killed, and held against what its senders were told."""

from __future__ import annotations

import hashlib
import json
import os
import select
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psutil

from dicomnode.audit import verify
from dicomnode.config import load_config
from dicomnode.node.recovery import recover
from dicomnode.receive import StorageServer
from dicomnode.store.engine import BUSY_TIMEOUT_S, Store
from dicomnode.store.schema import migrate
from dicomnode.store.spool import Spool
from tests.ports import free_port
from tests.processes import end_of_session

READY_S = 240.0
STOP_S = 240.0
GONE_S = 240.0
LOCKED_S = 60.0
"""How long a look into the database waits for a process that has just opened it after a crash."""
PATIENT = ("pdu_timeout_s", "acse_timeout_s", "dimse_timeout_s", "network_timeout_s")
"""Settings of [receive]: a scanner of these tests is no test of a silent one, however long it gets no processor."""


class Receiver:
    """The receiving duty of a node with a data folder of its own, on a port that stays the same."""

    command: tuple[str, ...] = ("dicomnode", "serve", "--role", "receive")

    def __init__(
        self,
        folder: Path,
        *,
        receive: str = "min_free_bytes = 1000000",
        node: str = "",
        tables: str = "",
        environment: Mapping[str, str] | None = None,
        wrapper: Sequence[str] = (),
    ) -> None:
        """``receive``, ``node``: lines of these tables, ``tables``: more of them; ``wrapper``: a command in front."""
        self.folder, self.data, self.port = folder, folder / "data", free_port()
        self.database, self.log = self.data / "dicomnode.sqlite3", folder / "node.log"
        self.config = folder / "dicomnode.toml"
        self._environment, self._wrapper = dict(environment or {}), tuple(wrapper)
        folder.mkdir(parents=True, exist_ok=True)
        patient = "".join(f"{name} = {READY_S}\n" for name in PATIENT if name not in receive)
        self.config.write_text(
            f'[node]\nae_title = "NODE"\nhost = "127.0.0.1"\nport = {self.port}\ndata_dir = "{self.data}"\n'
            f"console_port = 0\n{node}\n[receive]\n{patient}{receive}\n"
            '[[peer]]\nname = "scanner"\nae_title = "SCANNER"\nhost = "127.0.0.1"\nport = 104\nmay_send = true\n'
            f"{tables}"
        )
        self.process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Receiver:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def start(self) -> None:
        """Start it and wait until it says ready."""
        command = [*self._wrapper, sys.executable, "-m", *self.command, "--config", str(self.config)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **self._environment}
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment, start_new_session=True
            )
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], READY_S)
        said = self.process.stdout.readline() if readable else ""
        assert said.startswith("ready"), f"{said!r}: {self.log.read_text()[-3000:]}"

    @property
    def pid(self) -> int:
        """Process id of the supervisor (of the wrapper, where there is one)."""
        assert self.process is not None
        return self.process.pid

    def members(self) -> list[psutil.Process]:
        """Every process of the node, the supervisor first."""
        supervisor = psutil.Process(self.pid)
        return [supervisor, *supervisor.children(recursive=True)]

    def kill(self) -> None:
        """SIGKILL to the supervisor alone; its children have to go with it."""
        assert self.process is not None
        children = self.members()[1:]
        self.process.kill()
        self.process.wait(GONE_S)
        alive = end_of_session(self.process.pid, children, GONE_S)
        assert not alive, f"{len(alive)} children outlived the node"
        self.close()

    def stop(self) -> int:
        """SIGTERM; returns the exit status."""
        assert self.process is not None
        target = self.members()[1] if self._wrapper else psutil.Process(self.pid)
        target.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_S)
        finally:
            self.close()

    def close(self) -> None:
        """End it, however it is."""
        if self.process is None:
            return
        if self.process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(GONE_S)
        if self.process.stdout:
            self.process.stdout.close()
        self.process = None

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A dicomnode command with this node's configuration."""
        command = [sys.executable, "-m", "dicomnode", *arguments, "--config", str(self.config)]
        return subprocess.run(command, capture_output=True, text=True, timeout=READY_S)


@contextmanager
def serving(receiver: Receiver, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> Iterator[int]:
    """The Storage Server of ``receiver`` inside this process, which starts faster; yields its port."""
    with serving_config(receiver.config, busy_timeout_s) as port:
        yield port


@contextmanager
def serving_config(path: Path, busy_timeout_s: float = BUSY_TIMEOUT_S) -> Iterator[int]:
    """The Storage Server of a configuration file; yields its port."""
    config, _ = load_config(path)
    config.node.data_dir.mkdir(parents=True, exist_ok=True)
    store = Store(config.node.database_url, busy_timeout_s=busy_timeout_s)
    try:
        spool = Spool(config.node.data_dir / "spool")
        migrate(store)
        recover(store, spool, config, ("receive",), time.time())
        server = StorageServer(config, store, spool)
        port = server.start()
        try:
            yield port
        finally:
            server.stop(1.0)
    finally:
        store.close()


def stored(data: Path, database: Path | None = None) -> dict[str, str]:
    """SOP Instance UID to SHA-256 of the data set in the file that its row names; conflicting copies left out.

    A row without a file counts as not stored.
    """
    found = {}
    for uid, path in stored_paths(data, database).items():
        with suppress(FileNotFoundError):
            found[uid] = data_set_digest(Path(path))
    return found


def stored_paths(data: Path, database: Path | None = None) -> dict[str, str]:
    """SOP Instance UID to the file that its row names; conflicting copies left out."""
    with closing(sqlite3.connect(database or data / "dicomnode.sqlite3", timeout=LOCKED_S)) as connection:
        rows = connection.execute("SELECT SOPInstanceUID, path FROM instance WHERE NOT conflict").fetchall()
    return {uid: str(data / "spool" / path) for uid, path in rows}


def data_set_digest(path: Path) -> str:
    """SHA-256 of what follows the File Meta Information of a DICOM file (PS3.10 7.1); empty when it has none."""
    content = path.read_bytes()
    if content[128:132] != b"DICM" or content[132:136] != b"\x02\0\0\0":
        return ""
    return hashlib.sha256(content[144 + int.from_bytes(content[140:144], "little") :]).hexdigest()


def torn_files(data: Path) -> list[str]:
    """Files under their final name whose data set is not the one that their row says, or that have no row."""
    with closing(sqlite3.connect(data / "dicomnode.sqlite3", timeout=LOCKED_S)) as connection:
        rows = dict(connection.execute("SELECT path, sha256 FROM instance").fetchall())
    spool = data / "spool"
    files = [path for path in (spool / "received").rglob("*") if path.is_file()]
    return [path.name for path in files if data_set_digest(path) != rows.get(str(path.relative_to(spool)), "no row")]


def leftovers(data: Path) -> list[str]:
    """Unfinished files in the spool."""
    return [path.name for path in (data / "spool" / "incoming").rglob("*") if path.is_file()]


def chain_is_whole(database: Path) -> bool:
    """Does the audit log verify?"""
    store = Store(f"sqlite:///{database}")
    try:
        with store.read() as session:
            return verify(session).ok
    finally:
        store.close()


def audit_bodies(database: Path, kind: str) -> list[dict[str, object]]:
    """The bodies of all audit records of one kind, oldest first."""
    with closing(sqlite3.connect(database, timeout=LOCKED_S)) as connection:
        rows = connection.execute("SELECT body FROM audit WHERE kind = ? ORDER BY seq", (kind,)).fetchall()
    return [json.loads(body) for (body,) in rows]


def wait_until(holds: object, limit_s: float, what: str) -> None:
    """Poll ``holds`` (a callable) until it is true. Raises AssertionError after ``limit_s`` seconds."""
    assert callable(holds)
    until = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < until, f"not within {limit_s:.0f} s: {what}"
        time.sleep(0.1)
