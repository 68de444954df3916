"""B10: rows as audit messages of PS3.15 A.5, whole and of the schema of A.5.1."""

from __future__ import annotations

import base64
import re
from datetime import datetime
from typing import Any
from xml.etree.ElementTree import Element, fromstring

import pytest
from pydicom.sr.codedict import codes

from dicomnode.audit.events import Event
from dicomnode.audit.mapping import LOOKED_CODES, MAPPING, OWN_SCHEME, mapped
from dicomnode.audit.message import message_of
from dicomnode.audit.message_xml import to_xml
from tests.unit.audit_bodies import BODIES, row

TOKEN = r"[^\n\r\t]*"
BASE64 = r"[A-Za-z0-9+/]*={0,2}"
CODED: dict[str, tuple[str, bool]] = {
    "csd-code": (r".+", True),
    "codeSystemName": (r".+", True),
    "displayName": (TOKEN, False),
    "originalText": (r".+", True),
}
SCHEMA: dict[str, tuple[dict[str, tuple[str, bool]], list[tuple[str, int, int | None]]]] = {
    "AuditMessage": (
        {},
        [
            ("EventIdentification", 1, 1),
            ("ActiveParticipant", 1, None),
            ("AuditSourceIdentification", 1, 1),
            ("ParticipantObjectIdentification", 0, None),
        ],
    ),
    "EventIdentification": (
        {
            "EventActionCode": (r"[CRUDE]", False),
            "EventDateTime": (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", True),
            "EventOutcomeIndicator": (r"0|4|8|12", True),
        },
        [("EventID", 1, 1), ("EventTypeCode", 0, None), ("EventOutcomeDescription", 0, 1)],
    ),
    "EventID": (CODED, []),
    "EventTypeCode": (CODED, []),
    "EventOutcomeDescription": ({}, []),
    "ActiveParticipant": (
        {
            "UserID": (r".*", True),
            "AlternativeUserID": (r".*", False),
            "UserName": (r".*", False),
            "UserIsRequestor": (r"true|false", True),
            "NetworkAccessPointID": (TOKEN, False),
            "NetworkAccessPointTypeCode": (r"[1-5]", False),
        },
        [("RoleIDCode", 0, None), ("MediaIdentifier", 0, 1)],
    ),
    "RoleIDCode": (CODED, []),
    "AuditSourceIdentification": (
        {"AuditEnterpriseSiteID": (TOKEN, False), "AuditSourceID": (r".+", True)},
        [("AuditSourceTypeCode", 0, None)],
    ),
    "AuditSourceTypeCode": ({"csd-code": (r"[1-9]", True)}, []),
    "ParticipantObjectIdentification": (
        {
            "ParticipantObjectID": (r".+", True),
            "ParticipantObjectTypeCode": (r"[1-4]", False),
            "ParticipantObjectTypeCodeRole": (r"[1-9]|1\d|2[0-6]", False),
            "ParticipantObjectDataLifeCycle": (r"[1-9]|1[0-5]", False),
            "ParticipantObjectSensitivity": (TOKEN, False),
        },
        [
            ("ParticipantObjectIDTypeCode", 1, 1),
            ("ParticipantObjectName", 1, 1),
            ("ParticipantObjectDetail", 0, None),
            ("ParticipantObjectDescription", 0, None),
        ],
    ),
    "ParticipantObjectIDTypeCode": (CODED, []),
    "ParticipantObjectName": ({}, []),
    "ParticipantObjectDetail": ({"type": (TOKEN, True), "value": (BASE64, True)}, []),
    "ParticipantObjectDescription": (
        {},
        [
            ("MPPS", 0, None),
            ("Accession", 0, None),
            ("SOPClass", 0, None),
            ("ParticipantObjectContainsStudy", 0, 1),
            ("Encrypted", 0, 1),
            ("Anonymized", 0, 1),
        ],
    ),
    "Accession": ({"Number": (TOKEN, True)}, []),
    "SOPClass": ({"UID": (r"[0-9.]+", False), "NumberOfInstances": (r"\d+", True)}, [("Instance", 0, None)]),
    "Instance": ({"UID": (r"[0-9.]+", True)}, []),
}
"""The schema of PS3.15 A.5.1 (RELAX NG compact): per element its attributes (pattern, required) and its children in
order with their numbers. ParticipantObjectQuery, which nothing here writes, is left out of the choice with the name."""


def faults(element: Element) -> list[str]:
    """What is not of the schema, at any depth."""
    if element.tag not in SCHEMA:
        return [f"{element.tag} is no element"]
    attributes, children = SCHEMA[element.tag]
    found = [f"{element.tag}@{name} is no attribute" for name in element.attrib if name not in attributes]
    for name, (pattern, required) in attributes.items():
        value = element.get(name)
        if value is None and required:
            found.append(f"{element.tag}@{name} is missing")
        if value is not None and not re.fullmatch(pattern, value, re.DOTALL):
            found.append(f"{element.tag}@{name}={value!r}")
    order = [name for name, _, _ in children]
    tags = [child.tag for child in element]
    if tags != sorted(tags, key=lambda tag: order.index(tag) if tag in order else -1):
        found.append(f"{element.tag}: its children are out of order")
    for name, least, most in children:
        count = tags.count(name)
        if count < least or (most is not None and count > most):
            found.append(f"{element.tag}: {count} {name}")
    return found + [fault for child in element for fault in faults(child)]


def told(event: Event, body: dict[str, Any] | None = None) -> Element:
    return fromstring(to_xml(message_of(row(event, body=body), "DICOMNODE", "node.example.org")))


def code(element: Element | None) -> tuple[str | None, str | None]:
    return (None, None) if element is None else (element.get("csd-code"), element.get("codeSystemName"))


def participants(message: Element) -> dict[str, tuple[str | None, str | None]]:
    """UserID to (role, UserIsRequestor)."""
    return {
        str(one.get("UserID")): (code(one.find("RoleIDCode"))[0], one.get("UserIsRequestor"))
        for one in message.findall("ActiveParticipant")
    }


def test_the_check_of_the_schema_finds_faults() -> None:
    message = told(Event.DELIVERED)
    message[0].set("EventOutcomeIndicator", "1")
    message[0].set("Colour", "red")
    message.append(message[1])
    message.findall("ParticipantObjectIdentification")[0].attrib.pop("ParticipantObjectID")
    assert len(faults(message)) == 4


@pytest.mark.parametrize("event", Event)
def test_every_event_has_its_message(event: Event) -> None:
    """B10: a kind of row that nobody mapped would reach a repository without a meaning."""
    assert event in MAPPING


@pytest.mark.parametrize("event", Event)
def test_every_message_is_of_the_schema(event: Event) -> None:
    message = told(event)
    assert faults(message) == []
    assert "\n" not in to_xml(message_of(row(event), "A", "h"))


@pytest.mark.parametrize("kind", sorted(MAPPING))
def test_every_code_of_dicom_is_the_one_of_the_standard(kind: str) -> None:
    """PS3.16 CID 400 to 403: the number and its meaning belong together."""
    all_of_them = (getattr(codes.DCM, name) for name in codes.DCM.dir())
    known = {concept.value: concept.meaning for concept in all_of_them}
    for concept in filter(None, (MAPPING[kind].event, MAPPING[kind].type)):
        assert concept.scheme in {"DCM", OWN_SCHEME}
        if concept.scheme == "DCM":
            assert known[concept.value] == concept.meaning


STANDARD = {
    Event.APPLICATION_START: ("110100", "110120", "E"),
    Event.APPLICATION_STOP: ("110100", "110121", "E"),
    Event.AUDIT_LOG_USED: ("110101", None, "R"),
    Event.BEGIN_TRANSFERRING: ("110102", None, "E"),
    Event.INSTANCES_TRANSFERRED: ("110104", None, "C"),
    Event.STUDY_DELETED: ("110105", None, "D"),
    Event.SECURITY_ALERT: ("110113", "110126", "E"),
}


@pytest.mark.parametrize("event", STANDARD)
def test_events_of_the_standard_have_its_codes(event: Event) -> None:
    """The table B.3, by PS3.15 A.5.3.1 to A.5.3.11."""
    identification = told(event)[0]
    kind = identification.find("EventTypeCode")
    assert (code(identification.find("EventID"))[0], code(kind)[0], identification.get("EventActionCode")) == STANDARD[
        event
    ]


@pytest.mark.parametrize(
    ("counts", "action", "outcome"),
    [
        ({"n_new": 3, "n_repeated": 1, "n_conflict": 0}, "C", "0"),
        ({"n_new": 0, "n_repeated": 1, "n_conflict": 0}, "R", "0"),
        ({"n_new": 3, "n_repeated": 1, "n_conflict": 1}, "U", "0"),
        ({"n_new": 3, "n_repeated": 0, "n_conflict": 0, "n_refused": 1}, "C", "4"),
        ({"n_new": 3, "n_repeated": 0, "n_conflict": 0, "ended": "aborted"}, "C", "4"),
    ],
)
def test_a_transfer_says_whether_the_copies_were_new(counts: dict[str, Any], action: str, outcome: str) -> None:
    """PS3.15 A.5.3.7: C create, R held already, U altered; what was refused is a failure."""
    identification = told(Event.INSTANCES_TRANSFERRED, {**BODIES[Event.INSTANCES_TRANSFERRED], **counts})[0]
    assert (identification.get("EventActionCode"), identification.get("EventOutcomeIndicator")) == (action, outcome)


def test_who_sent_and_who_received() -> None:
    """Source 110153, destination 110152 (PS3.15 A.5.3.7), whichever side the node is on."""
    received, sent = participants(told(Event.INSTANCES_TRANSFERRED)), participants(told(Event.DELIVERED))
    assert received == {"ct-1": ("110153", "true"), "DICOMNODE": ("110152", "false")}
    assert sent == {"pacs": ("110152", "false"), "DICOMNODE": ("110153", "true")}


def test_the_person_who_reads_the_log_is_named_and_the_log_is_the_object() -> None:
    """PS3.15 A.5.3.2: both the person and the process, and one object "Security Audit Log" with a URI."""
    message = told(Event.AUDIT_LOG_USED)
    assert participants(message)["ada"][1] == "true"
    log = message.findall("ParticipantObjectIdentification")[0]
    assert (log.get("ParticipantObjectTypeCode"), log.get("ParticipantObjectTypeCodeRole")) == ("2", "13")
    assert code(log.find("ParticipantObjectIDTypeCode"))[0] == "12"
    assert log.findtext("ParticipantObjectName") == "Security Audit Log"


def test_study_patient_and_model_are_objects_and_the_row_itself_with_its_hash() -> None:
    """A copy elsewhere can be compared with the chain: each message holds number and hash of its row."""
    objects = {
        code(one.find("ParticipantObjectIDTypeCode"))[0]: one
        for one in told(Event.INFERENCE).findall("ParticipantObjectIdentification")
    }
    assert objects["110180"].get("ParticipantObjectID") == "1.2.840.1.1"
    assert objects["110180"].find("ParticipantObjectDescription/Accession").get("Number") == "ACC-1"  # type: ignore[union-attr]
    assert len(objects["110180"].findall("ParticipantObjectDescription/SOPClass/Instance")) == 3
    assert objects["2"].get("ParticipantObjectID") == "PID-77"
    assert objects["weights-sha256"].get("ParticipantObjectID") == "ab" * 32
    details = {one.get("type"): base64.b64decode(one.get("value", "")) for one in objects["audit-row"].iter()}
    assert details["hash"] == b"f" * 64
    assert objects["audit-row"].get("ParticipantObjectID") == "7"


def test_what_a_peer_sent_cannot_break_the_document() -> None:
    """S15: control characters are shown, markup is text; the message stays well-formed."""
    text = to_xml(message_of(row(Event.SECURITY_ALERT), "A", "h"))
    assert "\x1b" not in text
    body = {"reason": '<x a="1">&\x00\ud800\ufffe', "CallingAETitle": '"/><script>'}
    assert faults(told(Event.SECURITY_ALERT, body)) == []


def test_a_row_that_an_intruder_wrote_has_a_message_too() -> None:
    forged = {**row(Event.INFERENCE), "ts": "yesterday", "kind": "what \x07 ever", "body": "no json"}
    message = fromstring(to_xml(message_of(forged, "A", "h")))
    assert faults(message) == []
    assert datetime.fromisoformat(str(message[0].get("EventDateTime"))).year == 1970


def test_who_looked_is_told_by_the_codes_of_the_standard() -> None:
    assert mapped("audit log used").event.value in LOOKED_CODES
    assert mapped("something new").event.scheme == OWN_SCHEME
