"""The support bundle: enough to help, and nothing about a patient."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from dicomnode.audit import append
from dicomnode.audit.events import Event
from dicomnode.cli import cli
from dicomnode.deid.redaction import Redactor
from dicomnode.store.engine import Store
from dicomnode.store.schema import migrate
from dicomnode.store.spool import Spool
from dicomnode.store.tables import AssignmentRow, InstanceRow, JobRow, StudyRow
from tests.integration.detect_fixtures import SERIES, STUDY, complete_series

PLANTED = ("SENTINEL-4711", "SENTACC77", "SENTINELSON", STUDY, SERIES)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A node whose database is full of one patient."""
    (tmp_path / "dicomnode.toml").write_text(
        f'[node]\ndata_dir = "{tmp_path / "data"}"\n[[peer]]\nname = "pacs"\nae_title = "PACS"\nhost = "h"\nport = 1\n'
        '[[route]]\nname = "r"\nwhen = { PatientName = { regex = "SENTINELSON" }, Modality = "CT" }\n'
        'detector = "ct-head"\nsend_to = ["pacs"]\n'
    )
    spool = Spool(tmp_path / "data" / "spool")
    store = Store(f"sqlite:///{tmp_path / 'data' / 'dicomnode.sqlite3'}")
    migrate(store)
    assignment = complete_series(store, spool)
    with store.write() as session:
        study = session.query(StudyRow).one()
        study.PatientID, study.AccessionNumber, study.StudyDescription = (
            "SENTINEL-4711",
            "SENTACC77",
            "for SENTINEL-4711",
        )
        for instance in session.query(InstanceRow):
            instance.header = {**instance.header, "PatientName": ["SENTINELSON^Ann"]}
        row = session.get_one(AssignmentRow, assignment)
        row.outcome, row.reason = "not analysed", "PatientName SENTINELSON^Ann is not Smith; study SENTACC77"
        job = session.query(JobRow).first()
        assert job is not None
        job.state, job.error = "dead", f"no result for sentinel-4711 in {STUDY}"
        append(session, Event.NOT_ANALYSED, {"PatientID": "SENTINEL-4711", "StudyInstanceUID": STUDY})
    store.close()
    lines = [
        json.dumps({"level": "info", "message": f"patient SENTINEL-4711, series {SERIES}"}),
        "plain SENTACC77 text",
    ]
    (tmp_path / "node.log").write_text("\n".join(lines))
    return tmp_path


def _bundle(folder: Path) -> dict[str, str]:
    target = folder / "out.zip"
    arguments = ["support-bundle", str(target), "--log", str(folder / "node.log")]
    cli([*arguments, "--config", str(folder / "dicomnode.toml")], standalone_mode=False)
    assert target.stat().st_mode & 0o777 == 0o600
    with zipfile.ZipFile(target) as bundle:
        assert bundle.testzip() is None
        return {name: bundle.read(name).decode() for name in bundle.namelist()}


def test_no_patient_in_it(folder: Path) -> None:
    """D23: what was planted in rows, reasons, dead letters, rules and logs is in no member of the bundle."""
    members = _bundle(folder)
    assert len(members) == 7
    for name, content in members.items():
        assert not [word for word in PLANTED if word.lower() in content.lower()], name


def test_enough_to_help(folder: Path) -> None:
    """D23: versions, settings, state, counts, schema and log lines are there, and one UID has one name everywhere."""
    members = _bundle(folder)
    about, status = json.loads(members["about.json"]), json.loads(members["status.json"])
    database, audit = json.loads(members["database.json"]), json.loads(members["audit.json"])
    assert about["packages"]["pydicom"]
    assert json.loads(members["configuration.json"])["route"][0]["when"]["PatientName"] == "[removed]"
    assert status["received"]["studies"] == 1
    assert "[removed]" in status["dead_letters"][0]["reason"]
    assert database["rows"]["instance"] == 3
    assert any("CREATE TABLE audit" in sql for sql in database["schema"])
    assert audit["rows"] == {"not analysed": 1}
    assert "dicomnode_" in members["metrics.txt"]
    first, second = members["logs/1.txt"].splitlines()
    assert json.loads(first)["level"] == "info"
    assert second == "plain [removed] text"
    named = json.loads(first)["message"].rpartition(" ")[2]
    assert named.startswith("uid-")
    assert named in members["status.json"]


def test_never_overwrites(folder: Path) -> None:
    """D23: an existing file stays what it is."""
    (folder / "out.zip").write_text("mine")
    with pytest.raises(Exception, match="cannot be written"):
        _bundle(folder)
    assert (folder / "out.zip").read_text() == "mine"


def test_redactor() -> None:
    """D23: identifiers go in any case of letters, numbers and standard UIDs stay, UIDs differ from bundle to bundle."""
    one, other = Redactor(["ABC-123", "4711", "xyz"]), Redactor([])
    assert one.text("abc-123 and 4711, 14711, xyz") == "[removed] and [removed], 14711, xyz"
    assert one.tree({"port": 4711, "4711": ["4711"]}) == {"port": 4711, "[removed]": ["[removed]"]}
    assert one.text("1.2.840.10008.1.2.1 version 2.1.0") == "1.2.840.10008.1.2.1 version 2.1.0"
    assert one.text("1.2.3.4") == one.text("1.2.3.4") != other.text("1.2.3.4")
