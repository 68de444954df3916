"""The work of a ``status`` job: one page for the PACS about a Series that has no result, and why. No torch in here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

import dicomnode
from dicomnode.audit import append
from dicomnode.audit.events import Event
from dicomnode.config import Config
from dicomnode.detect.analyse import Origin, report_context
from dicomnode.detect.case import Case, read_case
from dicomnode.detect.outcome import StoredObject, enqueue_delivery, outputs, replace_derived, store_objects
from dicomnode.detect.reader import Reader
from dicomnode.detect.status_job import wanting
from dicomnode.detect.volume_terms import NotAnalysable
from dicomnode.detectors.contract import Detector, ModelIdentity, Outcome
from dicomnode.dicom.unquoted import unquoted
from dicomnode.jobs import Job, finish
from dicomnode.report.selfcheck import Evidence, checked
from dicomnode.report.status import StatusStatement, status_results
from dicomnode.store.engine import Store
from dicomnode.store.spool import Spool
from dicomnode.store.tables import AssignmentRow, DeliveryRow, DerivedRow

PAGE = "page"
UNREADABLE = "none of the Series' files is readable, so that patient and study are not known"


def send_status(
    store: Store,
    spool: Spool,
    config: Config,
    detectors: Mapping[str, Detector],
    reader: Reader,
    job: Job,
    now: float,
) -> None:
    """Make the status page that ``job`` asks for and enqueue its delivery, in one transaction with ``finish``.

    Nothing is made when the outcome is no longer the one that was announced (an operator requeued the analysis), or
    when a newer generation of the Series is on its way. The same Assignment gives the same bytes again.
    A Series of which no file is readable gets none: patient and study are not known, the audit log says so.
    Raises Permanent when the Assignment does not exist, NonConformant when the page breaks the standard, Transient when
    disk or database fail, LeaseLost.
    """
    with store.read() as session:
        case = read_case(session, spool, int(job.payload["assignment_id"]))
        owner = _with_the_same_page(session, case.assignment)
    if case.outdated or case.assignment.outcome != job.payload["outcome"]:
        with store.write() as session:
            finish(session, job, now)
        return
    plugin = detectors.get(case.assignment.detector or "")
    try:
        stored = () if owner else _pages(spool, config, reader, plugin.version if plugin else "", case)
    except NotAnalysable:
        with store.write() as session:
            finish(session, job, now)
            append(session, Event.STATUS_PAGE, {**_facts(case, (), ()), "not_made": UNREADABLE})
        return
    with store.write() as session:
        finish(session, job, now)
        row = session.get_one(AssignmentRow, owner or case.assignment.id)
        pages = _page_rows(session, row) if owner else replace_derived(session, row, stored, now)
        pages = [item for item in pages if item.kind == PAGE]
        destinations = _without(session, pages, wanting(config, case.assignment))
        for destination in destinations:
            enqueue_delivery(session, row, destination, pages, now, of=f"{PAGE} on {row.outcome}")
        append(session, Event.STATUS_PAGE, _facts(case, destinations, stored))


def _with_the_same_page(session: Session, assignment: AssignmentRow) -> int | None:
    """Another Assignment whose page, already made, is this one's too: same Series, detector, weights and outcome.

    Two routes with two models that both failed before their weights were read have UIDs in common.
    """
    twin = (
        AssignmentRow.series_id == assignment.series_id,
        AssignmentRow.generation == assignment.generation,
        AssignmentRow.detector == assignment.detector,
        AssignmentRow.weights_sha256.is_not_distinct_from(assignment.weights_sha256),
        AssignmentRow.outcome == assignment.outcome,
        AssignmentRow.id != assignment.id,
    )
    made = DerivedRow.assignment_id == AssignmentRow.id
    return session.scalar(select(AssignmentRow.id).join(DerivedRow, made).where(*twin).limit(1))


def _page_rows(session: Session, row: AssignmentRow) -> list[DerivedRow]:
    return list(session.scalars(select(DerivedRow).where(DerivedRow.assignment_id == row.id)))


def _without(session: Session, pages: Sequence[DerivedRow], destinations: Sequence[str]) -> tuple[str, ...]:
    """The ``destinations`` that do not get ``pages`` yet."""
    query = select(DeliveryRow.destination).where(DeliveryRow.derived_id.in_([item.id for item in pages]))
    there = set(session.scalars(query))
    return tuple(name for name in destinations if name not in there)


def _pages(spool: Spool, config: Config, reader: Reader, detector_version: str, case: Case) -> tuple[StoredObject, ...]:
    assignment = case.assignment
    first, header = reader.first_header(case.sources)
    sources = (first.reference, *(source.reference for source in case.sources if source is not first))
    reason = assignment.reason.strip() or "the reason is not known"
    statement = StatusStatement(Outcome(assignment.outcome or ""), reason, assignment.gate or "", len(case.sources))
    when = datetime.fromtimestamp(assignment.started_at or assignment.finished_at or assignment.created_at, UTC)
    context = report_context(config, case, Origin(_model(assignment), detector_version), when)
    pages = status_results(sources, [header], statement, context)
    return store_objects(spool, checked(pages, Evidence(sources, [header], context)))


def _model(assignment: AssignmentRow) -> ModelIdentity:
    """The weights that answered; nameless when the analysis failed before they were loaded."""
    if assignment.weights_sha256 is None:
        return ModelIdentity("", "", "", "")
    return ModelIdentity(assignment.model or "", assignment.model_version or "", assignment.weights_sha256, "")


def _facts(case: Case, destinations: Sequence[str], stored: Sequence[StoredObject]) -> dict[str, Any]:
    return {
        **case.subject,
        "outcome": case.assignment.outcome,
        "gate": case.assignment.gate,
        "reason": unquoted(case.assignment.reason, case.summary.attributes),
        "peers": list(destinations),
        "software_version": dicomnode.__version__,
        "outputs": outputs(stored),
    }
