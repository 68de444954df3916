"""``dicomnode deid`` with a vault: away, back again, and what an operator can do with the vault."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread, dcmwrite

from dicomnode.cli import cli
from dicomnode.deid.keys import ProjectKey
from dicomnode.errors import ConfigError
from dicomnode.store.engine import Store
from dicomnode.store.tables import AuditRow
from tests.integration.outside_fixtures import SENTINELS, image, report_about

Run = Callable[..., int]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images of one patient, and a configuration with a vault."""
    ProjectKey.create(tmp_path / "project.key")
    ProjectKey.create(tmp_path / "vault.key")
    (tmp_path / "dicomnode.toml").write_text(
        f'[node]\ndata_dir = "{tmp_path / "data"}"\n[deid]\nkey_file = "{tmp_path / "project.key"}"\n'
        f'profile = "research"\njobs = 1\n[deid.vault]\nkey_file = "{tmp_path / "vault.key"}"\n'
    )
    (tmp_path / "in").mkdir()
    for number in (1, 2):
        dcmwrite(tmp_path / "in" / f"{number}.dcm", image(number), enforce_file_format=True)
    return tmp_path


@pytest.fixture
def run(folder: Path) -> Run:
    """``dicomnode deid …`` with that configuration; returns the exit status."""

    def called(*arguments: str) -> int:
        config = ("--config", str(folder / "dicomnode.toml"))
        return int(cli(["deid", *arguments, *config], standalone_mode=False) or 0)

    return called


def _away(folder: Path, run: Run) -> list[Path]:
    assert run("run", str(folder / "in"), str(folder / "out")) == 0
    return sorted((folder / "out").rglob("*.dcm"))


def _audited(folder: Path, kind: str) -> list[dict[str, object]]:
    store = Store(f"sqlite:///{folder / 'data' / 'dicomnode.sqlite3'}")
    with store.read() as session:
        rows = session.query(AuditRow).filter(AuditRow.kind == kind).order_by(AuditRow.seq).all()
    store.close()
    return [json.loads(row.body) for row in rows]


def test_away_and_back(folder: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """D24: a result about what a command sent away belongs to the patient again; both ways are audited."""
    away = [dcmread(path) for path in _away(folder, run)]
    assert not [word for word in SENTINELS for one in away if word in str(one)]
    (folder / "results").mkdir()
    dcmwrite(folder / "results" / "r.dcm", report_about(away), enforce_file_format=True)
    originals = ("--originals", str(folder / "in"))
    assert run("reidentify", str(folder / "results"), str(folder / "back"), *originals) == 0
    assert "1 results given back, 0 held back" in capsys.readouterr().out
    (path,) = (folder / "back").rglob("*.dcm")
    back, source = dcmread(path), image(1)
    assert (back.PatientName, back.PatientID) == ("Sentinel^Änne", "SENTINEL-4711")
    assert (back.StudyInstanceUID, back.StudyDate) == (source.StudyInstanceUID, source.StudyDate)
    assert path.parent.parent.name == source.StudyInstanceUID
    (read,), (row,) = _audited(folder, "vault read"), _audited(folder, "re-identification")
    assert read["user"]
    assert row["PatientID"] == "SENTINEL-4711"


def test_stranger_is_held_back(folder: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """D24: a result about an unknown patient is not written, and the exit status says so."""
    away = [dcmread(path) for path in _away(folder, run)]
    stranger = report_about(away)
    stranger.PatientID = "ANON-0000000000000000"
    (folder / "results").mkdir()
    dcmwrite(folder / "results" / "r.dcm", stranger, enforce_file_format=True)
    (folder / "results" / "note.txt").write_text("no DICOM")
    assert run("reidentify", str(folder / "results"), str(folder / "back"), "--originals", str(folder / "in")) == 1
    assert not list((folder / "back").rglob("*.dcm"))
    assert "unknown-pseudonym" in capsys.readouterr().err
    assert len(_audited(folder, "quarantine")) == 2


def test_operator_and_vault(folder: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """D19: status opens no row, re-keying replaces the key and is audited, a copy is sealed as the vault is."""
    _away(folder, run)
    capsys.readouterr()
    assert run("vault", "status") == 0
    before = capsys.readouterr().out
    assert run("vault", "backup", str(folder / "copy.sqlite3")) == 0
    assert (folder / "copy.sqlite3").stat().st_mode & 0o777 == 0o600
    assert b"SENTINEL" not in (folder / "copy.sqlite3").read_bytes()
    assert run("vault", "rekey") == 0
    capsys.readouterr()
    assert run("vault", "status") == 0
    after = capsys.readouterr().out
    assert before.split()[0] == after.split()[0]
    assert before.split()[-1] != after.split()[-1]
    assert _audited(folder, "vault read")[0]["purpose"] == "re-keying"
    with pytest.raises(ConfigError, match="cannot be made"):
        run("vault", "backup", str(folder / "copy.sqlite3"))


def test_no_vault(folder: Path, run: Run) -> None:
    """D19: the vault is off by default; without one nothing is given back and none is made."""
    config = folder / "dicomnode.toml"
    config.write_text(config.read_text().partition("[deid.vault]")[0])
    _away(folder, run)
    (folder / "results").mkdir()
    with pytest.raises(ConfigError, match=r"\[deid.vault\] is missing"):
        run("reidentify", str(folder / "results"), str(folder / "back"))
    assert not (folder / "data" / "vault.sqlite3").exists()
