"""R18 on the node as an operator runs it: backed up in the middle of reception, killed, restored elsewhere, started."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from dicomnode.config import load_config
from dicomnode.errors import ConfigError
from dicomnode.node.build import Blueprint
from dicomnode.node.restore import restore
from tests.faults.load import Account, start_scanners, stop_scanners
from tests.faults.receiver import Receiver, chain_is_whole, stored, torn_files

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(900)]
LIMIT_S = 400


def dicomnode(node: Receiver, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dicomnode", *arguments, "--config", str(node.config)]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)


def wait_for(account: Account, count: int) -> None:
    until = time.monotonic() + LIMIT_S
    while len(account.acknowledged) < count and time.monotonic() < until:
        time.sleep(0.05)
    assert len(account.acknowledged) >= count


def test_a_backup_in_the_middle_of_reception_becomes_a_node_with_all_that_was_acknowledged(tmp_path: Path) -> None:
    """R18: nothing acknowledged before the backup is missing; the restored node verifies, starts and receives."""
    account = Account()
    with Receiver(tmp_path / "node") as node:
        scanners = start_scanners(node.port, 2, account)
        wait_for(account, 20)
        before = dict(account.acknowledged)
        made = dicomnode(node, "backup", str(tmp_path / "backup"), "--json")
        assert made.returncode == 0, made.stderr
        during = len(account.acknowledged)
        wait_for(account, during + 5)
        stop_scanners(scanners)
        with pytest.raises(ConfigError, match="already runs"):
            restore(Blueprint(*load_config(node.config)), tmp_path / "backup", lambda *_: None, replace=True)
        node.kill()
    assert during > len(before), "nothing was received while the backup was written"
    assert (account.refused, account.lost) == ({}, 0)
    other = Receiver(tmp_path / "other")
    restore(Blueprint(*load_config(other.config)), tmp_path / "backup", lambda *_: None)
    with closing(sqlite3.connect(other.database)) as connection:
        kept = dict(connection.execute("SELECT SOPInstanceUID, sha256 FROM instance"))
    assert before.items() <= kept.items()
    assert kept.items() <= account.acknowledged.items()
    assert chain_is_whole(other.database)
    assert torn_files(other.data) == []
    later = Account()
    with other:
        scanners = start_scanners(other.port, 1, later, "2.25.8")
        wait_for(later, 3)
        stop_scanners(scanners)
    assert chain_is_whole(other.database)
    assert len(stored(other.data)) >= len(kept) + 3
