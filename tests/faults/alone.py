"""``python -m tests.faults.alone CONFIG``: the Storage Server as a bare process, which starts faster than a node."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from tests.faults.receiver import Receiver, serving_config


class BareReceiver(Receiver):
    """A Receiver without a supervisor."""

    command = ("tests.faults.alone",)


def main(config: Path) -> None:
    """Serve until killed."""
    with serving_config(config):
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        threading.Event().wait()


if __name__ == "__main__":
    main(Path(sys.argv[-1]))
