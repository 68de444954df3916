"""A readable account of rows: what came, which model said what, what went where, what was amiss, who looked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from dicomnode.audit.events import Event
from dicomnode.audit.mapping import looked_kinds, mapped

_AMISS = {"4", "8", "12"}
_MOST = 20


@dataclass(slots=True)
class Summary:
    """Counts of rows. ``amiss``: kind and reason to how often; ``models``: name, version and weights to outcomes."""

    rows: int = 0
    first: str = ""
    last: str = ""
    kinds: Counter[str] = field(default_factory=Counter)
    patients: set[str] = field(default_factory=set)
    studies: set[str] = field(default_factory=set)
    senders: Counter[str] = field(default_factory=Counter)
    destinations: Counter[str] = field(default_factory=Counter)
    models: dict[str, Counter[str]] = field(default_factory=dict)
    amiss: Counter[str] = field(default_factory=Counter)
    looked: Counter[str] = field(default_factory=Counter)


def summarised(rows: Iterable[dict[str, Any]]) -> Summary:
    """The account of ``rows``, as ``audit.find`` gives them."""
    found = Summary()
    looks = set(looked_kinds())
    for row in rows:
        kind, body = row["kind"], row["body"] if isinstance(row["body"], dict) else {}
        found.rows += 1
        found.first, found.last = found.first or row["ts"], row["ts"]
        found.kinds[kind] += 1
        _identifiers(found, body)
        _flow(found, kind, body)
        if mapped(kind).outcome in _AMISS or body.get("ok") is False:
            found.amiss[f"{kind}: {body.get('reason') or 'no reason given'}"] += 1
        if kind in looks:
            who = body.get("user") or body.get("peer") or body.get("address") or "not recorded"
            found.looked[f"{who}: {body.get('command') or kind}"] += 1
    return found


def _identifiers(found: Summary, body: dict[str, Any]) -> None:
    for keyword, kept in (("PatientID", found.patients), ("StudyInstanceUID", found.studies)):
        if isinstance(body.get(keyword), str) and body[keyword]:
            kept.add(body[keyword])


def _flow(found: Summary, kind: str, body: dict[str, Any]) -> None:
    peer = str(body.get("peer") or body.get("CallingAETitle") or "")
    if kind in (Event.INSTANCE_STORED, Event.INSTANCE_REPEATED, Event.INSTANCE_CONFLICT):
        found.senders[peer] += 1
    elif kind == Event.DELIVERED:
        found.destinations[peer] += len(body.get("instances") or [])
    elif kind == Event.INFERENCE:
        model = f"{body.get('model')} {body.get('model_version')} ({str(body.get('weights_sha256'))[:12]})"
        found.models.setdefault(model, Counter())[str(body.get("outcome"))] += 1


def lines(found: Summary) -> list[tuple[str, str, int]]:
    """The account as a table: part, what, how many. The identifiers of patients are counted, not told."""
    told = [
        ("log", "rows", found.rows),
        ("log", "patients", len(found.patients)),
        ("log", "studies", len(found.studies)),
    ]
    told += [("received from", name, count) for name, count in found.senders.most_common()]
    for model, outcomes in found.models.items():
        told += [("analysed by", f"{model}: {outcome}", count) for outcome, count in outcomes.most_common()]
    told += [("delivered to", name, count) for name, count in found.destinations.most_common()]
    told += [("amiss", words, count) for words, count in found.amiss.most_common(_MOST)]
    told += [("looked", words, count) for words, count in found.looked.most_common(_MOST)]
    return told + [("event", kind, count) for kind, count in found.kinds.most_common()]


def plain(found: Summary) -> dict[str, Any]:
    """The account for a program; patients and studies by number."""
    counts = ("kinds", "senders", "destinations", "amiss", "looked")
    return {
        "rows": found.rows,
        "first": found.first,
        "last": found.last,
        "patients": len(found.patients),
        "studies": len(found.studies),
        "models": {model: dict(outcomes) for model, outcomes in found.models.items()},
        **{name: dict(getattr(found, name)) for name in counts},
    }
