"""Retention: Studies whose results are all delivered leave the spool when they are old or the disk gets full.

The rows of the images go first, with a "study deleted" record and the list of the files, in one transaction; then the
files. What a crash leaves is on that list and goes with the next run. Study, Series, Assignments and the UIDs of the
results stay: an image that comes later opens the next generation of its Series, whose result names the one before.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.orm import Session

from dicomnode.audit import append
from dicomnode.audit.events import Event
from dicomnode.config import Config, Peer
from dicomnode.jobs import Job, enqueue, finish, retry, rouse
from dicomnode.store.engine import Store
from dicomnode.store.retention import THERE, StoredStudy, look_at, stored_studies
from dicomnode.store.spool import Spool
from dicomnode.store.tables import (
    AssignmentRow,
    DeliveryRow,
    DerivedRow,
    InstanceRow,
    RemovalRow,
    SeriesRow,
    StudyRow,
)

RETENTION_JOB = "retention"
DAY_S = 86_400.0
LEAST_AGE_S = 3600.0
"""For want of space a Study goes only when nothing has happened to it for so long: late images are common."""
PERIOD_S = 3600.0
BATCH_S = 15.0
FILES_AT_ONCE = 500
PRIORITY = -10
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of one Study: ``goes``, and why; or it stays, and ``why`` names every reason."""

    study: StoredStudy
    goes: bool
    why: str


def ask_for_retention(store: Store, now: float) -> None:
    """Have a worker look what may go, unless one is about to. Raises Transient."""
    with store.write() as session:
        if not enqueue(session, RETENTION_JOB, RETENTION_JOB, {}, now, priority=PRIORITY):
            rouse(session, RETENTION_JOB, RETENTION_JOB, {}, now)


class RetentionTimer:
    """Decides when to ask: every ``PERIOD_S``, and at once while the disk is below its reserve. Losing it costs time.

    ``seconds``: a clock that never jumps.
    """

    def __init__(self, config: Config, store: Store, spool: Spool, seconds: Callable[[], float]) -> None:
        self._config, self._store, self._spool, self._seconds = config, store, spool, seconds
        self._asked_at: float | None = None

    def tick(self, now: float) -> None:
        """Ask when it is time. Raises Transient."""
        if not self._config.retention.active:
            return
        short = self._spool.free_bytes() < self._config.retention.reserve_bytes
        if short or self._asked_at is None or self._seconds() - self._asked_at >= PERIOD_S:
            ask_for_retention(self._store, now)
            self._asked_at = self._seconds()


def survey(session: Session, config: Config, free: int, now: float, *, everything: bool = False) -> Iterator[Verdict]:
    """What becomes of each Study that has images; ``free``: bytes of free space. Reads only.

    With ``everything`` also those that are too young to be looked at.
    """
    days, reserve = config.retention.days, config.retention.reserve_bytes
    old = now - days * DAY_S if days is not None else float("-inf")
    young = now - LEAST_AGE_S if free < reserve else old
    before = float("inf") if everything else max(old, young)
    for study in stored_studies(session, _must_commit(config), before):
        why = _why(study, old, young, short=free < reserve)
        goes = not study.stays and bool(why)
        if goes:
            free += study.size
        yield Verdict(study, goes, why if goes else "; ".join(study.stays) or "not old enough")


def _why(study: StoredStudy, old: float, young: float, *, short: bool) -> str:
    """Why a Study that may go goes now; empty when it need not."""
    if study.newest_at <= old:
        return "old enough"
    return "the disk is below its reserve" if short and study.newest_at <= young else ""


def keep_space(store: Store, spool: Spool, config: Config, job: Job, clock: Callable[[], float]) -> int:
    """The work of a ``retention`` job; returns how many Studies went.

    After ``BATCH_S`` it gives the job back, to be gone on with after whatever is more urgent. Raises Transient,
    LeaseLost.
    """
    until, gone = time.monotonic() + BATCH_S, 0
    while remove_files(store, spool):
        pass
    with store.read() as session:
        going = [verdict for verdict in survey(session, config, spool.free_bytes(), clock()) if verdict.goes]
    for index, verdict in enumerate(going):
        gone += delete_study(store, config, verdict, clock())
        while remove_files(store, spool):
            pass
        if time.monotonic() > until and index + 1 < len(going):
            with store.write() as session:
                retry(session, job, "", clock())
            return gone
    with store.write() as session:
        finish(session, job, clock())
    return gone


def delete_study(store: Store, config: Config, verdict: Verdict, now: float) -> bool:
    """Delete the rows of the images, list the files and record it, in one transaction; returns whether it was done.

    It is not when anything has happened to the Study since it was judged. Raises Transient.
    """
    with store.write() as session:
        seen = look_at(session, [verdict.study.id], _must_commit(config))[0]
        if seen != verdict.study:
            return False
        study = session.get_one(StudyRow, seen.id)
        facts = _facts(session, study, verdict)
        files = [*_received(session, seen.id), *_derived(session, seen.id)]
        for start in range(0, len(files), FILES_AT_ONCE):
            rows = [{"path": path, "decided_at": now} for path in files[start : start + FILES_AT_ONCE]]
            session.execute(insert(RemovalRow).values(rows).on_conflict_do_nothing())
        series = select(SeriesRow.id).where(SeriesRow.study_id == seen.id)
        assignments = select(AssignmentRow.id).where(AssignmentRow.series_id.in_(series))
        session.execute(delete(InstanceRow).where(InstanceRow.series_id.in_(series)))
        session.execute(update(DerivedRow).where(DerivedRow.assignment_id.in_(assignments)).values(path=""))
        study.deleted_at = now
        append(session, Event.STUDY_DELETED, facts)
    _log.info("study deleted", extra={"study": seen.id, "files": len(files), "bytes": seen.size, "reason": verdict.why})
    return True


def remove_files(store: Store, spool: Spool) -> int:
    """Remove listed files, ``FILES_AT_ONCE`` at most; returns how many. One that cannot be removed stays listed."""
    with store.read() as session:
        paths = list(session.scalars(select(RemovalRow.path).order_by(RemovalRow.decided_at).limit(FILES_AT_ONCE)))
    removed = [path for path in paths if _removed(spool, path)]
    if removed:
        with store.write() as session:
            session.execute(delete(RemovalRow).where(RemovalRow.path.in_(removed)))
    return len(removed)


def _removed(spool: Spool, path: str) -> bool:
    try:
        spool.remove(path)
    except OSError as error:
        _log.error("a file could not be removed", extra={"path": path, "errno": error.errno})
        return False
    return True


def _must_commit(config: Config) -> frozenset[str]:
    return frozenset(peer.name for peer in config.peer if isinstance(peer, Peer) and peer.commit)


def _received(session: Session, study: int) -> list[str]:
    query = select(InstanceRow.path).join(SeriesRow, SeriesRow.id == InstanceRow.series_id)
    return list(session.scalars(query.where(SeriesRow.study_id == study)))


def _derived(session: Session, study: int) -> list[str]:
    query = (
        select(DerivedRow.path)
        .join(AssignmentRow, AssignmentRow.id == DerivedRow.assignment_id)
        .join(SeriesRow, SeriesRow.id == AssignmentRow.series_id)
        .where(SeriesRow.study_id == study, DerivedRow.path != "")
    )
    return list(session.scalars(query))


def _facts(session: Session, study: StudyRow, verdict: Verdict) -> dict[str, Any]:
    """What is deleted and who holds its results: "Study deleted" (PS3.15 A.5.3.8, DCM 110105)."""
    holders = (
        select(DeliveryRow.destination, func.count())
        .join(DerivedRow, DerivedRow.id == DeliveryRow.derived_id)
        .join(AssignmentRow, AssignmentRow.id == DerivedRow.assignment_id)
        .join(SeriesRow, SeriesRow.id == AssignmentRow.series_id)
        .where(SeriesRow.study_id == study.id, DeliveryRow.state.in_(THERE))
        .group_by(DeliveryRow.destination)
    )
    series = select(SeriesRow.SeriesInstanceUID).where(SeriesRow.study_id == study.id)
    return {
        "StudyInstanceUID": study.StudyInstanceUID,
        "PatientID": study.PatientID,
        "AccessionNumber": study.AccessionNumber,
        "series": list(session.scalars(series.order_by(SeriesRow.id))),
        "instances": verdict.study.instances,
        "bytes": verdict.study.size,
        "reason": verdict.why,
        "results_at": {str(row[0]): int(row[1]) for row in session.execute(holders)},
    }
