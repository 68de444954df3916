"""The one transaction that ends a ``detect`` job: Derived Instances, deliveries, provenance, ``finish``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

import dicomnode
from dicomnode.audit import append
from dicomnode.audit.events import Event
from dicomnode.config import Config
from dicomnode.detect.analyse import Analysis
from dicomnode.detect.case import Case, read_case
from dicomnode.detectors.contract import LoadedDetector, Outcome
from dicomnode.jobs import Job, bury, enqueue, finish
from dicomnode.report import DerivedObject, to_bytes
from dicomnode.store.engine import Store
from dicomnode.store.spool import Spool, digest
from dicomnode.store.tables import AssignmentRow, DeliveryRow, DerivedRow


@dataclass(frozen=True, slots=True)
class StoredObject:
    """A Derived Instance that is durable in the spool and not yet in the database."""

    kind: str
    SOPInstanceUID: str
    SOPClassUID: str
    SeriesInstanceUID: str
    sha256: str
    size: int
    path: str


def store_objects(spool: Spool, objects: Iterable[DerivedObject]) -> tuple[StoredObject, ...]:
    """Write ``objects`` into the spool, fsynced. Raises Transient when the disk fails."""
    return tuple(_store(spool, item) for item in objects)


def _store(spool: Spool, item: DerivedObject) -> StoredObject:
    content = to_bytes(item.dataset)
    dataset, sha256 = item.dataset, digest(content)
    name = digest(str(dataset.SOPInstanceUID).encode())[:40] + ".dcm"
    return StoredObject(
        item.kind,
        str(dataset.SOPInstanceUID),
        str(dataset.SOPClassUID),
        str(dataset.SeriesInstanceUID),
        sha256,
        len(content),
        spool.store((content,), "derived", name),
    )


def write_outcome(
    store: Store,
    config: Config,
    config_sha256: str,
    job: Job,
    case: Case,
    detector: LoadedDetector,
    analysis: Analysis,
    stored: Sequence[StoredObject],
    now: float,
) -> None:
    """Write everything that ``job`` led to. Raises LeaseLost when another worker holds it."""
    result = analysis.result
    with store.write() as session:
        finish(session, job, now)
        row = session.get_one(AssignmentRow, case.assignment.id)
        row.outcome, row.reason, row.finished_at = result.outcome.value, result.reason or row.reason, now
        row.model, row.model_version = detector.model.name, detector.model.version
        row.weights_sha256, row.score = detector.model.sha256, result.score
        row.threshold = result.calibration.threshold if result.calibration else None
        _replace_derived(session, row, stored, now)
        for destination in row.send_to:
            _enqueue_delivery(session, config, row, destination, now)
        append(session, Event.INFERENCE, _provenance(config_sha256, case, detector, analysis, stored, now))


def _replace_derived(session: Session, row: AssignmentRow, stored: Sequence[StoredObject], now: float) -> None:
    """A retry of the same analysis replaces; nothing of it was sent before this transaction."""
    uids = [item.SOPInstanceUID for item in stored]
    session.execute(delete(DerivedRow).where(DerivedRow.assignment_id == row.id, DerivedRow.SOPInstanceUID.in_(uids)))
    for item in stored:
        session.add(
            DerivedRow(
                assignment_id=row.id,
                kind=item.kind,
                SOPInstanceUID=item.SOPInstanceUID,
                SOPClassUID=item.SOPClassUID,
                SeriesInstanceUID=item.SeriesInstanceUID,
                sha256=item.sha256,
                size=item.size,
                path=item.path,
                created_at=now,
            )
        )
    session.flush()


def _enqueue_delivery(session: Session, config: Config, row: AssignmentRow, destination: str, now: float) -> None:
    wanted = config.results.objects_for(destination)
    query = select(DerivedRow.id).where(DerivedRow.assignment_id == row.id, DerivedRow.kind.in_(wanted))
    ids = session.scalars(query.order_by(DerivedRow.id)).all()
    if not ids:
        return
    session.add_all(DeliveryRow(derived_id=derived, destination=destination) for derived in ids)
    payload = {"assignment_id": row.id, "destination": destination}
    enqueue(session, "deliver", f"{row.id}:{destination}", payload, now, priority=row.priority)


def _provenance(
    config_sha256: str,
    case: Case,
    detector: LoadedDetector,
    analysis: Analysis,
    stored: Sequence[StoredObject],
    now: float,
) -> dict[str, Any]:
    """Which model with which weights saw which Instances, and what came of it (trust.md A1)."""
    result, calibration = analysis.result, analysis.result.calibration
    return {
        **case.subject,
        "route": case.assignment.route,
        "detector": case.assignment.detector,
        "detector_version": analysis.detector_version,
        "model": detector.model.name,
        "model_version": detector.model.version,
        "weights_sha256": detector.model.sha256,
        "software_version": dicomnode.__version__,
        "config_sha256": config_sha256,
        "accelerator": detector.accelerator,
        "started_at": case.assignment.started_at,
        "finished_at": now,
        "outcome": result.outcome.value,
        "reason": result.reason,
        "score": result.score,
        "raw_score": result.raw_score,
        "raw_unit": result.raw_unit,
        "threshold": calibration.threshold if calibration else None,
        "score_unit": calibration.unit if calibration else "",
        "calibration": calibration.method if calibration else "",
        "incomplete": case.series.incomplete,
        "notes": list(analysis.notes),
        "sources": [{"SOPInstanceUID": uid, "sha256": case.digests[uid]} for uid in analysis.sources],
        "outputs": [
            {"SOPInstanceUID": item.SOPInstanceUID, "kind": item.kind, "sha256": item.sha256} for item in stored
        ],
    }


def write_outdated(store: Store, job: Job, case: Case, now: float) -> None:
    """A newer generation of the Series is on its way: this Assignment ends without a result."""
    reason = f"generation {case.assignment.generation} was superseded by generation {case.series.generation}"
    with store.write() as session:
        finish(session, job, now)
        row = session.get_one(AssignmentRow, case.assignment.id)
        row.outcome, row.reason, row.finished_at = Outcome.NOT_ANALYSED.value, reason, now
        append(session, Event.NOT_ANALYSED, {**case.subject, "reason": reason})


def write_failure(session: Session, spool: Spool, job: Job, reason: str, now: float) -> None:
    """A dead ``detect`` job: the Assignment has failed, visibly."""
    case = read_case(session, spool, int(job.payload["assignment_id"]))
    row = case.assignment
    row.outcome, row.reason, row.finished_at = Outcome.FAILED.value, reason, now
    append(session, Event.DEAD_LETTER, {**case.subject, "job": job.id, "detector": row.detector, "reason": reason})


def give_up(store: Store, spool: Spool, job: Job, reason: str, now: float) -> None:
    """Bury ``job`` and record the failure, in one transaction. Raises LeaseLost."""
    with store.write() as session:
        bury(session, job, reason, now)
        write_failure(session, spool, job, reason, now)
