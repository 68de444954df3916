"""Who receives: this node, DCMTK's storescp, Orthanc, the latter two in two ways. Each in a folder of its own."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Protocol
from unittest.mock import patch

import dicomnode
from tests.acceptance.node_process import NodeProcess
from tests.acceptance.orthanc import Orthanc
from tests.ports import free_port

NODE = "dicomnode"
STORESCP_FORK, STORESCP = "DCMTK storescp, forking", "DCMTK storescp, one process"
ORTHANC_NO_NAGLE, ORTHANC = "Orthanc, TCP_NODELAY=1", "Orthanc, as it comes"
NAMES = {
    "node": NODE,
    "storescp-fork": STORESCP_FORK,
    "storescp": STORESCP,
    "orthanc-nodelay": ORTHANC_NO_NAGLE,
    "orthanc": ORTHANC,
}
START_S = 60.0
NO_NAGLE = {**os.environ, "TCP_NODELAY": "1"}
"""DCMTK waits for delayed acknowledgements (20 Instances/s) unless it is told not to."""


class Receiver(Protocol):
    """A Storage SCP to send to."""

    name: str
    version: str
    ae_title: str
    setting: str
    limit: int | None
    """Send it no more Instances in a run than that: it would take too long."""

    @property
    def port(self) -> int: ...
    @property
    def pid(self) -> int: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def stored(self) -> int:
        """How many Instances it holds."""
        ...


class NodeReceiver:
    """``dicomnode serve --role receive``, as it comes; ``settings``: lines for ``[receive]``."""

    name, ae_title, limit = NODE, "NODE", None
    version = dicomnode.__version__

    def __init__(self, folder: Path, settings: str = "") -> None:
        self._node = _ReceiveRole(folder, free_port(), routes="", receive=settings)
        changed = f" `[receive] {'; '.join(settings.split(chr(10)))}`" if settings else ""
        self.setting = (
            "durable: file, folder and database row with its audit record are synced before 0x0000; header read"
            f"{changed}"
        )

    @property
    def port(self) -> int:
        return self._node.port

    @property
    def pid(self) -> int:
        assert self._node.process is not None
        return self._node.process.pid

    def start(self) -> None:
        self._node.start()

    def stop(self) -> None:
        self._node.stop()

    def stored(self) -> int:
        return int(self._rows("SELECT count(*) FROM instance")[0][0])

    def digests(self) -> set[str]:
        """SHA-256 of the data sets in its spool, read from the files."""
        return {digest for _, digest, _ in self._files()}

    def whole_instances(self) -> set[str]:
        """SOP Instance UIDs of those whose file is there and holds the data set that its row names by SHA-256."""
        return {uid for uid, found, said in self._files() if found == said}

    def _files(self) -> Iterator[tuple[str, str, str]]:
        spool = self._node.folder / "data" / "spool"
        for uid, path, said in self._rows("SELECT SOPInstanceUID, path, sha256 FROM instance"):
            with (spool / path).open("rb") as file:
                head = file.read(144)
                file.seek(144 + int.from_bytes(head[140:144], "little"))
                yield uid, hashlib.file_digest(file, "sha256").hexdigest(), said

    def _rows(self, query: str) -> list[tuple]:
        connection = sqlite3.connect(f"file:{self._node.database}?mode=ro", uri=True, timeout=30.0)
        try:
            return connection.execute(query).fetchall()
        finally:
            connection.close()


class _ReceiveRole(NodeProcess):
    def start(self, *, wait: bool = True) -> None:
        command = [sys.executable, "-m", "dicomnode", "serve", "--role", "receive", "--config", str(self.config)]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
            )
        assert self.process.stdout is not None
        self.ready = self.process.stdout.readline() if wait else ""
        if wait and not self.ready.startswith("ready"):
            raise RuntimeError(f"the node did not start:\n{self.log.read_text()[-2000:]}")


class StorescpReceiver:
    """DCMTK's storescp, one process for each association or one for all, one after the other."""

    ae_title, executable, limit = "STORESCP", "storescp", None

    def __init__(self, folder: Path, *, fork: bool = True) -> None:
        self._folder, self._port = folder, free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._options = [*(["--fork"] if fork else []), "+B", "-pdu", "131072"]
        self.name = STORESCP_FORK if fork else STORESCP
        self.setting = (
            f"`{' '.join(self._options)}`, TCP_NODELAY=1; **not durable**: no fsync, no index, no header read"
        )
        self.version = _version("storescp", "--version")

    @property
    def port(self) -> int:
        return self._port

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        self._folder.mkdir(parents=True)
        command = ["storescp", *self._options, "-aet", self.ae_title, "-od", str(self._folder), str(self._port)]
        self._process = subprocess.Popen(command, env=NO_NAGLE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for_port(self._port)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)

    def stored(self) -> int:
        return sum(path.is_file() for path in self._folder.iterdir())


class OrthancReceiver:
    """Orthanc with its SQLite index; its DICOM side is DCMTK and reads the same environment."""

    ae_title, executable = "ORTHANC", "Orthanc"

    def __init__(self, folder: Path, *, no_nagle: bool) -> None:
        self._orthanc, self._no_nagle = Orthanc(folder), no_nagle
        self.name = ORTHANC_NO_NAGLE if no_nagle else ORTHANC
        self.limit = None if no_nagle else 200
        how = "TCP_NODELAY=1 in its environment" if no_nagle else "its environment as it comes: DCMTK leaves Nagle on"
        self.setting = (
            f"default (SyncStorageArea on, SQLite index of tags), {how}; durable in part: by strace one fdatasync per "
            "instance, for its file; folder and index are left to the operating system"
        )
        self.version = _version("Orthanc", "--version")

    @property
    def port(self) -> int:
        return self._orthanc.dicom_port

    @property
    def pid(self) -> int:
        assert self._orthanc._process is not None
        return self._orthanc._process.pid

    def start(self) -> None:
        with patch.dict(os.environ, {"TCP_NODELAY": "1"} if self._no_nagle else {}):
            if not self._no_nagle:
                os.environ.pop("TCP_NODELAY", None)
            self._orthanc.start()

    def stop(self) -> None:
        self._orthanc.stop()

    def stored(self) -> int:
        return int(self._orthanc.get("/statistics")["CountInstances"])


def receivers(folder: Path, wanted: Collection[str], node_settings: str = "") -> tuple[list[Receiver], list[str]]:
    """Those of ``wanted`` (keys of ``NAMES``) that are installed here, and the names of those that are not."""
    makers: dict[str, tuple[str, Callable[[Path], Receiver]]] = {
        "node": (sys.executable, lambda place: NodeReceiver(place, node_settings)),
        "storescp-fork": (StorescpReceiver.executable, lambda place: StorescpReceiver(place, fork=True)),
        "storescp": (StorescpReceiver.executable, lambda place: StorescpReceiver(place, fork=False)),
        "orthanc-nodelay": (OrthancReceiver.executable, lambda place: OrthancReceiver(place, no_nagle=True)),
        "orthanc": (OrthancReceiver.executable, lambda place: OrthancReceiver(place, no_nagle=False)),
    }
    found, missing = [], []
    for key in (key for key in NAMES if key in wanted):
        executable, make = makers[key]
        if key != "node" and shutil.which(executable) is None:
            missing.append(NAMES[key])
        else:
            found.append(make(folder / key))
    return found, missing


def wait_for_port(port: int) -> None:
    """Until someone listens on loopback. Raises RuntimeError when nobody does in time."""
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"nothing listens on port {port}")


def _version(*command: str) -> str:
    """What the program says of itself: the first number with dots."""
    said = subprocess.run(command, capture_output=True, text=True, timeout=20).stdout
    return next((word.lstrip("v") for word in said.split() if word.lstrip("v")[:1].isdigit() and "." in word), "?")
