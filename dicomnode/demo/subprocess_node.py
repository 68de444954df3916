"""A node as a process of its own, as an operator would start it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dicomnode.errors import Permanent

START_S = 180.0
STOP_S = 40.0


@dataclass(frozen=True, slots=True)
class RunningNode:
    """Where the node listens."""

    port: int
    console: str


@contextmanager
def running_node(config: Path, log: Path) -> Iterator[RunningNode]:
    """``dicomnode serve --config config``, ready to receive; drained at the end.

    Raises Permanent when it does not start.
    """
    command = [sys.executable, "-m", "dicomnode", "serve", "--config", str(config)]
    with log.open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)  # noqa: S603 - our own
        guard = threading.Timer(START_S, process.kill)
        guard.start()
        try:
            ready = process.stdout.readline() if process.stdout else ""
            guard.cancel()
            found = re.search(r"dicom=\S+:(\d+)\s+console=(\S+)", ready)
            if found is None:
                raise Permanent(f"the node did not start; its log is {log}")
            yield RunningNode(int(found[1]), found[2])
        finally:
            guard.cancel()
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout:
        process.stdout.close()
