"""The receiving half of a node and its console in a process of their own: ``python -m tests.fuzz.node FOLDER``.

It prints its ports as JSON, writes the node's logs to stderr and ends when its stdin does.
"""

from __future__ import annotations

import json
import queue
import sys
import threading
from pathlib import Path

import click

from dicomnode.config import Config
from dicomnode.console.server import serve_console
from dicomnode.node.logs import log_to_stderr
from dicomnode.receive import StorageServer
from dicomnode.store.engine import Store
from dicomnode.store.schema import migrate
from dicomnode.store.spool import Spool

TIMEOUT_S = 4.0


def configuration(folder: Path) -> Config:
    """One peer that may do everything, short deadlines."""
    receive = {"min_free_bytes": 0, "max_associations": 12, "max_instance_bytes": 4 * 2**20}
    receive |= dict.fromkeys(("acse_timeout_s", "dimse_timeout_s", "network_timeout_s", "pdu_timeout_s"), TIMEOUT_S)
    known = {name: value for name, value in receive.items() if name in _receive_settings()}
    node = {"ae_title": "NODE", "host": "127.0.0.1", "port": 0, "console_port": 0, "data_dir": str(folder)}
    peer = {"name": "fuzz", "ae_title": "FUZZ", "host": "127.0.0.1", "port": 104, "may_send": True, "commit": True}
    return Config.model_validate({"node": node, "receive": known, "peer": [peer]})


def _receive_settings() -> set[str]:
    return set(type(Config().receive).model_fields)


def main() -> None:
    """Run until nobody holds the other end of stdin."""
    folder = Path(sys.argv[1])
    log_to_stderr("fuzz")
    config = configuration(folder)
    store, spool = Store(f"sqlite:///{folder / 'node.sqlite3'}"), Spool(folder / "spool")
    migrate(store)
    server = StorageServer(config, store, spool)
    port, stop, console = server.start(), threading.Event(), queue.Queue[int]()
    threading.Thread(target=serve_console, args=(config, store, spool, stop, console.put), daemon=True).start()
    click.echo(json.dumps({"port": port, "console": console.get(timeout=30)}))
    sys.stdin.read()
    stop.set()
    server.stop(2.0)
    store.close()


if __name__ == "__main__":
    main()
