"""A node in a process, watched from outside: memory, threads, descriptors, its logs, and whether it still serves."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.fuzz.target import Finding
from tests.fuzz.wire import (
    COMMITMENT,
    CT_IMAGE,
    EXPLICIT,
    IMPLICIT,
    VERIFICATION,
    Peer,
    echo_request,
    element,
    message,
    store_request,
)

GROWTH_BYTES = 96 * 2**20
SLACK = {"memory": GROWTH_BYTES, "threads": 96, "descriptors": 64}
"""Pools of threads grow to their size with the first load (12 for associations, 40 for the console, one connection to
the database each) and stay; a leak grows with every input."""
SETTLE_S = 45.0
START_S = 120.0
CONTEXTS = ((VERIFICATION, (IMPLICIT,)), (CT_IMAGE, (IMPLICIT, EXPLICIT)), (COMMITMENT, (IMPLICIT,)))


@dataclass(frozen=True)
class Held:
    """What the processes of the node hold together."""

    memory: int
    threads: int
    descriptors: int
    processes: int


class Node:
    """Starts the child; ``close`` ends it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "node.log"
        command = [sys.executable, "-m", "tests.fuzz.node", str(folder)]
        root = Path(__file__).parents[2]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.communicate()
            raise RuntimeError(f"the node did not start: {self.log.read_text()[-2000:]}")
        ports = json.loads(line)
        self.port, self.console = ports["port"], ports["console"]
        self.stored = 0

    def close(self) -> None:
        """End it by closing its stdin, in the end by force."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise Finding("the node did not stop") from None
        finally:
            self.process.stdout.close()

    def held(self) -> Held:
        """Summed over the process and its children."""
        own = psutil.Process(self.process.pid)
        found = [own, *own.children(recursive=True)]
        return Held(
            sum(process.memory_info().rss for process in found),
            sum(process.num_threads() for process in found),
            sum(process.num_fds() for process in found),
            len(found),
        )

    def require_alive(self) -> None:
        if self.process.poll() is not None:
            raise Finding(f"the node ended with status {self.process.returncode}")

    def serve_an_honest_peer(self) -> float:
        """C-ECHO and a C-STORE of a new Instance succeed; returns the seconds it took, waiting for a place too."""
        self.require_alive()
        started = time.monotonic()
        while True:
            try:
                self._be_honest()
            except (OSError, EOFError, AssertionError) as error:
                if time.monotonic() - started > SETTLE_S:
                    raise Finding(f"an honest peer is not served: {type(error).__name__} {error}") from error
                time.sleep(0.5)
            else:
                return time.monotonic() - started

    def _be_honest(self) -> None:
        self.stored += 1
        uid = f"1.2.99.{self.process.pid}.{self.stored}".encode()
        data = element(0x00080016, CT_IMAGE) + element(0x00080018, uid)
        data += element(0x0020000D, b"1.2.99.1") + element(0x0020000E, b"1.2.99.2")
        with Peer(self.port) as peer:
            assert peer.associate(CONTEXTS) == 2, "rejected"
            peer.send(message(1, echo_request()))
            assert peer.status() == 0, "C-ECHO"
            peer.send(message(3, store_request(uid), data))
            assert peer.status() == 0, "C-STORE"
            assert peer.release() == 6, "release"

    def require_flat(self, before: Held) -> Held:
        """Threads and descriptors come back to what they were, memory does not climb. Waits for deadlines to pass."""
        deadline = time.monotonic() + SETTLE_S
        while True:
            now = self.held()
            over = [
                f"{name} {getattr(before, name)} -> {getattr(now, name)}"
                for name, slack in SLACK.items()
                if getattr(now, name) > getattr(before, name) + slack
            ]
            if not over:
                return now
            if time.monotonic() > deadline:
                raise Finding(f"leak: {', '.join(over)}")
            time.sleep(0.5)

    def require_clean_log(self) -> None:
        """No thread and no request of the node ended by an exception that nobody expected."""
        for line in self.log.read_text(errors="replace").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                raise Finding(f"a line that is no log: {line[:200]}") from None
            if "exception" in entry and not _is_a_cut_request(entry):
                raise Finding(f"unexpected: {entry.get('message')} {entry['exception']} at {entry.get('at')}")


def _is_a_cut_request(entry: dict[str, str]) -> bool:
    """uvicorn tells of a client that broke HTTP while it was answered, and closes; nothing of the node failed."""
    return entry.get("logger", "").startswith("uvicorn") and entry["exception"] == "LocalProtocolError"
