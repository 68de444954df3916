"""The one transaction that ends a ``detect`` job: Derived Instances, deliveries, provenance, ``finish``."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import delete
from sqlalchemy.orm import Session

import dicomnode
from dicomnode.audit import append
from dicomnode.audit.events import Event
from dicomnode.config import Config
from dicomnode.detect.analyse import ANALYSED, Analysis
from dicomnode.detect.case import Case, read_case
from dicomnode.detect.drift_record import record
from dicomnode.detect.status_job import announce
from dicomnode.detectors.contract import DetectionResult, LoadedDetector, Outcome
from dicomnode.dicom.unquoted import unquoted
from dicomnode.jobs import Job, bury, enqueue, finish, hold
from dicomnode.report import DerivedObject, Encoder, to_parts
from dicomnode.store.engine import Store
from dicomnode.store.spool import Spool, digest
from dicomnode.store.stages import record_analysis
from dicomnode.store.tables import AssignmentRow, DeliveryRow, DerivedRow

_AHEAD = 4
"""Objects that may wait for the disk, in memory."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """A Derived Instance that is durable in the spool and not yet in the database."""

    kind: str
    SOPInstanceUID: str
    SOPClassUID: str
    SeriesInstanceUID: str
    SeriesNumber: int | None
    sha256: str
    size: int
    path: str


def outputs(stored: Sequence[StoredObject]) -> list[dict[str, str]]:
    """What was made, for an audit body."""
    return [{"SOPInstanceUID": item.SOPInstanceUID, "kind": item.kind, "sha256": item.sha256} for item in stored]


def store_objects(spool: Spool, objects: Iterable[DerivedObject]) -> tuple[StoredObject, ...]:
    """Write ``objects`` into the spool, fsynced, each while the next ones are made. Raises Transient when the disk
    fails."""
    writing: deque[Future[StoredObject]] = deque()
    stored: list[StoredObject] = []
    encoder = Encoder()
    with ThreadPoolExecutor(1, "store") as pool:
        for item in objects:
            writing.append(pool.submit(_store, spool, item, to_parts(item.dataset, encoder)))
            if len(writing) > _AHEAD:
                stored.append(writing.popleft().result())
        return (*stored, *(one.result() for one in writing))


def _store(spool: Spool, item: DerivedObject, content: tuple[bytes, ...]) -> StoredObject:
    dataset, sha256 = item.dataset, digest(*content)
    name = digest(str(dataset.SOPInstanceUID).encode())[:40] + ".dcm"
    return StoredObject(
        item.kind,
        str(dataset.SOPInstanceUID),
        str(dataset.SOPClassUID),
        str(dataset.SeriesInstanceUID),
        None if dataset.get("SeriesNumber") is None else int(dataset.SeriesNumber),
        sha256,
        sum(map(len, content)),
        spool.store(content, "derived", name),
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
    """Write everything that ``job`` led to but the stand-ins, which ``write_stand_ins`` ends it with.

    Raises LeaseLost when another worker holds it.
    """
    result = analysis.result
    with store.write() as session:
        if result.outcome in ANALYSED:
            hold(session, job)
        else:
            finish(session, job, now)
        row = session.get_one(AssignmentRow, case.assignment.id)
        row.outcome, row.reason, row.finished_at = result.outcome.value, result.reason or row.reason, now
        row.model, row.model_version = detector.model.name, detector.model.version
        row.weights_sha256, row.score = detector.model.sha256, result.score
        row.threshold, row.gate = result.calibration.threshold if result.calibration else None, analysis.gate
        derived = replace_derived(session, row, stored, now)
        for destination in row.send_to:
            kinds = config.results.objects_for(destination)
            enqueue_delivery(session, row, destination, [item for item in derived if item.kind in kinds], now)
        if result.outcome is Outcome.NOT_ANALYSED:
            announce(session, config, row, now)
        record(session, case, detector.model, analysis.observed, now)
        record_analysis(session, row, case.series, analysis.took)
        append(session, Event.INFERENCE, _provenance(config_sha256, case, detector, analysis, stored, now))


def write_stand_ins(store: Store, job: Job, case: Case, stored: Sequence[StoredObject], now: float) -> None:
    """End ``job`` with what may have to stand in for its result, which is on its way already. Raises LeaseLost."""
    with store.write() as session:
        finish(session, job, now)
        row = session.get_one(AssignmentRow, case.assignment.id)
        replace_derived(session, row, stored, now)
        if stored:
            append(session, Event.STAND_INS, {**case.subject, "outputs": outputs(stored)})


def replace_derived(
    session: Session, row: AssignmentRow, stored: Sequence[StoredObject], now: float
) -> list[DerivedRow]:
    """The rows of ``stored``. A retry of the same work replaces; nothing of it was sent before this transaction."""
    uids = [item.SOPInstanceUID for item in stored]
    session.execute(delete(DerivedRow).where(DerivedRow.assignment_id == row.id, DerivedRow.SOPInstanceUID.in_(uids)))
    derived = [DerivedRow(assignment_id=row.id, created_at=now, **asdict(item)) for item in stored]
    session.add_all(derived)
    session.flush()
    return derived


def enqueue_delivery(
    session: Session, row: AssignmentRow, destination: str, derived: Sequence[DerivedRow], now: float, of: str = ""
) -> None:
    """``derived`` wait for ``destination``, in this order. ``of``: what it is, when it is not the result itself."""
    if not derived:
        return
    session.add_all(DeliveryRow(derived_id=item.id, destination=destination) for item in derived)
    payload = {"assignment_id": row.id, "destination": destination}
    key = f"{row.id}:{destination}" + (f":{of}" if of else "")
    enqueue(session, "deliver", key, payload, now, priority=row.priority)


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
        "gate": analysis.gate,
        "reason": unquoted(result.reason, case.summary.attributes),
        "score": result.score,
        "raw_score": result.raw_score,
        "raw_unit": result.raw_unit,
        "threshold": calibration.threshold if calibration else None,
        "score_unit": calibration.unit if calibration else "",
        "calibration": calibration.method if calibration else "",
        "acquisition": _acquisition(result),
        "notices": [unquoted(notice, case.summary.attributes) for notice in result.notices],
        "incomplete": case.series.incomplete,
        "notes": list(analysis.notes),
        "sources": [{"SOPInstanceUID": uid, "sha256": case.digests[uid]} for uid in analysis.sources],
        "outputs": outputs(stored),
    }


def _acquisition(result: DetectionResult) -> dict[str, float | bool] | None:
    """How unusual the acquisition was; None when the model cannot judge it or the gate is off."""
    own = result.acquisition
    return {"score": own.score, "threshold": own.threshold, "unusual": own.unusual} if own else None


def write_outdated(store: Store, job: Job, case: Case, now: float) -> None:
    """A newer generation of the Series is on its way: this Assignment ends without a result, unless it has one."""
    reason = f"generation {case.assignment.generation} was superseded by generation {case.series.generation}"
    with store.write() as session:
        finish(session, job, now)
        row = session.get_one(AssignmentRow, case.assignment.id)
        if row.outcome is not None:
            return
        row.outcome, row.reason, row.finished_at = Outcome.NOT_ANALYSED.value, reason, now
        append(session, Event.NOT_ANALYSED, {**case.subject, "reason": reason})


def write_failure(session: Session, spool: Spool, config: Config, job: Job, reason: str, now: float) -> None:
    """A dead ``detect`` job: the Assignment has failed, visibly; the PACS hears of it where the site asks for that.

    An Assignment with a result keeps it: only its stand-ins could not be made.
    """
    case = read_case(session, spool, int(job.payload["assignment_id"]))
    row = case.assignment
    if row.outcome not in ANALYSED:
        row.outcome, row.gate, row.reason, row.finished_at = Outcome.FAILED.value, None, reason, now
        announce(session, config, row, now)
    told = unquoted(reason, case.summary.attributes)
    append(session, Event.DEAD_LETTER, {**case.subject, "job": job.id, "detector": row.detector, "reason": told})


def give_up(store: Store, spool: Spool, config: Config, job: Job, reason: str, now: float) -> None:
    """Bury ``job`` and record the failure, in one transaction. Raises LeaseLost."""
    with store.write() as session:
        bury(session, job, reason, now)
        write_failure(session, spool, config, job, reason, now)
