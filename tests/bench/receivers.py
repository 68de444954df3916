"""Who receives: this node, DCMTK's storescp, Orthanc. Each is started in a folder of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Protocol
from unittest.mock import patch

from sqlalchemy import func, select

import dicomnode
from dicomnode.store.engine import Store
from dicomnode.store.tables import InstanceRow
from tests.acceptance.node_process import NodeProcess, free_port
from tests.acceptance.orthanc import Orthanc

START_S = 60.0
NO_NAGLE = {**os.environ, "TCP_NODELAY": "1"}
"""DCMTK waits for delayed acknowledgements (20 Instances/s) unless it is told not to."""


class Receiver(Protocol):
    """A Storage SCP to send to."""

    name: str
    version: str
    ae_title: str
    setting: str

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
    """``dicomnode serve --role receive``, as it comes."""

    name, ae_title = "dicomnode", "NODE"
    setting = (
        "durable: file, folder and database are synced before each 0x0000, by strace four syncs per instance; header "
        "read, audit row written"
    )
    version = dicomnode.__version__

    def __init__(self, folder: Path) -> None:
        self._node = _ReceiveRole(folder, free_port(), routes="")

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
        store = Store(f"sqlite:///{self._node.database}")
        try:
            return int(store.scalar(select(func.count()).select_from(InstanceRow)))
        finally:
            store.close()


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
    """DCMTK's storescp with the fastest settings found."""

    name, ae_title, executable = "DCMTK storescp", "STORESCP", "storescp"
    setting = "`--fork +B -pdu 131072`, TCP_NODELAY=1; **not durable**: no fsync, no index, no header read"

    def __init__(self, folder: Path) -> None:
        self._folder, self._port = folder, free_port()
        self._process: subprocess.Popen[bytes] | None = None
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
        command = ["storescp", "--fork", "+B", "-pdu", "131072", "-aet", self.ae_title, "-od", str(self._folder)]
        self._process = subprocess.Popen(
            [*command, str(self._port)], env=NO_NAGLE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for_port(self._port)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)

    def stored(self) -> int:
        return sum(path.is_file() for path in self._folder.iterdir())


class OrthancReceiver:
    """Orthanc as it comes, with its SQLite index; its DICOM side is DCMTK and gets the same environment."""

    name, ae_title, executable = "Orthanc", "ORTHANC", "Orthanc"
    setting = (
        "default (SyncStorageArea on, SQLite index of tags) with TCP_NODELAY=1, without which an association gets "
        "about 20 instances/s; durable in part: by strace one fdatasync per instance, for its file; folder and index "
        "are left to the operating system"
    )

    def __init__(self, folder: Path) -> None:
        self._orthanc = Orthanc(folder)
        self.version = _version("Orthanc", "--version")

    @property
    def port(self) -> int:
        return self._orthanc.dicom_port

    @property
    def pid(self) -> int:
        assert self._orthanc._process is not None
        return self._orthanc._process.pid

    def start(self) -> None:
        with patch.dict(os.environ, NO_NAGLE):
            self._orthanc.start()

    def stop(self) -> None:
        self._orthanc.stop()

    def stored(self) -> int:
        return int(self._orthanc.get("/statistics")["CountInstances"])


def receivers(folder: Path) -> tuple[list[Receiver], list[str]]:
    """Those that are installed here, and the names of those that are not."""
    found: list[Receiver] = [NodeReceiver(folder / "node")]
    missing = []
    for kind, place in ((StorescpReceiver, "storescp"), (OrthancReceiver, "orthanc")):
        if shutil.which(kind.executable) is None:
            missing.append(kind.name)
        else:
            found.append(kind(folder / place))
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
