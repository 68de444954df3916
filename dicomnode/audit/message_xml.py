"""Audit messages as the XML of PS3.15 A.5.1."""

from __future__ import annotations

import base64
from xml.etree.ElementTree import Element, SubElement, tostring

from dicomnode.audit.mapping import Code
from dicomnode.audit.message import Message, ObjectClass, Participant, Subject

_HOST_NAME, _IP_ADDRESS = "1", "2"
_APPLICATION_SERVER = "4"


def to_xml(message: Message) -> str:
    """One ``AuditMessage`` document without an XML declaration, on one line."""
    root = Element("AuditMessage")
    _event(root, message)
    for participant in message.participants:
        _participant(root, participant)
    source = SubElement(root, "AuditSourceIdentification", AuditSourceID=legal(message.source))
    SubElement(source, "AuditSourceTypeCode", {"csd-code": _APPLICATION_SERVER})
    for subject in message.subjects:
        _subject(root, subject)
    return tostring(root, encoding="unicode")


def legal(text: str) -> str:
    """``text`` without what XML 1.0 cannot hold; control characters are written as escapes."""
    return "".join(sign if _is_legal(sign) else sign.encode("unicode_escape").decode() for sign in text)


def _is_legal(sign: str) -> bool:
    return sign.isprintable() and not 0xD800 <= ord(sign) <= 0xDFFF and ord(sign) & 0xFFFE != 0xFFFE


def _event(root: Element, message: Message) -> None:
    event = SubElement(
        root,
        "EventIdentification",
        EventActionCode=message.action,
        EventDateTime=message.at.isoformat(timespec="microseconds"),
        EventOutcomeIndicator=message.outcome,
    )
    _coded(event, "EventID", message.event)
    if message.type is not None:
        _coded(event, "EventTypeCode", message.type)
    if message.reason:
        SubElement(event, "EventOutcomeDescription").text = legal(message.reason)


def _participant(root: Element, participant: Participant) -> None:
    given = {"UserID": legal(participant.id), "UserIsRequestor": str(participant.requestor).lower()}
    if participant.ae_title:
        given["AlternativeUserID"] = legal(f"AETITLES={participant.ae_title}")
    if participant.address:
        given["NetworkAccessPointID"] = legal(participant.address)
        given["NetworkAccessPointTypeCode"] = _IP_ADDRESS if is_address(participant.address) else _HOST_NAME
    element = SubElement(root, "ActiveParticipant", given)
    if participant.role is not None:
        _coded(element, "RoleIDCode", participant.role)


def is_address(text: str) -> bool:
    """Whether ``text`` is an IP address, not a name."""
    return ":" in text or text.replace(".", "").isdigit()


def _subject(root: Element, subject: Subject) -> None:
    given = {
        "ParticipantObjectID": legal(subject.id),
        "ParticipantObjectTypeCode": subject.type,
        "ParticipantObjectTypeCodeRole": subject.role,
    }
    if subject.lifecycle:
        given["ParticipantObjectDataLifeCycle"] = subject.lifecycle
    element = SubElement(root, "ParticipantObjectIdentification", given)
    _coded(element, "ParticipantObjectIDTypeCode", subject.id_type)
    SubElement(element, "ParticipantObjectName").text = legal(subject.name)
    for name, value in subject.details:
        encoded = base64.b64encode(value.encode("utf-8", "replace")).decode()
        SubElement(element, "ParticipantObjectDetail", type=legal(name), value=encoded)
    if subject.accession or subject.classes:
        about = SubElement(element, "ParticipantObjectDescription")
        if subject.accession:
            SubElement(about, "Accession", Number=legal(subject.accession))
        for one in subject.classes:
            _class(about, one)


def _class(about: Element, one: ObjectClass) -> None:
    given = {"NumberOfInstances": str(one.count)} | ({"UID": legal(one.uid)} if one.uid else {})
    element = SubElement(about, "SOPClass", given)
    for uid in one.instances:
        SubElement(element, "Instance", UID=legal(uid))


def _coded(parent: Element, name: str, code: Code) -> None:
    given = {"csd-code": legal(code.value), "codeSystemName": code.scheme, "originalText": legal(code.meaning)}
    SubElement(parent, name, given | {"displayName": legal(code.meaning)})
