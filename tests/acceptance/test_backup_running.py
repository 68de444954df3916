"""R18 on the node as an operator runs it: backed up in the middle of reception, killed, restored elsewhere, started."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.faults.load import Account, start_scanners, stop_scanners
from tests.faults.receiver import Receiver

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
        refused = dicomnode(node, "restore", str(tmp_path / "backup"), "--replace")
        assert (refused.returncode, "already runs" in refused.stderr) == (2, True)
        node.kill()
    assert during > len(before), "nothing was received while the backup was written"
    assert (account.refused, account.lost) == ({}, 0)
    other = Receiver(tmp_path / "other")
    back = dicomnode(other, "restore", str(tmp_path / "backup"))
    assert back.returncode == 0, back.stderr
    with closing(sqlite3.connect(other.database)) as connection:
        kept = dict(connection.execute("SELECT SOPInstanceUID, sha256 FROM instance"))
    assert before.items() <= kept.items()
    assert kept.items() <= account.acknowledged.items()
    verified = dicomnode(other, "audit", "verify", "--json")
    assert json.loads(verified.stdout)["ok"], verified.stdout
    later = Account()
    with other:
        scanners = start_scanners(other.port, 1, later, "2.25.8")
        wait_for(later, 3)
        stop_scanners(scanners)
    assert json.loads(dicomnode(other, "audit", "verify", "--json").stdout)["ok"]
