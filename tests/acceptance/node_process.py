"""The node as an operator runs it: a process, started, killed, restarted."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from dicomnode.config import load_config
from dicomnode.console.status import read_status
from dicomnode.store.engine import Store
from dicomnode.store.spool import Spool
from tests.ports import free_port
from tests.processes import end_of_session

PATIENCE_S = 240.0
"""How long a process may take for what it does at once on a machine that has nothing else to do."""

PATIENT = ("pdu_timeout_s", "acse_timeout_s", "dimse_timeout_s", "network_timeout_s")
"""Settings of [receive]: the scanner of a test is silent for longer where the machine has too much to do."""

WORK = ("route", "detect", "status", "deliver")
"""The jobs that make a result and deliver it."""

ROUTES = """
[[route]]
name = "chest x-ray"
when = { Modality = ["CR", "DX"] }
detector = "cxr"
send_to = ["pacs"]

[[route]]
name = "head CT"
when = { Modality = "CT" }
detector = "ct-head"
send_to = ["pacs"]

[[route]]
name = "brain FLAIR"
when = { Modality = "MR" }
detector = "mr-brain-flair"
send_to = ["pacs"]
"""


class NodeProcess:
    """``dicomnode serve`` with a data folder of its own; always on the same port, so that senders find it again."""

    def __init__(
        self,
        folder: Path,
        pacs_port: int,
        *,
        node: str = "",
        receive: str = "",
        assemble: str = "",
        pacs: str = "",
        routes: str = ROUTES,
    ) -> None:
        """``node``, ``receive``, … ``pacs`` (a peer): more lines of these tables; ``routes``: and any other tables."""
        self.folder, self.port = folder, free_port()
        patient = "".join(f"{name} = {PATIENCE_S}\n" for name in PATIENT if name not in receive)
        self.config = folder / "dicomnode.toml"
        self.log = folder / "node.log"
        self.database = folder / "data" / "dicomnode.sqlite3"
        folder.mkdir(parents=True, exist_ok=True)
        self.config.write_text(
            f'[node]\nae_title = "NODE"\nhost = "127.0.0.1"\nport = {self.port}\ndata_dir = "{folder / "data"}"\n'
            f"console_port = 0\n{node}\n[receive]\nmin_free_bytes = 1000000\n{patient}{receive}\n"
            f"[assemble]\nuse_c_find = false\n{assemble}\n"
            f'[[peer]]\nname = "scanner"\nae_title = "SCANNER"\nhost = "127.0.0.1"\nport = 104\nmay_send = true\n'
            f'[[peer]]\nname = "pacs"\nae_title = "ORTHANC"\nhost = "127.0.0.1"\nport = {pacs_port}\n{pacs}\n{routes}'
        )
        self.process: subprocess.Popen[str] | None = None
        self.ready = ""

    def start(self, *, wait: bool = True) -> None:
        """Start it; with ``wait`` until it says ready."""
        command = [sys.executable, "-m", "dicomnode", "serve", "--config", str(self.config)]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
            )
        if wait:
            assert self.process.stdout is not None
            self.ready = self.process.stdout.readline()
            assert self.ready.startswith("ready"), self.log.read_text()[-3000:]

    @property
    def console(self) -> str:
        """The console's address."""
        found = re.search(r"console=(\S+)", self.ready)
        assert found
        return found[1]

    def kill(self) -> None:
        """SIGKILL to the supervisor alone; its children have to go with it."""
        assert self.process is not None
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()
        self.process.wait(PATIENCE_S)
        if self.process.stdout:
            self.process.stdout.close()
        alive = end_of_session(self.process.pid, children, PATIENCE_S)
        assert not alive, f"{len(alive)} children outlived the node"

    def stop(self, limit_s: float = PATIENCE_S) -> int:
        """SIGTERM; returns the exit status. Killed when it does not drain within ``limit_s`` seconds."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(limit_s)
        finally:
            self.close()

    def close(self) -> None:
        """End it, however it is."""
        if self.process is None:
            return
        if self.process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(PATIENCE_S)
        if self.process.stdout:
            self.process.stdout.close()

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A dicomnode command with this node's configuration."""
        command = [sys.executable, "-m", "dicomnode", *arguments, "--config", str(self.config)]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)

    def status(self) -> dict[str, Any]:
        """``dicomnode status --json``."""
        answer = self.run("status", "--json")
        assert answer.returncode == 0, answer.stderr
        return dict(json.loads(answer.stdout))

    def look(self) -> dict[str, Any]:
        """What ``dicomnode status --json`` says, read here: the start of a command costs more than many looks."""
        config, _ = load_config(self.config)
        store = Store(config.node.database_url)
        try:
            return read_status(config, store, Spool(config.node.data_dir / "spool"), time.time())
        finally:
            store.close()

    def wait_settled(self, studies: int, limit_s: float) -> dict[str, Any]:
        """Wait until ``studies`` Studies have an outcome, all their objects are delivered and the work on them is done,
        that on what may have to stand in for an object too, which ends after the delivery; returns the status."""
        return self._wait(studies, limit_s, _settled, _idle)

    def wait_outcomes(self, studies: int, limit_s: float) -> dict[str, Any]:
        """Wait until ``studies`` Studies have an outcome, delivered or not; returns the status."""
        return self._wait(studies, limit_s, _has_outcome)

    def _wait(
        self,
        studies: int,
        limit_s: float,
        good: Callable[[dict[str, Any]], bool],
        rest: Callable[[dict[str, Any]], bool] = lambda _: True,
    ) -> dict[str, Any]:
        """``good`` of every recent Series, and ``rest`` of the status."""
        until = time.monotonic() + limit_s
        state: dict[str, Any] = {}
        while time.monotonic() < until:
            state = self.look()
            is_there = state["received"]["studies"] >= studies and rest(state)
            if is_there and all(good(series) for series in state["recent"]):
                return self.status()
            time.sleep(0.3)
        raise AssertionError(f"not reached after {limit_s} s: {json.dumps(state, indent=1)[:4000]}")


def _current(series: dict[str, Any]) -> list[dict[str, Any]]:
    return [result for result in series["results"] if result["generation"] == series["generation"]]


def _has_outcome(series: dict[str, Any]) -> bool:
    return bool(_current(series)) and all(result["outcome"] != "pending" for result in _current(series))


def _idle(state: dict[str, Any]) -> bool:
    return not any(state["jobs"].get(kind, {}).get(left) for kind in WORK for left in ("ready", "leased"))


def _settled(series: dict[str, Any]) -> bool:
    return _has_outcome(series) and not any(
        "waiting" in states for result in _current(series) for states in result["objects"].values()
    )
