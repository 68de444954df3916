"""One audit row as the message of PS3.15 A.5, before it is written as XML or as a FHIR resource."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from dicomnode.audit.mapping import (
    APPLICATION,
    DESTINATION,
    NODE_AUTHENTICATION,
    OBJECT_CHANGED,
    SECURITY_CONFIGURATION,
    SOURCE,
    STUDY,
    Action,
    Code,
    Mapped,
    Outcome,
    mapped,
    own,
)

_PERSON, _SYSTEM = "1", "2"
_PATIENT_NUMBER = Code("2", "Patient Number", "RFC-3881")
_URI = Code("12", "URI", "RFC-3881")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOST_INSTANCES = 500
"""Beyond so many, a message tells their number: a syslog server has to take 32 KiB only (PS3.15 A.6)."""
_WORSE: dict[str, Outcome] = {"failed": "8"}


@dataclass(frozen=True, slots=True)
class Participant:
    """Who took part. ``address``: an IP address or a host name."""

    id: str
    requestor: bool
    role: Code | None = None
    ae_title: str = ""
    address: str = ""
    human: bool = False


@dataclass(frozen=True, slots=True)
class ObjectClass:
    """Instances of one SOP Class; ``uid`` is empty where the row does not say it."""

    uid: str
    count: int
    instances: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Subject:
    """What the event was about (ParticipantObjectIdentification). ``role``, ``lifecycle``: codes of A.5.1.2."""

    id: str
    id_type: Code
    name: str
    type: str
    role: str
    lifecycle: str = ""
    details: tuple[tuple[str, str], ...] = ()
    accession: str = ""
    classes: tuple[ObjectClass, ...] = ()


@dataclass(frozen=True, slots=True)
class Message:
    """One message. ``seq``: the row it tells."""

    seq: int
    at: datetime
    event: Code
    type: Code | None
    action: Action
    outcome: Outcome
    reason: str
    participants: tuple[Participant, ...]
    source: str
    subjects: tuple[Subject, ...] = field(default=())


def message_of(row: Mapping[str, Any], ae_title: str, host: str) -> Message:
    """The message of a row that ``audit.find`` gave. ``ae_title``, ``host``: of this node."""
    body: Mapping[str, Any] = row["body"] if isinstance(row["body"], dict) else {}
    known = mapped(row["kind"])
    outcome = _outcome(known, body)
    return Message(
        int(row["seq"]),
        _time(str(row["ts"])),
        known.event,
        _type(known, body),
        _action(known, body),
        outcome,
        "" if outcome == "0" else str(body.get("reason") or known.event.meaning),
        _participants(known, body, ae_title, host),
        f"{ae_title}@{host}",
        (*_subjects(known, body, f"dicomnode://{host}/{ae_title}"), _row(row)),
    )


def _time(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return _EPOCH  # an intruder's text; the row's own object holds its number and hash
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _type(known: Mapped, body: Mapping[str, Any]) -> Code | None:
    """A Security Alert needs a type (PS3.15 A.5.3.11)."""
    if known.shape != "alert" or known.type is not None:
        return known.type
    if body.get("command") == "verify":
        return OBJECT_CHANGED
    return NODE_AUTHENTICATION if body.get("CallingAETitle") or body.get("address") else SECURITY_CONFIGURATION


def _action(known: Mapped, body: Mapping[str, Any]) -> Action:
    """Of a finished transfer: U when held copies changed, C when something was new, else R (PS3.15 A.5.3.7)."""
    if known.shape != "received" or "n_new" not in body:
        return known.action
    if body.get("n_conflict"):
        return "U"
    return "C" if body.get("n_new") else "R"


def _outcome(known: Mapped, body: Mapping[str, Any]) -> Outcome:
    if body.get("n_refused") or body.get("ended") in ("aborted", "lost"):
        return "4"
    if body.get("ok") is False:
        return "8"
    return _WORSE.get(str(body.get("outcome")), known.outcome)


def _participants(known: Mapped, body: Mapping[str, Any], ae_title: str, host: str) -> tuple[Participant, ...]:
    roles = {"received": (SOURCE, DESTINATION), "sent": (DESTINATION, SOURCE)}
    theirs, ours = roles.get(known.shape, (None, APPLICATION))
    user, title = str(body.get("user") or ""), str(body.get("CallingAETitle") or "")
    peer = str(body.get("peer") or title or body.get("address") or "")
    by_peer = known.shape in {"received", "alert"} and bool(peer)
    found = []
    if peer:
        found.append(Participant(peer, by_peer, theirs, title, str(body.get("address") or "")))
    if user:
        found.append(Participant(user, requestor=True, human=True))
    found.append(Participant(ae_title, not by_peer and not user, ours, ae_title, host))
    return tuple(found)


def _subjects(known: Mapped, body: Mapping[str, Any], uri: str) -> list[Subject]:
    found = []
    if known.shape == "log":
        asked = tuple(_details(body, ("command", "filters", "run_as")))
        found.append(Subject(f"{uri}/audit", _URI, "Security Audit Log", _SYSTEM, "13", "6", asked))
    if known.shape == "alert":
        words = str(body.get("reason") or known.event.meaning)
        found.append(Subject(uri, _URI, known.event.meaning, _SYSTEM, "13", "", (("Alert Description", words),)))
    if body.get("StudyInstanceUID"):
        found.append(_study(known, body))
    if body.get("PatientID"):
        found.append(Subject(str(body["PatientID"]), _PATIENT_NUMBER, "not recorded", _PERSON, "1"))
    if body.get("weights_sha256"):
        found.append(_model(body))
    return found


_LIFECYCLE = {"received": "2", "sent": "10", "deleted": "15", "analysis": "6", "copied": "7"}


def _study(known: Mapped, body: Mapping[str, Any]) -> Subject:
    facts = ("SeriesInstanceUID", "generation", "detector", "outcome", "counts", "n_instances")
    return Subject(
        str(body["StudyInstanceUID"]),
        STUDY,
        "study",
        _SYSTEM,
        "3",
        _LIFECYCLE.get(known.shape, ""),
        tuple(_details(body, facts)),
        str(body.get("AccessionNumber") or ""),
        _classes(body),
    )


def _classes(body: Mapping[str, Any]) -> tuple[ObjectClass, ...]:
    """The Instances that the row names: the one received, those sent, or those made."""
    if body.get("SOPInstanceUID"):
        return (ObjectClass(str(body.get("SOPClassUID") or ""), 1, (str(body["SOPInstanceUID"]),)),)
    listed = body.get("instances") or body.get("outputs")
    if isinstance(listed, list) and listed:
        uids = [str(item.get("SOPInstanceUID", "")) if isinstance(item, dict) else str(item) for item in listed]
        return (ObjectClass("", len(uids), tuple(uids[:_MOST_INSTANCES])),)
    counts = Counter({key: body[key] for key in ("n_new", "n_repeated", "n_conflict") if body.get(key)})
    return (ObjectClass("", counts.total()),) if "n_new" in body else ()


def _model(body: Mapping[str, Any]) -> Subject:
    name = f"{body.get('model') or body.get('detector') or 'model'} {body.get('model_version') or ''}".strip()
    facts = ("detector", "software_version", "config_sha256", "score", "threshold", "outcome")
    kind = own("weights-sha256", "SHA-256 of the weights of a model")
    return Subject(str(body["weights_sha256"]), kind, name, _SYSTEM, "26", "6", tuple(_details(body, facts)))


def _row(row: Mapping[str, Any]) -> Subject:
    """The row itself, by which a message can be compared with the chain."""
    kind = own("audit-row", "Row of the audit log of dicomnode")
    details = (("kind", str(row["kind"])), ("hash", str(row["hash"])), ("prev", str(row["prev"])))
    return Subject(str(row["seq"]), kind, "audit row", _SYSTEM, "13", "", details)


def _details(body: Mapping[str, Any], keys: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(key, str(body[key])) for key in keys if body.get(key) not in (None, "", {}, [])]
