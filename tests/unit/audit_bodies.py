"""A row of every kind as the node writes it, for tests of what is made of rows."""

from __future__ import annotations

from typing import Any

from dicomnode.audit.events import Event

SUBJECT = {
    "PatientID": "PID-77",
    "AccessionNumber": "ACC-1",
    "StudyInstanceUID": "1.2.840.1.1",
    "SeriesInstanceUID": "1.2.840.1.1.1",
    "generation": 1,
    "assignment": 1,
}
_SENDER = {"association": 5, "peer": "ct-1", "CallingAETitle": "CT1"}
_IMAGE = {"SOPInstanceUID": "1.2.840.1.1.1.9", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "sha256": "0" * 64}
_OUTPUTS = [{"SOPInstanceUID": f"2.25.{number}", "kind": "sr", "sha256": "1" * 64} for number in range(3)]
MODEL = {"detector": "ct-head", "model": "head", "model_version": "1.2", "weights_sha256": "ab" * 32}

BODIES: dict[Event, dict[str, Any]] = {
    Event.APPLICATION_START: {"roles": ["work"], "software_version": "1", "ae_title": "DICOMNODE"},
    Event.BEGIN_TRANSFERRING: {**_SENDER, **SUBJECT},
    Event.INSTANCES_TRANSFERRED: {**_SENDER, **SUBJECT, "n_new": 2, "n_repeated": 1, "n_conflict": 0, "n_refused": 0},
    Event.INSTANCE_STORED: {**_SENDER, **SUBJECT, **_IMAGE, "action": "C"},
    Event.INSTANCE_REPEATED: {**_SENDER, **SUBJECT, **_IMAGE, "action": "R"},
    Event.INSTANCE_CONFLICT: {**_SENDER, **SUBJECT, **_IMAGE, "action": "U"},
    Event.SECURITY_ALERT: {"reason": "unknown calling AE title", "CallingAETitle": "X\x1b[31m", "address": "10.0.0.9"},
    Event.INFERENCE: {**SUBJECT, **MODEL, "outcome": "findings", "score": 0.9, "threshold": 0.5, "outputs": _OUTPUTS},
    Event.DELIVERED: {**SUBJECT, "peer": "pacs", "instances": _OUTPUTS, "counts": {"sr": 3}},
    Event.DELIVERY_FAILED: {**SUBJECT, "peer": "pacs", "instances": _OUTPUTS, "reason": "refused"},
    Event.COMMITTED: {**SUBJECT, "peer": "pacs", "TransactionUID": "1.2", "instances": ["2.25.1"]},
    Event.AUDIT_LOG_USED: {"command": "list", "filters": {"patient": "PID-77"}, "user": "ada", "run_as": "root"},
    Event.STUDY_DELETED: {**SUBJECT, "series": ["1.2"], "images": 3},
    Event.REQUEUED: {**SUBJECT, "job": 3, "kind": "deliver", "user": "ada"},
    Event.DEAD_LETTER: {**SUBJECT, "job": 3, "kind": "detect", "reason": "out of memory"},
}


def row(event: Event, seq: int = 7, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """The row as ``audit.find`` gives it."""
    said = BODIES.get(event, SUBJECT) if body is None else body
    ts = "2026-01-01T10:00:00.123456+00:00"
    return {"seq": seq, "ts": ts, "kind": event.value, "body": said, "prev": "0" * 64, "hash": "f" * 64}
