"""The state of the node, read from the rows in one snapshot. No patient data: UIDs and our own ids only."""

from __future__ import annotations

from typing import Any

from sqlalchemy import String, and_, case, cast, exists, func, select, text
from sqlalchemy.orm import Session

import dicomnode
from dicomnode.audit.ship import behind
from dicomnode.config import Config
from dicomnode.console.certificates import certificate_troubles, certificates
from dicomnode.console.recent import read_recent
from dicomnode.console.stages import read_queues, read_stages, refused_instances
from dicomnode.store.commitments import COMMIT
from dicomnode.store.engine import Store
from dicomnode.store.spool import Spool
from dicomnode.store.tables import (
    RETRYING_SQL,
    AssignmentRow,
    AssociationRow,
    DeliveryRow,
    DerivedRow,
    DriftRow,
    InstanceRow,
    JobRow,
    ObservationRow,
    ProcessRow,
    SeriesRow,
    StudyRow,
)

RECENT = 50
STALE_S = 30.0


def read_status(config: Config, store: Store, spool: Spool, now: float) -> dict[str, Any]:
    """Everything that ``dicomnode status`` shows; keys are stable."""
    with store.read() as session:
        delivered = _delivered(session)
        return {
            "node": {
                "ae_title": config.node.ae_title,
                "software_version": dicomnode.__version__,
                "notice": "research software, not a medical device",
            },
            "processes": _processes(session, now),
            "disk": {"free_bytes": spool.free_bytes(), "min_free_bytes": config.receive.min_free_bytes},
            "received": _received(session),
            "series": _counts(session, SeriesRow.state),
            "outcomes": _outcomes(session),
            "not_analysed": _refusals(session),
            "jobs": _jobs(session),
            "queues": read_queues(session, now),
            "stages": read_stages(session),
            "dead_letters": dead_letters(session, RECENT),
            "retrying": _retrying(session),
            "deliveries": _deliveries(delivered),
            "commitments": _commitments(session, delivered),
            "drift": _drift(session),
            "certificates": certificates(config),
            "audit_copy": _audit_copy(config, session, now),
            "recent": read_recent(session, RECENT),
        }


def troubles(status: dict[str, Any]) -> list[str]:
    """What somebody has to look at; empty when all is well."""
    silent = [item["role"] for item in status["processes"] if not item["alive"]]
    disk, letters = status["disk"], sum(states.get("dead", 0) for states in status["jobs"].values())
    failed = status["outcomes"].get("failed", 0)
    found = [f"{role}: process not alive" for role in silent]
    if not status["processes"]:
        found.append("no process of the node is running")
    if disk["free_bytes"] < disk["min_free_bytes"]:
        found.append("disk below its limit: instances are refused")
    if failed:
        found.append(f"{failed} failed without a result")
    if letters:
        found.append(f"{letters} dead letter{'s' * (letters > 1)}, see below")
    if drifted := status["drift"]["alarms"]:
        found.append(f"scores have drifted at {len(drifted)} place{'s' * (len(drifted) > 1)}, see below")
    copy = status["audit_copy"]
    if copy and copy["failing_s"] is not None:
        found.append(f"audit copy at {copy['place']}: {copy['behind']} rows behind, {copy['error']}")
    return found + certificate_troubles(status["certificates"])


def _audit_copy(config: Config, session: Session, now: float) -> dict[str, Any] | None:
    """How far the copy of the audit log at its repository is behind; None when none is configured."""
    if config.audit.syslog is None:
        return None
    state = behind(session, config.audit.syslog.place)
    failing = None if state.failed_since is None else now - state.failed_since
    return {"place": state.place, "behind": state.rows, "failing_s": failing, "error": state.error}


def _processes(session: Session, now: float) -> list[dict[str, Any]]:
    rows = session.scalars(select(ProcessRow).where(ProcessRow.stopped_at.is_(None)).order_by(ProcessRow.started_at))
    return [
        {"role": row.role, "owner": row.owner, "pid": row.pid, "alive": now - row.heartbeat_at < STALE_S}
        for row in rows
    ]


def _received(session: Session) -> dict[str, int]:
    conflicts = select(func.count()).select_from(InstanceRow).where(InstanceRow.conflict)
    associations = select(func.count()).select_from(AssociationRow).where(AssociationRow.ended == "open")
    return {
        "studies": _count(session, StudyRow),
        "series": _count(session, SeriesRow),
        "instances": _count(session, InstanceRow),
        "conflicts": session.scalar(conflicts) or 0,
        "open_associations": session.scalar(associations) or 0,
        "refused": refused_instances(session),
    }


def _count(session: Session, row: type[StudyRow | SeriesRow | InstanceRow]) -> int:
    return session.scalar(select(func.count()).select_from(row)) or 0


def _counts(session: Session, column: Any) -> dict[str, int]:
    return {str(key): count for key, count in session.execute(select(column, func.count()).group_by(column))}


def _outcomes(session: Session) -> dict[str, int]:
    return {
        key if key != "None" else "pending": count for key, count in _counts(session, AssignmentRow.outcome).items()
    }


def _refusals(session: Session) -> dict[str, int]:
    """Assignments that were not analysed, by what refused them: route, volume, detector, acquisition; superseded: a
    newer one.

    "unknown": from before gates were recorded.
    """
    refused_by = case(
        (AssignmentRow.gate.is_not(None), AssignmentRow.gate),
        (AssignmentRow.detector.is_(None), "route"),
        (AssignmentRow.reason.like("generation % was superseded by generation %"), "superseded"),
        else_="unknown",
    ).label("refused_by")
    query = select(refused_by, func.count()).where(AssignmentRow.outcome == "not analysed").group_by("refused_by")
    return {str(gate): count for gate, count in session.execute(query)}


def _jobs(session: Session) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    query = select(JobRow.kind, JobRow.state, func.count()).group_by(JobRow.kind, JobRow.state)
    for kind, state, count in session.execute(query):
        found.setdefault(kind, {})[state] = count
    return found


def dead_letters(session: Session, limit: int | None = None) -> list[dict[str, Any]]:
    """The dead letters, newest first, ``limit`` at most."""
    rows = session.scalars(select(JobRow).where(JobRow.state == "dead").order_by(JobRow.id.desc()).limit(limit))
    return [
        {"job": row.id, "kind": row.kind, "payload": row.payload, "attempts": row.attempt, "reason": row.error}
        for row in rows
    ]


def _retrying(session: Session) -> list[dict[str, Any]]:
    """Jobs whose last attempt failed and that are tried again, and why."""
    failed = select(JobRow).where(text(RETRYING_SQL), text("+state IN ('ready', 'leased')"))
    return [
        {
            "job": row.id,
            "kind": row.kind,
            "destination": row.payload.get("destination"),
            "attempts": row.attempt,
            "reason": row.error,
            "next_at": row.not_before,
        }
        for row in session.scalars(failed.order_by(JobRow.id.desc()).limit(RECENT))
    ]


def _delivered(session: Session) -> list[tuple[str, str, bool, int]]:
    """(Destination, state, committed, number) of every delivery, from one look through an index."""
    committed = DeliveryRow.committed_at.is_not(None).label("committed")
    query = select(DeliveryRow.destination, DeliveryRow.state, committed, func.count())
    rows = session.execute(query.group_by(DeliveryRow.destination, DeliveryRow.state, "committed"))
    return [(destination, state, bool(is_committed), count) for destination, state, is_committed, count in rows]


def _deliveries(delivered: list[tuple[str, str, bool, int]]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for destination, state, _, count in delivered:
        states = found.setdefault(destination, {})
        states[state] = states.get(state, 0) + count
    return found


def _commitments(session: Session, delivered: list[tuple[str, str, bool, int]]) -> dict[str, dict[str, int]]:
    """Per destination that is asked for storage commitment: what it holds, by committed, pending or failed.

    "not asked": it came when the destination was not asked any more.
    """
    found: dict[str, dict[str, int]] = {}
    for destination, _, committed, count in delivered:
        if committed:
            states = found.setdefault(destination, {"committed": 0})
            states["committed"] += count
    asked = [name for name in {destination for destination, *_ in delivered} if _is_asked(session, name)]
    key = cast(DerivedRow.assignment_id, String) + ":" + DeliveryRow.destination
    state = case((JobRow.state == "dead", "failed"), (JobRow.state == "done", "not asked"), else_="pending")
    there = DeliveryRow.state.in_(("delivered", "warning"))
    query = (
        select(DeliveryRow.destination, state.label("commitment"), func.count())
        .join(DerivedRow, DerivedRow.id == DeliveryRow.derived_id)
        .join(JobRow, and_(JobRow.kind == COMMIT, JobRow.dedup_key == key))
        .where(DeliveryRow.destination.in_(asked), there, DeliveryRow.committed_at.is_(None))
        .group_by(DeliveryRow.destination, "commitment")
    )
    for destination, name, count in session.execute(query):
        found.setdefault(destination, {})[name] = count
    return found


def _is_asked(session: Session, destination: str) -> bool:
    """Was this Destination ever to be asked for storage commitment?"""
    named = func.substr(JobRow.dedup_key, func.instr(JobRow.dedup_key, ":") + 1)
    return bool(session.scalar(select(exists().where(JobRow.kind == COMMIT, named == destination))))


def _drift(session: Session) -> dict[str, Any]:
    """How many strata are watched, and those with an alarm; ``dicomnode drift`` shows all."""
    watched = session.scalar(select(func.count()).select_from(DriftRow)) or 0
    query = select(DriftRow, ObservationRow).join(ObservationRow, ObservationRow.id == DriftRow.looked_to)
    alarms = [
        {
            "stratum": row.stratum,
            "CallingAETitle": newest.CallingAETitle,
            "detector": newest.detector,
            "alarmed_at": row.alarmed_at,
            "alarms": row.alarms,
        }
        for row, newest in session.execute(query.order_by(DriftRow.stratum))
        if row.alarms
    ]
    return {"watched": watched, "alarms": alarms}
