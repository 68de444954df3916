"""The work of a ``route`` job: one transaction from a complete Series to detect jobs, or to an honest outcome."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

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
from dicomnode.route.outside import ask_remotes, came_back, export
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
        returned = came_back(session, config, series, now)
        if returned:
            decision = Decision((), ())
            why = f"a result from {returned}: it is given back to its patient"
            _not_analysed(session, why, study, series, now, told=why)
            outside: list[str] = []
        else:
            summary = summary_of(session, study, series)
            decision = decide(config, detectors, summary)
            for routes in _by_detector(decision.taken, detectors):
                _assign(session, config, routes, decision, series, now, urgency(summary))
            outside = _send_outside(session, config, summary, series, now)
            if not decision.taken and not outside:
                _not_analysed(session, decision.summary, study, series, now, told=decision.plain)
            outside += export(session, config, summary, series, now)
        _record(session, decision, study, series, outside)
        finish(session, job, now)
        return decision


def _send_outside(session: Session, config: Config, summary: SeriesSummary, series: SeriesRow, now: float) -> list[str]:
    """Ask the detectors outside that take the Series; returns their names."""
    destinations = {remote.name: _destinations(config, (remote.send_to,), series) for remote in config.deid.remote}
    return [
        remote.name for remote in ask_remotes(session, config, summary, series, destinations, now, urgency(summary))
    ]


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
        send_to=_destinations(config, [route.send_to for route in routes], series),
        priority=priority,
        reason=reason,
        created_at=now,
    )
    session.add(assignment)
    session.flush()
    payload = {"assignment_id": assignment.id}
    enqueue(session, "detect", str(assignment.id), payload, now, priority=priority)


def _destinations(config: Config, send_to: Iterable[Sequence[str]], series: SeriesRow) -> list[str]:
    """Peer names; ``sender`` stands for the peer that sent the Series, when it is one we know."""
    names: dict[str, None] = {}
    for name in (name for names in send_to for name in names):
        peer = config.peer_with_ae_title(series.CallingAETitle) if name == "sender" else config.peer_named(name)
        names[peer.name if peer else f"unknown sender {series.CallingAETitle}"] = None
    return list(names)


def _not_analysed(session: Session, reason: str, study: StudyRow, series: SeriesRow, now: float, *, told: str) -> None:
    """``reason`` is for operators and may quote the header, ``told`` is for the audit log and does not."""
    outcome = AssignmentRow(
        series_id=series.id,
        generation=series.generation,
        route=NO_ROUTE,
        send_to=[],
        outcome=Outcome.NOT_ANALYSED.value,
        reason=reason,
        created_at=now,
        finished_at=now,
    )
    session.add(outcome)
    append(session, Event.NOT_ANALYSED, {**_subject(study, series), "reason": told})


def _record(session: Session, decision: Decision, study: StudyRow, series: SeriesRow, outside: Sequence[str]) -> None:
    reasons = [
        {
            "route": reason.route,
            "detector": reason.detector,
            "matched": reason.matched,
            "taken": reason.taken,
            "on": reason.on,
        }
        for reason in decision.reasons
    ]
    gone = {"outside": list(outside)} if outside else {}
    append(session, Event.ROUTED, {**_subject(study, series), "routes": reasons, **gone})


def _subject(study: StudyRow, series: SeriesRow) -> dict[str, str | int]:
    return {
        "StudyInstanceUID": study.StudyInstanceUID,
        "SeriesInstanceUID": series.SeriesInstanceUID,
        "PatientID": study.PatientID,
        "AccessionNumber": study.AccessionNumber,
        "generation": series.generation,
    }
