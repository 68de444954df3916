"""``python -m tests.faults.alone --config CONFIG``: the Storage Server as a bare process that starts in no time.

A process that has imported everything waits for a word; for each it forks a child, which serves until it is killed.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from tests.faults.receiver import GONE_S, READY_S, Receiver, serving_config


class BareReceiver(Receiver):
    """A Receiver without a supervisor. Each start is a fresh process, forked from one that keeps nothing."""

    command = ("tests.faults.alone",)
    _child = 0

    def start(self) -> None:
        """Fork a server and wait until it says ready."""
        if self.process is None:
            command = [sys.executable, "-m", *self.command, "--config", str(self.config)]
            with self.log.open("a") as log:
                self.process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, bufsize=1
                )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("start\n")
        readable, _, _ = select.select([self.process.stdout], [], [], READY_S)
        said = self.process.stdout.readline() if readable else ""
        assert said.startswith("ready"), f"{said!r}: {self.log.read_text()[-3000:]}"
        self._child = int(said.split()[1])

    def kill(self) -> None:
        """SIGKILL to the server; returns when it is gone."""
        assert self.process is not None
        assert self.process.stdout is not None
        os.kill(self._child, signal.SIGKILL)
        said = self.process.stdout.readline()
        assert said == "gone\n", said

    def close(self) -> None:
        """End both processes."""
        if self.process is not None and self._child:
            with suppress(ProcessLookupError):
                os.kill(self._child, signal.SIGKILL)
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()
            self.process.wait(GONE_S)
        super().close()


def main(config: Path) -> None:
    """Fork a server for each line of stdin, and tell when it is ready and when it is gone."""
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            with serving_config(config):
                sys.stdout.write(f"ready {os.getpid()}\n")
                sys.stdout.flush()
                threading.Event().wait()
        os.waitpid(child, 0)
        sys.stdout.write("gone\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[-1]))
