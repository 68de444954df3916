"""Audit messages as AuditEvent resources of FHIR R4 (https://hl7.org/fhir/R4/auditevent.html)."""

from __future__ import annotations

from datetime import UTC
from typing import Any

from dicomnode.audit.mapping import OWN_SCHEME, Code
from dicomnode.audit.message import Message, Participant, Subject
from dicomnode.audit.message_xml import is_address, legal

DCM = "http://dicom.nema.org/resources/ontology/DCM"
OWN = "urn:dicomnode:audit"
_TERMS = "http://terminology.hl7.org/CodeSystem"
_HOST_NAME, _IP_ADDRESS = "1", "2"
_TYPES = {"1": "Person", "2": "System Object"}
_ROLES = {"1": "Patient", "3": "Report", "13": "Security Resource"}
_LIFECYCLES = {
    "1": "Origination / Creation",
    "2": "Import / Copy",
    "6": "Access / Use",
    "7": "De-identification",
    "10": "Export",
    "15": "Permanent erasure / Physical destruction",
}
_HUMAN = {"coding": [{"system": f"{_TERMS}/extra-security-role-type", "code": "humanuser", "display": "human user"}]}


def to_fhir(message: Message) -> dict[str, Any]:
    """The resource; ``id`` is that of the row."""
    resource: dict[str, Any] = {
        "resourceType": "AuditEvent",
        "id": f"dicomnode-{message.seq}",
        "type": _coding(message.event),
        "action": message.action,
        "recorded": message.at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "outcome": message.outcome,
        "agent": [_agent(participant) for participant in message.participants],
        "source": {
            "observer": {"display": legal(message.source)},
            "type": [{"system": f"{_TERMS}/security-source-type", "code": "4", "display": "Application Server"}],
        },
        "entity": [_entity(subject) for subject in message.subjects],
    }
    if message.type is not None:
        resource["subtype"] = [_coding(message.type)]
    if message.reason:
        resource["outcomeDesc"] = legal(message.reason)
    return resource


def bundle(resources: list[dict[str, Any]]) -> dict[str, Any]:
    """A Bundle of type collection."""
    return {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": one} for one in resources]}


def _coding(code: Code) -> dict[str, str]:
    system = {"DCM": DCM, OWN_SCHEME: OWN}.get(code.scheme, f"urn:dicomnode:{code.scheme}")
    return {"system": system, "code": legal(code.value), "display": legal(code.meaning)}


def _agent(participant: Participant) -> dict[str, Any]:
    agent: dict[str, Any] = {
        "who": {"identifier": {"value": legal(participant.id)}},
        "requestor": participant.requestor,
    }
    if participant.human:
        agent["type"] = _HUMAN
    elif participant.role is not None:
        agent["type"] = {"coding": [_coding(participant.role)]}
    if participant.ae_title:
        agent["altId"] = legal(participant.ae_title)
    if participant.address:
        kind = _IP_ADDRESS if is_address(participant.address) else _HOST_NAME
        agent["network"] = {"address": legal(participant.address), "type": kind}
    return agent


def _entity(subject: Subject) -> dict[str, Any]:
    kind = {"system": f"{_TERMS}/audit-entity-type", "code": subject.type, "display": _TYPES[subject.type]}
    entity: dict[str, Any] = {"what": {"identifier": _identifier(subject)}, "type": kind, "name": legal(subject.name)}
    if subject.role in _ROLES:
        entity["role"] = {
            "system": f"{_TERMS}/object-role",
            "code": subject.role,
            "display": _ROLES[subject.role],
        }
    if subject.lifecycle:
        system = f"{_TERMS}/dicom-audit-lifecycle"
        display = _LIFECYCLES[subject.lifecycle]
        entity["lifecycle"] = {"system": system, "code": subject.lifecycle, "display": display}
    details = [*subject.details]
    if subject.accession:
        details.append(("AccessionNumber", subject.accession))
    details += [("SOPInstanceUID", uid) for one in subject.classes for uid in one.instances]
    details += [("NumberOfInstances", str(one.count)) for one in subject.classes]
    if details:
        entity["detail"] = [{"type": legal(name), "valueString": legal(value)} for name, value in details if value]
    return entity


def _identifier(subject: Subject) -> dict[str, Any]:
    """An UID is an OID (urn:dicom:uid); other identifiers carry what they are."""
    if subject.id_type.value == "110180":
        return {"system": "urn:dicom:uid", "value": f"urn:oid:{legal(subject.id)}"}
    return {"type": {"coding": [_coding(subject.id_type)], "text": subject.id_type.meaning}, "value": legal(subject.id)}
