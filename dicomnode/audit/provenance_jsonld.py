"""The provenance of a result as JSON-LD with the terms of PROV-O (W3C Recommendation of 30 April 2013)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from dicomnode.audit.provenance import Analysis, Copies, Delivery, Thing

_LINKS = (
    "used",
    "wasDerivedFrom",
    "wasGeneratedBy",
    "wasAssociatedWith",
    "wasAttributedTo",
    "actedOnBehalfOf",
    "wasInformedBy",
)
_TIMES = ("startedAtTime", "endedAtTime", "generatedAtTime")
CONTEXT: dict[str, Any] = {
    "prov": "http://www.w3.org/ns/prov#",
    "xsd": "http://www.w3.org/2001/XMLSchema#",
    "rdfs": "http://www.w3.org/2000/01/rdf-schema#",
    "node": "urn:dicomnode:terms#",
    "label": "rdfs:label",
    **{name: {"@id": f"prov:{name}", "@type": "@id"} for name in _LINKS},
    **{name: {"@id": f"prov:{name}", "@type": "xsd:dateTime"} for name in _TIMES},
}
_MODEL = ("model", "model_version", "weights_sha256")
_RUN = ("detector", "detector_version", "route", "config_sha256", "accelerator", "gate", "notices")
_FINDING = ("outcome", "score", "threshold", "score_unit", "calibration", "raw_score", "raw_unit", "acquisition")


def to_jsonld(analyses: Sequence[Analysis]) -> dict[str, Any]:
    """One document with its context; every node once. Identifiers are UIDs, digests and numbers of rows."""
    nodes: dict[str, dict[str, Any]] = {}
    for analysis in analyses:
        for node in _nodes(analysis):
            nodes[node["@id"]] = {**nodes.get(node["@id"], {}), **node}
    return {"@context": CONTEXT, "@graph": list(nodes.values())}


def _nodes(analysis: Analysis) -> Iterator[dict[str, Any]]:
    facts, row = analysis.facts, f"urn:dicomnode:row:{analysis.seq}"
    volume, findings = f"urn:sha256:{analysis.volume_sha256}", f"{row}#findings"
    model, software = f"urn:sha256:{facts.get('weights_sha256')}", f"urn:dicomnode:{facts.get('software_version')}"
    senders = [f"urn:dicomnode:peer:{name}" for name in analysis.senders]
    for name, peer in zip(analysis.senders, senders, strict=True):
        yield _node(peer, "Agent", f"peer {name}")
    for one in analysis.sources:
        yield _instance(one, "source image") | ({"wasAttributedTo": senders} if senders else {})
    yield _node(volume, "Entity", f"volume of {len(analysis.sources)} images") | {
        "wasDerivedFrom": [_urn(one.uid) for one in analysis.sources]
    }
    yield _node(model, "Entity", f"model {facts.get('model')} {facts.get('model_version')}") | _own(facts, _MODEL)
    yield _node(software, "SoftwareAgent", f"dicomnode {facts.get('software_version')}")
    activity = _node(row, "Activity", f"analysis by {facts.get('detector')}") | _own(facts, _RUN)
    times = {"startedAtTime": _time(facts.get("started_at")), "endedAtTime": _time(facts.get("finished_at"))}
    yield activity | {"used": [volume, model], "wasAssociatedWith": software} | {k: v for k, v in times.items() if v}
    yield _node(findings, "Entity", str(facts.get("outcome"))) | _own(facts, _FINDING) | {"wasGeneratedBy": row}
    for one in analysis.made:
        yield _instance(one, f"result ({one.kind})") | {"wasDerivedFrom": [findings, volume], "wasGeneratedBy": row}
    for delivery in analysis.deliveries:
        yield from _delivery(delivery, software)
    for copies in analysis.copies:
        yield from _copies(copies, analysis, software)


def _delivery(delivery: Delivery, software: str) -> Iterator[dict[str, Any]]:
    peer = f"urn:dicomnode:peer:{delivery.peer}"
    words = "storage commitment" if delivery.committed else "delivery" if delivery.done else "failed delivery"
    yield _node(peer, "Agent", f"peer {delivery.peer}")
    yield _node(f"urn:dicomnode:row:{delivery.seq}", "Activity", words) | {
        "used": [_urn(uid) for uid in delivery.uids],
        "wasAssociatedWith": [software, peer],
        "endedAtTime": delivery.at,
    }


def _copies(copies: Copies, analysis: Analysis, software: str) -> Iterator[dict[str, Any]]:
    row, peer = f"urn:dicomnode:row:{copies.seq}", f"urn:dicomnode:peer:{copies.peer}"
    yield _node(peer, "Agent", f"peer {copies.peer}")
    yield _node(row, "Activity", f"de-identification ({copies.profile}) and export") | {
        "used": [_urn(one.uid) for one in analysis.sources if one.sha256 in copies.digests],
        "wasAssociatedWith": [software, peer],
        "endedAtTime": copies.at,
    }
    for one in analysis.sources:
        after = copies.digests.get(one.sha256)
        if after:
            copy = _node(f"urn:sha256:{after}", "Entity", "de-identified copy")
            yield copy | {"wasDerivedFrom": _urn(one.uid), "wasGeneratedBy": row, "node:sha256": after}


def _node(identifier: str, kind: str, label: str) -> dict[str, Any]:
    types = ["prov:Agent", "prov:SoftwareAgent"] if kind == "SoftwareAgent" else f"prov:{kind}"
    return {"@id": identifier.replace(" ", "%20"), "@type": types, "label": label}


def _instance(one: Thing, label: str) -> dict[str, Any]:
    more = {"node:kind": one.kind} if one.kind else {}
    return _node(_urn(one.uid), "Entity", label) | {"node:sha256": one.sha256} | more


def _own(facts: Any, names: Sequence[str]) -> dict[str, Any]:
    return {f"node:{name}": facts[name] for name in names if facts.get(name) not in (None, "", [], {})}


def _urn(uid: str) -> str:
    return f"urn:oid:{uid}"


def _time(seconds: Any) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat() if isinstance(seconds, (int, float)) else ""
