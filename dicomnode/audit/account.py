"""The three questions of every audit: what happened to this patient, what did this model touch, who looked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from dicomnode.audit.events import Event
from dicomnode.audit.mapping import looked_kinds
from dicomnode.audit.query import AuditFilter, find
from dicomnode.store.tables import DeliveryRow, DerivedRow, StudyRow

PER_IMAGE = ("instance stored", "instance repeated")
RECALL_COLUMNS = (
    "seq",
    "analysed_at",
    "PatientID",
    "AccessionNumber",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "outcome",
    "score",
    "threshold",
    "detector",
    "model",
    "model_version",
    "weights_sha256",
    "results",
    "destinations",
)
_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class PatientAccount:
    """Everything about a patient. ``rows``: in order; ``looked``: who asked for the patient or one of the Studies."""

    patient: str
    studies: tuple[str, ...]
    rows: tuple[dict[str, Any], ...]
    looked: tuple[dict[str, Any], ...]


def patient_account(session: Session, patient: str) -> PatientAccount:
    """Every row that names the patient or a Study of the patient, and everybody who looked for one of them."""
    found = {row["seq"]: row for row in find(session, AuditFilter(patient=patient))}
    of_rows = {_text(row, "StudyInstanceUID"): None for row in found.values()}
    of_tables = session.scalars(select(StudyRow.StudyInstanceUID).where(StudyRow.PatientID == patient))
    studies = tuple(study for study in {**of_rows, **dict.fromkeys(of_tables)} if study)
    for study in studies:
        found |= {row["seq"]: row for row in find(session, AuditFilter(study=study))}
    rows = tuple(found[seq] for seq in sorted(found))
    accessions = {_text(row, "AccessionNumber") for row in rows} - {""}
    return PatientAccount(patient, studies, rows, tuple(_looked_for(session, {patient, *studies, *accessions})))


def _looked_for(session: Session, identifiers: set[str]) -> Iterator[dict[str, Any]]:
    for row in find(session, AuditFilter(event=looked_kinds())):
        body = row["body"] if isinstance(row["body"], dict) else {}
        filters = body.get("filters")
        asked = {str(value) for value in filters.values()} if isinstance(filters, dict) else set()
        if asked & identifiers or _text(row, "PatientID") in identifiers:
            yield row


@dataclass(frozen=True, slots=True)
class Line:
    """Rows of a timeline that are told in one line: a run of images of one Series, or a single row."""

    first: dict[str, Any]
    last: dict[str, Any]
    count: int


def timeline(rows: Iterable[dict[str, Any]]) -> Iterator[Line]:
    """``rows`` with each run of images of one Series as one line."""
    line: Line | None = None
    for row in rows:
        if line is not None and row["kind"] in PER_IMAGE and _run(row) == _run(line.first):
            line = Line(line.first, row, line.count + 1)
            continue
        if line is not None:
            yield line
        line = Line(row, row, 1)
    if line is not None:
        yield line


def _run(row: dict[str, Any]) -> tuple[str, str]:
    return row["kind"], _text(row, "SeriesInstanceUID")


def recall(
    session: Session, model: str, since: str | None = None, until: str | None = None
) -> Iterator[dict[str, Any]]:
    """Every analysis by a model, oldest first, with what was made of it and where that went.

    ``results``: SOP Instance UIDs; ``destinations``: name to state and time. What may have stood in for a result is
    among them. ``model`` as in ``AuditFilter``.
    """
    rows = find(session, AuditFilter(model=model, event=Event.INFERENCE.value, since=since, until=until))
    while some := list(islice(rows, _AT_ONCE)):
        bodies = [row["body"] for row in some]
        results = _results(session, [body.get("assignment") for body in bodies])
        for row, body in zip(some, bodies, strict=True):
            made = {item["SOPInstanceUID"]: None for item in body.get("outputs", [])}
            more, destinations = results.get(body.get("assignment"), ({}, {}))
            told = {"seq": row["seq"], "analysed_at": row["ts"], "results": list({**made, **more})}
            told["destinations"] = destinations
            yield {column: told.get(column, body.get(column)) for column in RECALL_COLUMNS}


def _results(session: Session, assignments: list[Any]) -> dict[int, tuple[dict[str, None], dict[str, dict[str, Any]]]]:
    """Assignment to the UIDs of its objects, and to how many of them are in which state at each destination."""
    query = (
        select(DerivedRow.assignment_id, DerivedRow.SOPInstanceUID, DeliveryRow.destination, DeliveryRow.state)
        .add_columns(DeliveryRow.delivered_at)
        .join(DeliveryRow, DeliveryRow.derived_id == DerivedRow.id)
        .where(DerivedRow.assignment_id.in_([number for number in assignments if isinstance(number, int)]))
        .order_by(DerivedRow.id)
    )
    found: dict[int, tuple[dict[str, None], dict[str, dict[str, Any]]]] = {}
    for row in session.execute(query):
        uids, places = found.setdefault(row.assignment_id, ({}, {}))
        uids[row.SOPInstanceUID] = None
        place = places.setdefault(row.destination, {"objects": 0, "states": {}, "delivered_at": None})
        place["objects"] += 1
        place["states"][row.state] = place["states"].get(row.state, 0) + 1
        place["delivered_at"] = max(filter(None, (place["delivered_at"], row.delivered_at)), default=None)
    return found


def studies_of(session: Session, uid: str) -> list[str]:
    """The Study Instance UIDs of a Study, a Series, a received or a derived Instance; empty when none is known."""
    known = session.scalars(select(StudyRow.StudyInstanceUID).where(StudyRow.StudyInstanceUID == uid)).all()
    if known:
        return list(known)
    for wanted in (AuditFilter(instance=uid), AuditFilter(series=uid)):
        studies = wanted.studies()
        found = list(session.scalars(studies)) if studies is not None else []
        if found:
            return found
    return []


def _text(row: dict[str, Any], keyword: str) -> str:
    body = row["body"] if isinstance(row["body"], dict) else {}
    value = body.get(keyword)
    return value if isinstance(value, str) else ""
