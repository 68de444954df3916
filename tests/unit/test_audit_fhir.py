"""Rows as AuditEvent resources of FHIR R4: the elements, cardinalities and codes of the specification."""

from __future__ import annotations

import re
from typing import Any

import pytest

from dicomnode.audit.events import Event
from dicomnode.audit.message import message_of
from dicomnode.audit.message_fhir import DCM, OWN, bundle, to_fhir
from tests.unit.audit_bodies import row

ELEMENTS = {
    "type": (1, False),
    "subtype": (0, True),
    "action": (0, False),
    "recorded": (1, False),
    "outcome": (0, False),
    "outcomeDesc": (0, False),
    "agent": (1, True),
    "source": (1, False),
    "entity": (0, True),
}
"""Elements of AuditEvent (R4, 4.0.1) that are used: least number, and whether they are lists."""
AGENT = {"type", "role", "who", "altId", "name", "requestor", "location", "policy", "media", "network", "purposeOfUse"}
ENTITY = {"what", "type", "role", "lifecycle", "securityLabel", "name", "description", "query", "detail"}
TERMS = "http://terminology.hl7.org/CodeSystem/"
CODES = {
    f"{TERMS}audit-entity-type": {"1", "2", "3", "4"},
    f"{TERMS}object-role": {str(number) for number in range(1, 25)},
    f"{TERMS}dicom-audit-lifecycle": {str(number) for number in range(1, 16)},
    f"{TERMS}security-source-type": {str(number) for number in range(1, 10)},
    f"{TERMS}extra-security-role-type": {"humanuser"},
}


def told(event: Event) -> dict[str, Any]:
    return to_fhir(message_of(row(event), "DICOMNODE", "node.example.org"))


def codings(value: Any) -> list[dict[str, Any]]:
    """Every Coding, at any depth."""
    if isinstance(value, dict):
        here = [value] if "code" in value and "system" in value else []
        return here + [one for inner in value.values() for one in codings(inner)]
    return [one for inner in value for one in codings(inner)] if isinstance(value, list) else []


@pytest.mark.parametrize("event", Event)
def test_every_event_is_an_audit_event_of_r4(event: Event) -> None:
    """B10: element names, cardinalities, types of values and bindings."""
    resource = told(event)
    assert resource.pop("resourceType") == "AuditEvent"
    assert re.fullmatch(r"[A-Za-z0-9\-.]{1,64}", resource.pop("id"))
    assert set(resource) <= set(ELEMENTS)
    for name, (least, is_list) in ELEMENTS.items():
        assert name in resource or not least
        if name in resource:
            assert isinstance(resource[name], list) == is_list
            assert resource[name] not in ([], "", None)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", resource["recorded"])
    assert resource["action"] in set("CRUDE")
    assert resource["outcome"] in {"0", "4", "8", "12"}
    for agent in resource["agent"]:
        assert set(agent) <= AGENT
        assert isinstance(agent["requestor"], bool)
    assert resource["source"]["observer"]["display"]
    for entity in resource["entity"]:
        assert set(entity) <= ENTITY
        assert "name" in entity, "sev-1: a name or a query, not both"
        assert all(set(one) == {"type", "valueString"} and one["valueString"] for one in entity.get("detail", []))


@pytest.mark.parametrize("event", Event)
def test_every_code_is_of_its_code_system(event: Event) -> None:
    found = codings(told(event))
    assert found
    for coding in found:
        system = coding["system"]
        assert system in CODES or system in {DCM, OWN} or system.startswith("urn:dicomnode:")
        assert system not in CODES or coding["code"] in CODES[system]
        assert coding.get("display")


def test_an_inference_names_model_study_and_patient() -> None:
    entities = {entity["what"]["identifier"]["value"]: entity for entity in told(Event.INFERENCE)["entity"]}
    assert entities["urn:oid:1.2.840.1.1"]["what"]["identifier"]["system"] == "urn:dicom:uid"
    assert entities["PID-77"]["role"]["code"] == "1"
    assert entities["ab" * 32]["name"] == "head 1.2"
    assert {"type": "hash", "valueString": "f" * 64} in entities["7"]["detail"]


def test_a_reader_of_the_log_is_a_human_user() -> None:
    people = [agent for agent in told(Event.AUDIT_LOG_USED)["agent"] if agent["requestor"]]
    assert [agent["who"]["identifier"]["value"] for agent in people] == ["ada"]
    assert people[0]["type"]["coding"][0]["code"] == "humanuser"


def test_a_bundle_collects_resources() -> None:
    made = bundle([told(Event.DELIVERED)])
    assert (made["resourceType"], made["type"]) == ("Bundle", "collection")
    assert made["entry"][0]["resource"]["resourceType"] == "AuditEvent"
