"""Whom a dead job is about. A Series whose routing was given up has failed, visibly."""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete
from sqlalchemy.orm import Session

from dicomnode.deid.errands import EXPORT_JOB, REMOTE_JOB
from dicomnode.deliver.commit_ledger import job_subject
from dicomnode.deliver.leaving import subject_of_series
from dicomnode.deliver.ledger import subject
from dicomnode.deliver.outbox import KIND as DELIVERY
from dicomnode.detect.status_job import STATUS_JOB
from dicomnode.detectors.contract import Outcome
from dicomnode.jobs import Job
from dicomnode.route.work import NO_ROUTE
from dicomnode.store.commitments import COMMIT
from dicomnode.store.tables import AssignmentRow, SeriesRow, StudyRow


def subject_of(session: Session, job: Job, reason: str, now: float) -> dict[str, Any]:
    """Whom a dead job of the flow is about; a ``route`` job's Series has failed with it."""
    if job.kind == "route":
        return routing_failed(session, job, reason, now)
    if job.kind == COMMIT:
        return job_subject(session, job.payload)
    if job.kind == EXPORT_JOB:
        return {**subject_of_series(session, int(job.payload["series_id"])), "peer": job.payload["destination"]}
    if job.kind == DELIVERY:
        return {**subject(session, int(job.payload["assignment_id"])), "peer": job.payload["destination"]}
    return subject(session, int(job.payload["assignment_id"])) if job.kind in (STATUS_JOB, REMOTE_JOB) else {}


def routing_failed(session: Session, job: Job, reason: str, now: float) -> dict[str, Any]:
    """Give the Series generation of a dead ``route`` job the outcome *failed*; returns its identifiers."""
    series = session.get(SeriesRow, int(job.payload["series_id"]))
    if series is None:
        return {}
    generation = int(job.payload["generation"])
    session.add(
        AssignmentRow(
            series_id=series.id,
            generation=generation,
            route=NO_ROUTE,
            send_to=[],
            outcome=Outcome.FAILED.value,
            reason=f"routing failed: {reason}",
            created_at=now,
            finished_at=now,
        )
    )
    study = session.get_one(StudyRow, series.study_id)
    return {
        "StudyInstanceUID": study.StudyInstanceUID,
        "SeriesInstanceUID": series.SeriesInstanceUID,
        "PatientID": study.PatientID,
        "AccessionNumber": study.AccessionNumber,
        "generation": generation,
    }


def routing_again(session: Session, job: Job) -> None:
    """A requeued ``route`` job: the Series generation waits for its outcome again."""
    mine = (
        AssignmentRow.series_id == int(job.payload["series_id"]),
        AssignmentRow.generation == int(job.payload["generation"]),
    )
    failed = (AssignmentRow.route == NO_ROUTE, AssignmentRow.outcome == Outcome.FAILED.value)
    session.execute(delete(AssignmentRow).where(*mine, *failed))
