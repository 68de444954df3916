"""What of a Series goes outside: jobs for its exports and its detectors outside, in the transaction that routes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy.orm import Session

from dicomnode.config import Config
from dicomnode.config.matching import unmet
from dicomnode.config.outside import Remote
from dicomnode.config.rules import Condition
from dicomnode.deid.errands import EXPORT_JOB, REMOTE_JOB, RETURN_JOB
from dicomnode.dicom.summary import SeriesSummary
from dicomnode.jobs import enqueue
from dicomnode.store.tables import AssignmentRow, SeriesRow


def export(session: Session, config: Config, summary: SeriesSummary, series: SeriesRow, now: float) -> list[str]:
    """One job for each peer of each export that takes the Series; returns the names of those exports."""
    taken = [rule for rule in config.deid.export if _met(rule.when, summary)]
    for rule in taken:
        for destination in rule.send_to:
            names = {"export": rule.name, "destination": destination}
            payload = {"series_id": series.id, "generation": series.generation, **names}
            key = f"{series.id}:{series.generation}:{destination}"
            enqueue(session, EXPORT_JOB, key, payload, now, priority=rule.priority)
    return [rule.name for rule in taken]


def ask_remotes(
    session: Session,
    config: Config,
    summary: SeriesSummary,
    series: SeriesRow,
    destinations: Mapping[str, Sequence[str]],
    now: float,
    asked: int,
) -> list[Remote]:
    """One Assignment and its job for each detector outside that takes the Series; returns those.

    ``destinations``: name of the detector to the peers that get its results. ``asked``: as for ``route.work``.
    """
    taken = [remote for remote in config.deid.remote if _met(remote.when, summary)]
    for remote in taken:
        assignment = AssignmentRow(
            series_id=series.id,
            generation=series.generation,
            route=remote.name,
            detector=f"remote {remote.peer}",
            send_to=list(destinations[remote.name]),
            priority=remote.priority + asked,
            reason=f"taken by {remote.name}, outside",
            created_at=now,
        )
        session.add(assignment)
        session.flush()
        payload = {"assignment_id": assignment.id, "since": now, "sent_at": None}
        enqueue(session, REMOTE_JOB, str(assignment.id), payload, now, priority=assignment.priority)
    return taken


def came_back(session: Session, config: Config, series: SeriesRow, now: float) -> str:
    """A Series that a detector outside sent: a job to give it back to its patient. Returns the peer's name, or none."""
    peer = config.peer_with_ae_title(series.CallingAETitle)
    if peer is None or peer.name not in {remote.peer for remote in config.deid.remote}:
        return ""
    payload = {"series_id": series.id, "generation": series.generation, "peer": peer.name}
    enqueue(session, RETURN_JOB, f"{series.id}:{series.generation}", payload, now)
    return peer.name


def _met(when: Mapping[str, Condition], summary: SeriesSummary) -> bool:
    return not any(unmet(condition, summary.values(keyword)) for keyword, condition in when.items())
