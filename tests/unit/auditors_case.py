"""The small hospital of docs/auditors.md: two patients, two versions of a model, a stranger at the door."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from dicomnode.audit import append
from dicomnode.audit.checkpoint import head_of
from dicomnode.audit.events import Event
from dicomnode.audit.signing import SigningKey
from dicomnode.store.engine import Store
from dicomnode.store.schema import migrate

START = datetime(2026, 11, 2, 8, 0, tzinfo=UTC)
ROOT = "1.2.826.0.1.3680043.8.498"
CONFIG = """\
[node]
data_dir = "var"

[[peer]]
name = "ct-1"
ae_title = "CT1"
host = "ct1.example.org"
port = 104

[[peer]]
name = "pacs"
ae_title = "PACS"
host = "pacs.example.org"
port = 104

[audit]
checkpoint_path = "checkpoints.jsonl"
signing_key_file = "audit.key"
"""
IMAGES = 4


def build(folder: Path) -> None:
    """``node.toml``, its database and a signing key in ``folder``."""
    (folder / "node.toml").write_text(CONFIG, encoding="utf-8")
    key = SigningKey.make(folder / "audit.key")
    store = Store(f"sqlite:///{folder}/var/dicomnode.sqlite3")
    migrate(store)
    with store.write() as session:
        clock = _Clock(session)
        clock.add(Event.APPLICATION_START, {"software_version": "0.1", "ae_title": "DICOMNODE", "models": {}})
        _study(clock, 1, "PAT-1001", "ACC-2001", ("1.2.0", "ab" * 32), "findings")
        _study(clock, 2, "PAT-1002", "ACC-2002", ("1.1.0", "cd" * 32), "no findings")
        stranger = {"reason": "calling AE title not recognized", "CallingAETitle": "EVIL", "address": "10.9.9.9"}
        clock.add(Event.SECURITY_ALERT, stranger | {"CalledAETitle": "DICOMNODE"})
        asked = {"command": "patient", "filters": {"patient": "PAT-1001"}, "user": "ada"}
        clock.add(Event.AUDIT_LOG_USED, asked)
    with store.read() as session:
        line = head_of(session, "DICOMNODE").signed(key).line()
    (folder / "checkpoints.jsonl").write_text(line + "\n", encoding="utf-8")
    store.close()


class _Clock:
    """Appends rows, one a minute."""

    def __init__(self, session: Session) -> None:
        self.session, self.now = session, START

    def add(self, event: Event, body: dict[str, Any]) -> None:
        append(self.session, event, body, self.now)
        self.now += timedelta(minutes=1)

    def insert(self, table: str, **values: Any) -> None:
        names, marks = ", ".join(f'"{name}"' for name in values), ", ".join(f":{name}" for name in values)
        self.session.execute(text(f"INSERT INTO {table} ({names}) VALUES ({marks})"), values)


def _study(clock: _Clock, number: int, patient: str, accession: str, version: tuple[str, str], outcome: str) -> None:
    study = f"{ROOT}.200{number}"
    series = f"{study}.1"
    subject = {"PatientID": patient, "AccessionNumber": accession, "StudyInstanceUID": study}
    sender = {"association": number, "peer": "ct-1", "CallingAETitle": "CT1"}
    images = [{"SOPInstanceUID": f"{series}.{n}", "sha256": f"{number}{n}" * 32} for n in range(1, IMAGES + 1)]
    clock.add(Event.BEGIN_TRANSFERRING, subject | sender)
    for image in images:
        kind = {"SeriesInstanceUID": series, "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "size": 526000, "action": "C"}
        clock.add(Event.INSTANCE_STORED, subject | sender | image | kind)
    counts = {"n_new": IMAGES, "n_repeated": 0, "n_conflict": 0, "n_refused": 0, "ended": "released"}
    clock.add(Event.INSTANCES_TRANSFERRED, subject | sender | counts)
    subject |= {"SeriesInstanceUID": series, "generation": 1}
    clock.add(Event.SERIES_COMPLETE, subject | {"CallingAETitle": "CT1", "complete_by": "association ended"})
    made = [{"SOPInstanceUID": f"2.25.{number}0{n}", "kind": kind, "sha256": f"{n}e" * 32} for n, kind in _KINDS]
    model = {"detector": "ct-head", "model": "ct-head", "model_version": version[0], "weights_sha256": version[1]}
    run = {"started_at": clock.now.timestamp(), "finished_at": clock.now.timestamp() + 4, "software_version": "0.1"}
    result = {"outcome": outcome, "score": 0.91 if outcome == "findings" else 0.12, "threshold": 0.5}
    facts = {"sources": images, "outputs": made, "config_sha256": "0f" * 32, "assignment": number, "reason": ""}
    clock.add(Event.INFERENCE, subject | model | run | result | facts)
    sent = clock.now
    there = subject | {"assignment": number, "peer": "pacs"}
    clock.add(Event.DELIVERED, there | {"instances": made, "counts": {"sr": 1, "sc": 1}})
    clock.add(Event.COMMITTED, there | {"instances": [one["SOPInstanceUID"] for one in made]})
    _rows(clock, number, subject, images, made, sent.timestamp())


_KINDS = ((1, "sr"), (2, "sc"))


def _rows(
    clock: _Clock,
    number: int,
    subject: dict[str, Any],
    images: list[dict[str, str]],
    made: list[dict[str, str]],
    sent: float,
) -> None:
    """What the node's tables hold of the same study."""
    named = {key: subject[key] for key in ("StudyInstanceUID", "PatientID", "AccessionNumber")}
    clock.insert("study", id=number, StudyDate="", StudyDescription="", created_at=sent, **named)
    times = {"first_received_at": sent, "last_received_at": sent}
    about = {"Modality": "CT", "SeriesDescription": "", "CallingAETitle": "CT1", "state": "complete", "incomplete": 0}
    uid = subject["SeriesInstanceUID"]
    clock.insert("series", id=number, study_id=number, SeriesInstanceUID=uid, generation=1, **about, **times)
    for image in images:
        kept = {
            "SOPClassUID": "1.2",
            "TransferSyntaxUID": "1.2",
            "size": 1,
            "path": "p",
            "header": "{}",
            "generation": 1,
        }
        clock.insert("instance", series_id=number, received_at=sent, copies=1, conflict=0, **image, **kept)
    given = {"route": "ct", "detector": "ct-head", "send_to": '["pacs"]', "priority": 0, "reason": "", "generation": 1}
    clock.insert("assignment", id=number, series_id=number, created_at=sent, **given)
    for place, one in enumerate(made, number * 10):
        kept = {"SOPClassUID": "1.2", "SeriesInstanceUID": "1.2", "size": 1, "path": "p", "created_at": sent}
        clock.insert("derived", id=place, assignment_id=number, **one, **kept)
        state = {"destination": "pacs", "state": "delivered", "attempts": 1, "delivered_at": sent}
        clock.insert("delivery", derived_id=place, **state)
