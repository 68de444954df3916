"""The audit commands at a terminal and in a pipe: nothing cut, nothing obeyed, nothing taken for granted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dicomnode.audit import append, write_checkpoint
from dicomnode.audit.events import Event
from dicomnode.store.engine import Store
from dicomnode.store.schema import migrate

UID = "1.2.826.0.1.3680043.8.498.31727050959045005064700066144552781660"
NASTY = "[/red]\x1b[31mID"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "node.toml").write_text('[node]\ndata_dir = "var"\n[audit]\ncheckpoint_path = "points.jsonl"\n')
    store = Store(f"sqlite:///{tmp_path}/var/dicomnode.sqlite3")
    migrate(store)
    with store.write() as session:
        append(session, Event.INSTANCE_STORED, {"StudyInstanceUID": UID, "PatientID": NASTY})
    with store.read() as session:
        write_checkpoint(session, tmp_path / "points.jsonl", "NODE")
    store.close()
    return tmp_path


def dicomnode(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dicomnode", *arguments, "--config", "node.toml"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)


def test_a_list_in_a_pipe_shows_whole_identifiers_and_obeys_none(folder: Path) -> None:
    answer = dicomnode(folder, "audit", "list")
    assert answer.returncode == 0, answer.stderr
    assert UID in answer.stdout
    assert "[/red]\\x1b[31mID" in answer.stdout
    assert "\x1b" not in answer.stdout


def test_verify_needs_the_checkpoints_that_are_configured(folder: Path) -> None:
    assert "1 checkpoint(s) agree" in dicomnode(folder, "audit", "verify").stdout
    (folder / "points.jsonl").write_text("")
    assert "the file is empty" in dicomnode(folder, "audit", "verify").stderr
    (folder / "points.jsonl").unlink()
    gone = dicomnode(folder, "audit", "verify")
    assert gone.returncode == 1
    assert "No such file" in gone.stderr


def test_faults_of_the_caller_are_told_without_a_trace(folder: Path) -> None:
    export = dicomnode(folder, "audit", "export", "--output", "nowhere/audit.csv")
    assert (export.returncode, export.stderr) == (1, "error: nowhere/audit.csv: No such file or directory\n")
    since = dicomnode(folder, "audit", "list", "--since", "yesterday")
    assert since.returncode == 2
    assert "ISO 8601" in since.stderr


def test_the_demo_removes_no_folder_of_somebody_else(folder: Path) -> None:
    command = [sys.executable, "-m", "dicomnode", "demo", "--out", "."]
    answer = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert answer.returncode == 2
    assert (folder / "node.toml").exists()
