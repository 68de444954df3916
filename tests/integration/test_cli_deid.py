"""``dicomnode deid``: parallel, resumable, every file accounted for, no start without a key, no word on patients."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path

import pydicom
import pytest
from click.testing import CliRunner, Result

from dicomnode.cli import cli
from dicomnode.errors import ConfigError
from tests.unit.deid_objects import KEY, PSEUDONYMS, ROOT, file_of, image, transformed

SENTINELS = (b"VJANEV", b"VPATHV", b"VID-", b"19500615", ROOT.encode())


def _folder(tmp_path: Path) -> Path:
    """A source with two patients, a burned-in image, a text file and one object twice; a key and a configuration."""
    source = tmp_path / "in" / "VPATHV^JANE"
    source.mkdir(parents=True)
    for number in range(8):
        patient = "VID-A" if number < 5 else "VID-B"
        dataset = image(
            PatientName="VJANEV^A", PatientID=patient, SOPInstanceUID=f"{ROOT}9.{number}", InstanceNumber=number,
            StudyInstanceUID=f"{ROOT}7.{number // 5}",
        )  # fmt: skip
        (source / f"{number}.dcm").write_bytes(file_of(dataset))
    (source / "same.dcm").write_bytes((source / "3.dcm").read_bytes())
    (source / "burned.dcm").write_bytes(file_of(image(BurnedInAnnotation="YES", PatientName="VJANEV^A")))
    (source / "VJANEV.txt").write_text("VJANEV was here")
    (tmp_path / "key").write_bytes(KEY.secret)
    (tmp_path / "key").chmod(0o600)
    (tmp_path / "node.toml").write_text(f'[node]\ndata_dir = "{tmp_path / "node"}"\n')
    return tmp_path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return _folder(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A folder that was done, by two children at once."""
    folder = _folder(tmp_path_factory.mktemp("deid"))
    return folder, _deid(folder, "--json", "--jobs", "2", "--option", "retain_modified_dates")


def _arguments(folder: Path, *more: str) -> list[str]:
    paths = [str(folder / "in"), str(folder / "out"), "--config", str(folder / "node.toml"), "--jobs", "1"]
    return ["deid", *paths, "--key", str(folder / "key"), *more]


def _deid(folder: Path, *more: str) -> Result:
    return CliRunner().invoke(cli, _arguments(folder, *more), standalone_mode=False)


def _rows(folder: Path) -> list[tuple[str, dict[str, object]]]:
    with sqlite3.connect(f"file:{folder / 'node' / 'dicomnode.sqlite3'}?mode=ro", uri=True) as database:
        rows = database.execute("SELECT kind, body FROM audit ORDER BY seq").fetchall()
    database.close()
    return [(kind, json.loads(body)) for kind, body in rows]


def _outputs(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "out").rglob("*") if path.is_file())


def test_a_folder_is_done_in_full_and_told_without_names(finished: tuple[Path, Result]) -> None:
    """D1, D21: files by pseudonym, the rest held back by rule, a report, audit rows, and not a word of a patient."""
    folder, result = finished
    assert result.exception is None, result.exception
    assert result.return_value == 0
    report = json.loads(result.stdout)
    assert (report["files"], report["done"], report["held"], report["failed"]) == (11, 8, 3, 0)
    assert report["reasons"] == {"burned-in-text": 1, "not-dicom": 1, "same-sop-instance-uid": 1}
    assert (report["patients"], report["studies"]) == (2, 2)
    assert report["codes"] == ["113100", "113107"]
    assert json.loads((folder / "out.deid" / "report.json").read_text()) == report
    for path in _outputs(folder):
        new = pydicom.dcmread(path)
        parts = (new.PatientID, new.StudyInstanceUID, new.SeriesInstanceUID, f"{new.SOPInstanceUID}.dcm")
        assert path.relative_to(folder / "out").parts == parts
    assert len(_outputs(folder)) == 8
    told = b"".join(path.read_bytes() for path in (folder / "out.deid").iterdir() if path.name.endswith(("son", "l")))
    private = (folder / "out.deid" / "quarantine.jsonl").read_bytes()
    told = told.replace(private, b"") + b"".join(path.read_bytes() for path in (folder / "node").iterdir())
    told += b"".join(path.read_bytes() for path in _outputs(folder)) + result.output.encode()
    assert not [mark for mark in SENTINELS if mark in told]


def test_paths_of_held_files_are_for_their_owner_only(finished: tuple[Path, Result]) -> None:
    """D21: quarantine.jsonl has the path and the reason, mode 0600, in a folder that only its owner enters."""
    side = finished[0] / "out.deid"
    private = side / "quarantine.jsonl"
    lines = [json.loads(line) for line in private.read_text().splitlines()]
    assert {line["path"]: line["why"] for line in lines}["VPATHV^JANE/burned.dcm"] == "burned-in-text"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert stat.S_IMODE((side / "journal.jsonl").stat().st_mode) == 0o600
    assert stat.S_IMODE(side.stat().st_mode) == 0o700


def test_every_file_has_its_audit_row(finished: tuple[Path, Result]) -> None:
    """D1: start and end with profile, version and digest of the table; per object the digests before and after."""
    folder, _ = finished
    rows = _rows(folder)
    phases = [body.get("phase") for kind, body in rows if kind == "de-identification"]
    assert (phases[0], phases[-1], phases.count("instance")) == ("begin", "end", 8)
    begin = rows[0][1]
    assert begin["table_sha256"] == "b802064b27b81af39b6aac773d1688903fc40c26f8c649595740443ea3dfbbed"
    assert (begin["profile"], begin["codes"]) == ("basic", ["113100", "113107"])
    assert [kind for kind, _ in rows].count("quarantine") == 3
    body = next(body for _, body in rows if body.get("SOPInstanceUID") == PSEUDONYMS.uid(f"{ROOT}9.2"))
    old = (folder / "in" / "VPATHV^JANE" / "2.dcm").read_bytes()
    new, applied = transformed(old, "retain_modified_dates")
    assert body["PatientID"] == PSEUDONYMS.patient_id("VID-A")
    assert body["actions"] == dict(applied.actions)
    assert (body["sha256_before"], body["sha256_after"]) == tuple(hashlib.sha256(one).hexdigest() for one in (old, new))


def test_a_second_run_does_only_what_is_new(folder: Path) -> None:
    """D15: done files are left alone, a changed, a new and a lost one are done; another profile is refused."""
    _deid(folder)
    before = {path: path.stat().st_mtime_ns for path in _outputs(folder)}
    lost = _outputs(folder)[0]
    lost.unlink()
    source = folder / "in" / "VPATHV^JANE"
    (source / "new.dcm").write_bytes(file_of(image(SOPInstanceUID=f"{ROOT}9.99", PatientID="VID-A")))
    report = json.loads(_deid(folder, "--json").stdout)
    assert (report["files"], report["done"], report["resumed"]) == (12, 9, 10)
    after = {path: path.stat().st_mtime_ns for path in _outputs(folder)}
    assert [path for path in before if after[path] != before[path]] == [lost]
    other = _deid(folder, "--profile", "research")
    assert isinstance(other.exception, ConfigError)
    assert "--no-resume" in str(other.exception)
    anew = _deid(folder, "--profile", "research", "--no-resume", "--json")
    assert json.loads(anew.stdout)["resumed"] == 0


def test_a_killed_run_goes_on_where_it_was(folder: Path) -> None:
    """D13, D15: SIGKILL in the middle leaves only complete files, and the next run ends with the same ones."""
    source = folder / "in" / "VPATHV^JANE"
    for number in range(100, 180):
        dataset = image(SOPInstanceUID=f"{ROOT}9.{number}", PatientID="VID-C", Rows=128, Columns=128)
        dataset.PixelData = bytes(128 * 128 * 2)
        (source / f"{number}.dcm").write_bytes(file_of(dataset))
    command = [sys.executable, "-m", "dicomnode", *_arguments(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while len(_outputs(folder)) < 10 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    there = _outputs(folder)
    assert there
    names = {transformed(path.read_bytes())[1].instance: path for path in source.glob("*.dcm")}
    for path in there:
        assert path.read_bytes() == transformed(names[path.stem].read_bytes())[0]
    report = json.loads(_deid(folder, "--json").stdout)
    assert (report["done"], report["failed"]) == (88, 0)
    assert len(_outputs(folder)) == 88
    assert not list((folder / "out.deid" / "unfinished").iterdir())
    recorded = {body["SOPInstanceUID"] for _, body in _rows(folder) if body.get("phase") == "instance"}
    assert recorded == {path.stem for path in _outputs(folder)}


def test_without_a_key_nothing_starts(folder: Path) -> None:
    """D14: exit status 2 and a clear word; there is no default key, and no output."""
    arguments = _arguments(folder)
    arguments = arguments[: arguments.index("--key")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DICOMNODE_")}
    command = [sys.executable, "-m", "dicomnode", *arguments]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert answer.returncode == 2
    assert "no key" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert not (folder / "out").exists()


@pytest.mark.parametrize("state", ["open to others", "not random", "missing"])
def test_with_a_bad_key_nothing_starts(folder: Path, state: str) -> None:
    """D14: a key that others can read, that is no random one, or that is not there."""
    if state == "open to others":
        (folder / "key").chmod(0o644)
    elif state == "not random":
        (folder / "key").write_bytes(bytes(32))
    else:
        (folder / "key").unlink()
    assert isinstance(_deid(folder).exception, ConfigError)
    assert not (folder / "out").exists()


def test_the_key_may_stand_in_the_configuration(folder: Path) -> None:
    """D14: [deid] key_file and profile are used when the command line names none."""
    with (folder / "node.toml").open("a") as file:
        file.write(f'[deid]\nkey_file = "{folder / "key"}"\nprofile = "research"\njobs = 1\n')
    (folder / "empty").mkdir()
    arguments = _arguments(folder, "--json")
    arguments[1] = str(folder / "empty")
    at = arguments.index("--key")
    result = CliRunner().invoke(cli, arguments[:at] + arguments[at + 2 :], standalone_mode=False)
    assert json.loads(result.stdout)["profile"] == "research"


def test_a_key_is_made_once(folder: Path) -> None:
    """D14: mode 0600, never overwritten, rotated only when asked."""
    path = folder / "fresh" / "key"
    made = CliRunner().invoke(cli, ["deid", "key", str(path)], standalone_mode=False)
    assert made.exception is None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_bytes()
    again = CliRunner().invoke(cli, ["deid", "key", str(path)], standalone_mode=False)
    assert isinstance(again.exception, ConfigError)
    assert path.read_bytes() == before
    rotated = CliRunner().invoke(cli, ["deid", "key", str(path), "--rotate"], standalone_mode=False)
    assert rotated.output != made.output
    assert before in path.read_bytes()


def test_a_disk_that_fails_is_told(folder: Path) -> None:
    """D21: a file that could not be written makes exit status 1, and the next run tries it again."""
    new = transformed((folder / "in" / "VPATHV^JANE" / "0.dcm").read_bytes())[1]
    block = folder / "out" / new.patient / new.study / new.series / f"{new.instance}.dcm"
    (block / "inside").mkdir(parents=True)
    result = _deid(folder, "--json")
    assert result.return_value == 1
    assert json.loads(result.stdout)["failed"] == 1
    (block / "inside").rmdir()
    block.rmdir()
    again = _deid(folder, "--json")
    assert again.return_value == 0
    assert json.loads(again.stdout)["done"] == 8


def test_no_file_without_its_audit_row(folder: Path) -> None:
    """D1: when the audit log takes no row, no file gets its name."""
    assert _deid(folder, "--profile", "basic").return_value == 0
    for path in _outputs(folder):
        path.unlink()
    with sqlite3.connect(folder / "node" / "dicomnode.sqlite3") as database:
        database.execute(
            "CREATE TRIGGER refused BEFORE INSERT ON audit WHEN NEW.body LIKE '%instance%'"
            " BEGIN SELECT RAISE(ABORT, 'full'); END"
        )
    database.close()
    result = _deid(folder)
    assert result.exception is not None
    assert not _outputs(folder)


@pytest.mark.parametrize("target", ["in", "in/VPATHV^JANE/out", "."])
def test_source_and_target_must_not_lie_in_each_other(folder: Path, target: str) -> None:
    """D21: nothing de-identified lies among what is not."""
    arguments = _arguments(folder)
    arguments[2] = str(folder / target)
    result = CliRunner().invoke(cli, arguments, standalone_mode=False)
    assert isinstance(result.exception, ConfigError)


def test_a_run_at_a_time(folder: Path) -> None:
    """D15: two runs into one target would both write its journal; the second is refused."""
    (folder / "out.deid").mkdir()
    with (folder / "out.deid" / "journal.jsonl").open("w+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        second = _deid(folder)
    assert isinstance(second.exception, ConfigError)
    assert "another run" in str(second.exception)
