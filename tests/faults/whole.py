"""A whole node with every duty, the quick detector and an Archive."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.faults.archive import Archive
from tests.faults.plugin import MODULE, ROUTE
from tests.faults.receiver import LOCKED_S, Receiver
from tests.plugin import install_plugin

TIMES = "quiet_period_s = 15\nmax_wait_s = 15\nsettle_s = 0.5\nuse_c_find = false"
"""Silence is longer than any pause that a busy machine makes between two images of one Series."""


class WholeNode(Receiver):
    """``dicomnode serve`` with every duty; one detect worker."""

    command = ("dicomnode", "serve")

    def __init__(self, folder: Path, archive: Archive, *, tables: str = "", **how: Any) -> None:
        """``tables``: further tables of the configuration."""
        plugin = install_plugin(folder / "plugin", "quick", "faults_quick:DETECTOR", MODULE)
        path = os.pathsep.join(filter(None, [str(plugin), os.environ.get("PYTHONPATH", "")]))
        peer = f'[[peer]]\nname = "pacs"\nae_title = "ARCHIVE"\nhost = "127.0.0.1"\nport = {archive.port}\n'
        super().__init__(
            folder,
            tables=f"{peer}{ROUTE}\n[assemble]\n{TIMES}\n{tables}",
            environment={"PYTHONPATH": path, **how.pop("environment", {})},
            **how,
        )

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """What a query of the database answers."""
        with closing(sqlite3.connect(self.database, timeout=LOCKED_S)) as connection:
            return connection.execute(query, values).fetchall()

    def duties(self) -> dict[str, int]:
        """Role to process id of every process that is recorded as running; detect and flow are both "work"."""
        return dict(self.rows("SELECT owner, pid FROM process WHERE stopped_at IS NULL"))
