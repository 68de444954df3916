"""``audit verify``, ``key`` and ``archive`` at the command line (trust.md B9, A4, A5)."""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dicomnode.audit import append
from dicomnode.audit.checkpoint import Checkpoint
from dicomnode.audit.events import Event
from dicomnode.audit.signing import SigningKey
from dicomnode.cli import cli
from dicomnode.config import load_config
from dicomnode.errors import ConfigError
from dicomnode.node.build import Blueprint
from dicomnode.node.checkpoints import Checkpoints
from dicomnode.node.doctor import diagnose
from dicomnode.store.audit_sql import TRIGGERS
from dicomnode.store.engine import Store
from tests.unit.audit_fixtures import new_log

OLD = datetime(2019, 1, 1, tzinfo=UTC)


@dataclass
class Site:
    """A node's folder: configuration, key, database with ten old rows and one of now, and a signed checkpoint."""

    folder: Path
    capsys: Any
    monkeypatch: pytest.MonkeyPatch

    def __post_init__(self) -> None:
        self.config = self.folder / "node.toml"
        self.points = self.folder / "points.jsonl"
        new_log(self.folder).close()
        (self.folder / "var").mkdir()
        (self.folder / "x.sqlite3").rename(self.folder / "var" / "dicomnode.sqlite3")
        self.store = Store(f"sqlite:///{self.folder}/var/dicomnode.sqlite3")
        with self.store.write() as session:
            for number in range(10):
                append(session, Event.INFERENCE, {"PatientID": f"P{number}"}, OLD + timedelta(days=number))
            append(session, Event.INFERENCE, {})
        assert self.run("key", str(self.folder / "audit.key"), config=False)[0] == 0
        self.config.write_text(
            f'[node]\ndata_dir = "{self.folder}/var"\n[audit]\nretention_days = 183\n'
            f'signing_key_file = "{self.folder}/audit.key"\n'
            f'checkpoints = [{{ kind = "file", path = "{self.points}" }}]\n'
        )
        self.checkpoint()

    def checkpoint(self) -> None:
        Checkpoints(load_config(self.config)[0], self.store).now()

    def run(self, *arguments: str, config: bool = True) -> tuple[int, str, str]:
        """Exit status, stdout, stderr."""
        more = ["--config", str(self.config)] if config else []
        self.capsys.readouterr()
        status = cli.main(["audit", *arguments, *more], standalone_mode=False) or 0
        said = self.capsys.readouterr()
        return int(status), said.out, said.err

    def verify(self, *arguments: str) -> dict[str, Any]:
        status, out, _ = self.run("verify", "--json", *arguments)
        answer = json.loads(out)
        assert status == (0 if answer["ok"] else 1)
        return dict(answer)

    def tamper(self, *statements: str) -> None:
        connection = sqlite3.connect(self.store.path)
        for name in TRIGGERS:
            connection.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            connection.execute(statement)
        for sql in TRIGGERS.values():
            connection.execute(sql)
        connection.commit()
        connection.close()

    def kinds(self) -> list[str]:
        connection = sqlite3.connect(self.store.path)
        found = [row[0] for row in connection.execute("SELECT kind FROM audit ORDER BY seq")]
        connection.close()
        return found


@pytest.fixture
def site(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    made = Site(tmp_path, capsys, monkeypatch)
    yield made
    made.store.close()


def test_a_good_log_is_told_with_what_proves_it(site: Site) -> None:
    """B9, A4: exit status 0, the signed checkpoint agrees, and the verification itself leaves audit log used."""
    status, out, _ = site.run("verify")
    assert status == 0
    assert out.startswith("ok: 11 rows, head ")
    assert "1 checkpoint(s) agree (1 signed by a key that is trusted)" in out
    assert site.kinds()[-1] == "audit log used"


@pytest.mark.parametrize(
    ("statement", "first_bad", "said"),
    [
        ("UPDATE audit SET body = '{}' WHERE seq = 4", 4, "content does not match"),
        ("DELETE FROM audit WHERE seq = 4", 4, "row 4 is missing"),
        ("INSERT INTO audit SELECT 12, ts, kind, body, hash, x'01' FROM audit WHERE seq = 11", 12, "does not match"),
        ("DELETE FROM audit WHERE seq > 9", None, "the log was cut, row 11 is gone"),
    ],
)
def test_the_first_bad_row_is_named(site: Site, statement: str, first_bad: int | None, said: str) -> None:
    """B9: edited, removed and inserted rows by their number, a cut tail by the checkpoint; exit status 1; an alert."""
    site.tamper(statement)
    answer = site.verify()
    assert (answer["ok"], answer["first_bad"]) == (not said, first_bad)
    assert said in answer["reason"]
    if said and first_bad != 12:
        assert site.kinds()[-1] == "security alert"


def test_a_missing_trigger_is_named(site: Site) -> None:
    """B3: the rows may be good, the table is not protected."""
    connection = sqlite3.connect(site.store.path)
    connection.execute("DROP TRIGGER audit_no_delete")
    connection.close()
    assert "audit_no_delete" in site.verify()["reason"]


def test_a_forged_checkpoint_is_named(site: Site) -> None:
    """B8: by the configuration's key, or by the one that the auditor brings."""
    entry = json.loads(site.points.read_text())
    site.points.write_text(json.dumps(entry | {"size": 10}) + "\n")
    assert "its signature is wrong" in site.verify()["reason"]


def test_an_auditor_brings_his_own_key_and_wants_a_signature(site: Site) -> None:
    """B8: with --public-key unsigned checkpoints alone prove nothing; an unsigned file alone is told without it."""
    public = site.folder / "public.pem"
    public.write_text(site.run("key", str(site.folder / "audit.key"), config=False)[1])
    assert site.verify("--public-key", str(public))["signed"] == 1
    site.run("key", str(site.folder / "other.key"), config=False)
    public.write_text(site.run("key", str(site.folder / "other.key"), config=False)[1])
    assert "another key" in site.verify("--public-key", str(public))["reason"]
    entry = json.loads(site.points.read_text())
    plain = {name: entry[name] for name in ("hash", "origin", "size", "time")}
    site.points.write_text(json.dumps(plain) + "\n")
    answer = site.verify()
    assert (answer["ok"], answer["unsigned"]) == (True, 1)
    assert "none is signed" in site.verify("--public-key", str(public))["reason"]


def test_a_checkpoint_file_without_one_of_this_log_proves_nothing(site: Site) -> None:
    """B9: no silent pass: the file is there, its checkpoints are all of another node; one of ours beside them does."""
    own = site.points.read_text()
    foreign = Checkpoint("OTHER", 3, bytes(32), "2026").signed(SigningKey.load(site.folder / "audit.key")).line()
    site.points.write_text(foreign + "\n")
    answer = site.verify()
    assert (answer["ok"], answer["checkpoints_of_others"]) == (False, 1)
    assert "none is of this log" in answer["reason"]
    site.points.write_text(f"{foreign}\n{own}")
    answer = site.verify()
    assert (answer["ok"], answer["checkpoints_of_others"], answer["signed"]) == (True, 1, 2)


def test_a_copy_is_verified_and_not_touched(site: Site) -> None:
    """B9: reads only: a copy that an auditor brings keeps every byte, and nothing is recorded in it."""
    connection = sqlite3.connect(site.store.path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    copy = site.folder / "copy.sqlite3"
    shutil.copy(site.store.path, copy)
    before = copy.read_bytes()
    assert site.verify("--database", str(copy))["rows"] == 11
    assert copy.read_bytes() == before
    assert not list(site.folder.glob("copy.sqlite3-*"))
    assert site.kinds()[-1] == "inference"


def test_verify_works_while_the_node_writes(site: Site) -> None:
    """B9: one snapshot; rows that come meanwhile are no fault."""
    stop, written = threading.Event(), list[int]()

    def write() -> None:
        store = Store(site.store.url)
        while not stop.is_set():
            with store.write() as session:
                append(session, Event.INFERENCE, {})
            written.append(1)
        store.close()

    def verify() -> dict[str, Any]:
        answer, seen, until = site.verify(), len(written), time.monotonic() + 60
        while len(written) < seen + 2:  # the first of them may have been on its way
            assert time.monotonic() < until, "nobody writes"
            time.sleep(0.001)
        return answer

    writer = threading.Thread(target=write)
    writer.start()
    try:
        answers = [verify() for _ in range(4)]
    finally:
        stop.set()
        writer.join(60)
    assert all(answer["ok"] for answer in answers)
    assert answers[-1]["rows"] > answers[0]["rows"]


def test_archive_then_verify(site: Site) -> None:
    """A5, B9: rows leave for a signed archive; a checkpoint and a row are left; old checkpoints ask for the archive."""
    out = site.folder / "archive"
    status, said, _ = site.run("archive", "--before", "2019-01-06", str(out))
    assert (status, said.startswith("rows 1 to 5 are in")) == (0, True)
    assert site.kinds()[-1] == "audit archived"
    lines = [json.loads(line) for line in site.points.read_text().splitlines()]
    assert [line["size"] for line in lines] == [11, 12]
    answer = site.verify()
    assert (answer["ok"], answer["archived"], answer["archives_complete"]) == (True, 5, False)
    answer = site.verify("--archive", str(out))
    assert (answer["ok"], answer["archives_complete"]) == (True, True)
    assert "proved to the first row" in site.run("verify", "--archive", str(out))[1]


def test_archive_needs_a_key_a_time_and_old_rows(site: Site) -> None:
    """A5: unsigned, unasked or too young rows never leave."""
    from click import BadParameter

    from dicomnode.errors import Permanent

    with pytest.raises(BadParameter, match="ISO 8601"):
        site.run("archive", "--before", "yesterday", str(site.folder / "a"))
    with pytest.raises(Permanent, match="have to stay"):
        site.run("archive", "--before", datetime.now(UTC).isoformat(), str(site.folder / "a"))
    assert "no rows" in site.run("archive", "--before", "2018-01-01", str(site.folder / "a"))[1]
    text = site.config.read_text()
    site.config.write_text("\n".join(line for line in text.splitlines() if "signing_key_file" not in line))
    with pytest.raises(ConfigError, match="signed"):
        site.run("archive", "--before", "2019-01-06", str(site.folder / "a"))
    assert not (site.folder / "a").exists()


def test_reconcile_tells_every_difference_and_fails(site: Site) -> None:
    """A2, A4: exit status 1 and a security alert; it is itself recorded as a use of the log."""
    status, out, _ = site.run("reconcile")
    assert (status, out.splitlines()[-1]) == (0, "0 studies, 0 difference(s)")
    connection = sqlite3.connect(site.store.path)
    values = {
        "study": "1, '1.2.3', 'P', 'A', '', '', 1.0, NULL",
        "series": "1, 1, '1.2.3.4', 'CT', '', 'CT1', NULL, 1, 'complete', NULL, 0, 1.0, 2.0, NULL, NULL, NULL",
    }
    names = {
        "study": "id, StudyInstanceUID, PatientID, AccessionNumber, StudyDate, StudyDescription, created_at,"
        " deleted_at",
        "series": "id, study_id, SeriesInstanceUID, Modality, SeriesDescription, CallingAETitle, association_id,"
        " generation, state, complete_by, incomplete, first_received_at, last_received_at, n_expected, asked_at,"
        " completed_at",
    }
    for table, row in values.items():
        connection.execute(f"INSERT INTO {table} ({names[table]}) VALUES ({row})")
    connection.execute(
        "INSERT INTO instance (series_id, SOPInstanceUID, SOPClassUID, TransferSyntaxUID, sha256, size, path, header,"
        " generation, received_at, copies, conflict) VALUES (1, '1.2.9', '1.2', '1.2', 'ab', 1, 'received/aa/aa.dcm',"
        " '{}', 1, 2.0, 1, 0)"
    )
    connection.commit()
    connection.close()
    status, out, errors = site.run("reconcile")
    assert (status, out.splitlines()[-1]) == (1, "1 studies, 2 difference(s)")
    assert "instance without its row: StudyInstanceUID=1.2.3 SOPInstanceUID=1.2.9" in errors
    assert "file missing: SOPInstanceUID=1.2.9" in errors
    assert site.kinds()[-2:] == ["security alert", "audit log used"]


def test_doctor_names_a_key_that_cannot_be_used(site: Site) -> None:
    """B8: what would stop the next start is told before it, with the way to mend it."""
    plan = Blueprint(*load_config(site.config))
    assert [found.level for found in diagnose(plan) if found.check == "checkpoints"] == ["ok"]
    (site.folder / "audit.key").chmod(0o644)
    faults = [found for found in diagnose(plan) if found.check == "checkpoints"]
    assert [(found.level, "audit key" in found.mend) for found in faults] == [("fault", True)]
    with pytest.raises(ConfigError, match="open to others"):
        Checkpoints(plan.config, site.store)
