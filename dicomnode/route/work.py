"""The work of a ``route`` job: one transaction from a complete Series to detect jobs, or to an honest outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from dicomnode.audit import append
from dicomnode.audit.events import Event
from dicomnode.config import Config, Route
from dicomnode.detectors.contract import Detector, Outcome
from dicomnode.dicom.references import SeriesReference
from dicomnode.dicom.summary import SeriesSummary, summarise
from dicomnode.errors import Permanent
from dicomnode.jobs import Job, enqueue, finish
from dicomnode.route.rules import Decision, decide
from dicomnode.route.urgency import urgency
from dicomnode.store.engine import Store
from dicomnode.store.tables import AssignmentRow, InstanceRow, SeriesRow, StudyRow

NO_ROUTE = ""


def route_series(
    store: Store, config: Config, detectors: Mapping[str, Detector], job: Job, now: float
) -> Decision | None:
    """Decide for the Series generation that ``job`` names; returns None when a newer generation is under way.

    Raises LeaseLost when the job is no longer ours, Permanent when its Series does not exist.
    """
    series_id, generation = int(job.payload["series_id"]), int(job.payload["generation"])
    with store.write() as session:
        series = session.get(SeriesRow, series_id)
        if series is None:
            raise Permanent(f"series {series_id} does not exist")
        if series.generation != generation:
            finish(session, job, now)
            return None
        study = session.get_one(StudyRow, series.study_id)
        summary = summary_of(session, study, series)
        decision = decide(config, detectors, summary)
        for routes in _by_detector(decision.taken, detectors):
            _assign(session, config, routes, decision, series, now, urgency(summary))
        if not decision.taken:
            _not_analysed(session, decision, study, series, now)
        _record(session, decision, study, series)
        finish(session, job, now)
        return decision


def summary_of(session: Session, study: StudyRow, series: SeriesRow) -> SeriesSummary:
    """The summary of a Series from the stored headers of all its Instances (conflicting copies left out)."""
    query = select(InstanceRow.header).where(InstanceRow.series_id == series.id, InstanceRow.conflict.is_(False))
    headers = session.scalars(query.order_by(InstanceRow.id)).all()
    reference = SeriesReference(study.StudyInstanceUID, series.SeriesInstanceUID)
    return summarise(reference, ({key: tuple(values) for key, values in header.items()} for header in headers))


def _by_detector(taken: Sequence[Route], detectors: Mapping[str, Detector]) -> list[list[Route]]:
    """Routes that ask for the same detector and model share one analysis; its results go to all their peers.

    A route that names the detector's own model asks for the same as one that names none.
    """
    groups: dict[tuple[str, str], list[Route]] = {}
    for route in taken:
        model = route.model or detectors[route.detector].default_model
        groups.setdefault((route.detector, model), []).append(route)
    return list(groups.values())


def _assign(
    session: Session, config: Config, routes: list[Route], decision: Decision, series: SeriesRow, now: float, asked: int
) -> None:
    """One Assignment and its ``detect`` job. ``asked``: what the Requested Procedure Priority adds to the routes'."""
    route, priority = routes[0], max(route.priority for route in routes) + asked
    reason = next(reason.text for reason in decision.reasons if reason.route == route.name)
    assignment = AssignmentRow(
        series_id=series.id,
        generation=series.generation,
        route=route.name,
        detector=route.detector,
        model=route.model,
        send_to=_destinations(config, routes, series),
        priority=priority,
        reason=reason,
        created_at=now,
    )
    session.add(assignment)
    session.flush()
    payload = {"assignment_id": assignment.id}
    enqueue(session, "detect", str(assignment.id), payload, now, priority=priority)


def _destinations(config: Config, routes: list[Route], series: SeriesRow) -> list[str]:
    """Peer names; ``sender`` stands for the peer that sent the Series, when it is one we know."""
    names: dict[str, None] = {}
    for name in (name for route in routes for name in route.send_to):
        peer = config.peer_with_ae_title(series.CallingAETitle) if name == "sender" else config.peer_named(name)
        names[peer.name if peer else f"unknown sender {series.CallingAETitle}"] = None
    return list(names)


def _not_analysed(session: Session, decision: Decision, study: StudyRow, series: SeriesRow, now: float) -> None:
    outcome = AssignmentRow(
        series_id=series.id,
        generation=series.generation,
        route=NO_ROUTE,
        send_to=[],
        outcome=Outcome.NOT_ANALYSED.value,
        reason=decision.summary,
        created_at=now,
        finished_at=now,
    )
    session.add(outcome)
    append(session, Event.NOT_ANALYSED, {**_subject(study, series), "reason": decision.summary})


def _record(session: Session, decision: Decision, study: StudyRow, series: SeriesRow) -> None:
    reasons = [
        {"route": reason.route, "detector": reason.detector, "taken": reason.taken} for reason in decision.reasons
    ]
    append(session, Event.ROUTED, {**_subject(study, series), "routes": reasons})


def _subject(study: StudyRow, series: SeriesRow) -> dict[str, str | int]:
    return {
        "StudyInstanceUID": study.StudyInstanceUID,
        "SeriesInstanceUID": series.SeriesInstanceUID,
        "PatientID": study.PatientID,
        "AccessionNumber": study.AccessionNumber,
        "generation": series.generation,
    }
