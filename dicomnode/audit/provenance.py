"""Where a result comes from and where it went, read from the audit rows: the graph behind JSON-LD and the picture."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from dicomnode.audit.account import studies_of
from dicomnode.audit.events import Event
from dicomnode.audit.query import AuditFilter, find
from dicomnode.errors import Permanent

_KINDS = (
    Event.INSTANCE_STORED,
    Event.INFERENCE,
    Event.STAND_INS,
    Event.STATUS_PAGE,
    Event.DELIVERED,
    Event.DELIVERY_FAILED,
    Event.COMMITTED,
    Event.EXPORT,
)


@dataclass(frozen=True, slots=True)
class Thing:
    """A DICOM object: a received or a derived Instance. ``kind``: that of ``config.results``, empty for a source."""

    uid: str
    sha256: str
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What one row says of one peer. ``done``: it arrived; ``committed``: the peer took responsibility."""

    seq: int
    at: str
    peer: str
    uids: tuple[str, ...]
    done: bool
    committed: bool = False


@dataclass(frozen=True, slots=True)
class Copies:
    """De-identified copies of sources that left. ``digests``: SHA-256 of each source to that of its copy."""

    seq: int
    at: str
    peer: str
    profile: str
    digests: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Analysis:
    """One analysis: the row ``seq`` of the kind inference, and what followed from it.

    ``facts``: the body of the row. ``senders``: the peers that its sources came from.
    """

    seq: int
    at: str
    facts: Mapping[str, Any]
    sources: tuple[Thing, ...]
    senders: tuple[str, ...]
    made: tuple[Thing, ...]
    deliveries: tuple[Delivery, ...]
    copies: tuple[Copies, ...]

    @property
    def volume_sha256(self) -> str:
        """What stands for the volume: the SHA-256 of the digests of its sources, in order."""
        return hashlib.sha256("\n".join(one.sha256 for one in self.sources).encode()).hexdigest()


def provenance(session: Session, uid: str) -> list[Analysis]:
    """The analyses behind ``uid``: a Study, a Series, a source or a derived Instance. In the order of the log.

    Raises Permanent when the log knows none.
    """
    studies = studies_of(session, uid) or _studies_of_rows(session, uid)
    found = [one for study in studies for one in _of_study(session, study) if uid == study or _concerns(one, uid)]
    if not found:
        raise Permanent("the audit log knows no analysis of this UID")
    return found


def _studies_of_rows(session: Session, uid: str) -> list[str]:
    rows = find(session, AuditFilter(instance=uid))
    studies = (row["body"].get("StudyInstanceUID") for row in rows if isinstance(row["body"], dict))
    return list(dict.fromkeys(str(study) for study in studies if study))


def _concerns(analysis: Analysis, uid: str) -> bool:
    things = (*analysis.sources, *analysis.made)
    return uid == analysis.facts.get("SeriesInstanceUID") or any(uid == one.uid for one in things)


def _of_study(session: Session, study: str) -> list[Analysis]:
    rows = list(find(session, AuditFilter(study=study, event=tuple(str(kind) for kind in _KINDS))))
    rows = [row for row in rows if isinstance(row["body"], dict)]
    return [_analysis(row, rows) for row in rows if row["kind"] == Event.INFERENCE]


def _analysis(row: dict[str, Any], rows: Sequence[dict[str, Any]]) -> Analysis:
    facts = row["body"]
    sources = tuple(_things(facts.get("sources")))
    known = {one.uid for one in sources}
    stored = [one["body"] for one in rows if one["kind"] == Event.INSTANCE_STORED]
    senders = {str(one.get("peer") or one.get("CallingAETitle")): None for one in stored if _uid(one) in known}
    assignment = facts.get("assignment")
    later = [one for one in rows if one["seq"] > row["seq"] and one["body"].get("assignment") == assignment]
    made = [*_things(facts.get("outputs"))]
    for one in later:
        if one["kind"] in (Event.STAND_INS, Event.STATUS_PAGE):
            made += _things(one["body"].get("outputs"))
    results = {thing.uid: thing for thing in made}
    return Analysis(
        row["seq"],
        row["ts"],
        facts,
        sources,
        tuple(senders),
        tuple(results.values()),
        tuple(_deliveries(later, set(results))),
        tuple(_copies(rows, known)),
    )


def _deliveries(rows: Iterable[dict[str, Any]], results: set[str]) -> Iterable[Delivery]:
    for row in rows:
        body, kind = row["body"], row["kind"]
        if kind not in (Event.DELIVERED, Event.DELIVERY_FAILED, Event.COMMITTED):
            continue
        uids = tuple(uid for uid in map(_uid, body.get("instances", [])) if uid in results)
        if uids:
            done, peer = kind != Event.DELIVERY_FAILED, str(body.get("peer", ""))
            yield Delivery(row["seq"], row["ts"], peer, uids, done, kind == Event.COMMITTED)


def _copies(rows: Iterable[dict[str, Any]], sources: set[str]) -> Iterable[Copies]:
    for row in rows:
        if row["kind"] != Event.EXPORT:
            continue
        body = row["body"]
        lines = [one for one in body.get("instances", []) if isinstance(one, dict) and _uid(one) in sources]
        digests = {str(one.get("sha256_before", "")): str(one.get("sha256_after", "")) for one in lines}
        if digests:
            yield Copies(row["seq"], row["ts"], str(body.get("peer", "")), str(body.get("profile", "")), digests)


def _things(listed: Any) -> list[Thing]:
    items = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    return [Thing(_uid(one), str(one.get("sha256", "")), str(one.get("kind", ""))) for one in items]


def _uid(item: Any) -> str:
    return str(item.get("SOPInstanceUID", "")) if isinstance(item, dict) else str(item)
