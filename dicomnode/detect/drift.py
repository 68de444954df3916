"""The watch on drift: recent Series of each stratum against its first ones, with alarms.

A stratum is one sender, scanner, protocol, detector and set of weights. Its first ``min_series`` Series are the
reference; the following ones are judged in windows that do not overlap, so that each is looked at once: KS and PSI
when a window is full, a CUSUM of the score all along. One false alarm per window has the chance ``alpha`` at most,
over all strata, measures and tests (Bonferroni).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from dicomnode.audit import append
from dicomnode.audit.events import Event
from dicomnode.config import Config
from dicomnode.config.gates import DriftSettings
from dicomnode.detect.drift_statistics import cusum, cusum_limit, shift, stability_index
from dicomnode.store.engine import Store
from dicomnode.store.tables import DriftRow, ObservationRow

MEASURES = ("score", "acquisition", "intensity mean", "intensity spread")
CUSUM = "score mean"
_PER_STRATUM = len(MEASURES) + 1
_log = logging.getLogger(__name__)

Rows = Sequence[ObservationRow]


@dataclass(slots=True)
class Look:
    """What one look at a stratum found; ``full``: the window was complete."""

    full: bool
    alarms: dict[str, str] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)


def sweep_drift(store: Store, config: Config, now: float) -> int:
    """Look at every stratum that has new Series; returns how many alarms were raised.

    Each stratum is one transaction with its audit record. Raises Transient when the database is not available.
    """
    settings = config.drift
    with store.read() as session:
        strata = _with_reference(session, settings.min_series)
        looked = {row.stratum: row.looked_to for row in session.scalars(select(DriftRow))}
    level = settings.alpha / (max(len(strata), 1) * _PER_STRATUM)
    fresh = [stratum for stratum, newest in strata.items() if looked.get(stratum) != newest]
    return sum(_look_at(store, stratum, settings, level, now) for stratum in fresh)


def _with_reference(session: Session, least: int) -> dict[str, int]:
    """Strata with a whole reference, and their newest observation."""
    query = select(ObservationRow.stratum, func.max(ObservationRow.id)).group_by(ObservationRow.stratum)
    return {str(stratum): int(newest) for stratum, newest in session.execute(query.having(func.count() >= least))}


def _look_at(store: Store, stratum: str, settings: DriftSettings, level: float, now: float) -> int:
    with store.write() as session:
        reference = _first(session, stratum, 0, settings.min_series)
        row = session.get(DriftRow, stratum)
        if row is None:
            start = reference[-1].id
            row = DriftRow(stratum=stratum, judged_to=start, looked_to=start, looked_at=now, alarms={}, figures={})
            session.add(row)
        raised = 0
        while recent := _first(session, stratum, row.judged_to, settings.window):
            look = judge(reference, recent, settings, level)
            raised += _tell(session, row, recent, look, now)
            row.figures, row.looked_to, row.looked_at = look.figures, recent[-1].id, now
            if not look.full:
                break
            row.judged_to = recent[-1].id
        return raised


def _first(session: Session, stratum: str, after: int, count: int) -> list[ObservationRow]:
    query = select(ObservationRow).where(ObservationRow.stratum == stratum, ObservationRow.id > after)
    return list(session.scalars(query.order_by(ObservationRow.id).limit(count)))


def judge(reference: Rows, recent: Rows, settings: DriftSettings, level: float) -> Look:
    """Compare ``recent`` (at most a window) with ``reference``; every test at ``level``."""
    look = Look(full=len(recent) >= settings.window)
    look.figures = {"series": len(recent), "level": level}
    up, down = cusum([row.score for row in reference], [row.score for row in recent])
    limit = cusum_limit(settings.window, level)
    look.figures[CUSUM] = {"cusum_up": _short(up), "cusum_down": _short(down), "limit": _short(limit)}
    if max(up, down) > limit:
        way = "upward" if up >= down else "downward"
        look.alarms[CUSUM] = f"CUSUM {max(up, down):.1f} {way}, limit {limit:.1f}"
    if look.full:
        _compare(reference, recent, level, look)
    return look


def _compare(reference: Rows, recent: Rows, level: float, look: Look) -> None:
    for measure in MEASURES:
        old, new = _values(reference, measure), _values(recent, measure)
        if old is None or new is None:
            continue
        found = shift(old, new, level)
        look.figures[measure] = {"ks_p": found.p, "psi": _short(found.psi), "psi_limit": _short(found.psi_limit)}
        if found.alarm:
            look.alarms[measure] = f"KS p {found.p:.1e}, PSI {found.psi:.2f} (limit {found.psi_limit:.2f})"
    histograms = (np.mean([row.histogram for row in rows], axis=0) for rows in (reference, recent))
    look.figures["histogram_psi"] = _short(stability_index(*histograms))


def _values(rows: Rows, measure: str) -> list[float] | None:
    """One figure per Series; None when a Series lacks it (a model without acquisition gate)."""
    if measure == "score":
        return [row.score for row in rows]
    if measure == "acquisition":
        known = [row.acquisition for row in rows if row.acquisition is not None]
        return known if len(known) == len(rows) else None
    shares = np.array([row.histogram for row in rows])
    places = np.arange(shares.shape[1])
    mean = shares @ places
    spread = np.sqrt(np.clip(shares @ places**2 - mean**2, 0.0, None))
    chosen: list[float] = (mean if measure == "intensity mean" else spread).tolist()
    return chosen


def _tell(session: Session, row: DriftRow, recent: Rows, look: Look, now: float) -> int:
    """Set the alarms of ``row`` and tell what is new: an alarm once, and once that all of a full window is well."""
    before = dict(row.alarms)
    row.alarms = look.alarms if look.full else before | look.alarms
    new = sorted(set(row.alarms) - set(before))
    if new:
        row.alarmed_at = row.alarmed_at or now
        append(session, Event.DRIFT, {**_subject(recent), "alarms": {name: row.alarms[name] for name in new}})
        _log.warning("drift", extra={"stratum": row.stratum, "measures": new})
    elif before and not row.alarms:
        row.alarmed_at = None
        append(session, Event.DRIFT_ENDED, {**_subject(recent), "measures": sorted(before)})
        _log.info("drift ended", extra={"stratum": row.stratum})
    return len(new)


def _subject(recent: Rows) -> dict[str, Any]:
    first, last = recent[0], recent[-1]
    return {
        **_stratum(last),
        "series": len(recent),
        "first_assignment": first.assignment_id,
        "last_assignment": last.assignment_id,
    }


def _stratum(row: ObservationRow) -> dict[str, str]:
    return {
        "stratum": row.stratum,
        "CallingAETitle": row.CallingAETitle,
        "scanner": row.scanner,
        "protocol": row.protocol,
        "detector": row.detector,
        "weights_sha256": row.weights_sha256,
    }


def read_drift(store: Store, config: Config) -> list[dict[str, Any]]:
    """Every stratum with what the watch last said: alarms first, then by number of Series."""
    counts = select(ObservationRow.stratum, func.count(), func.max(ObservationRow.id)).group_by(ObservationRow.stratum)
    with store.read() as session:
        found = [
            _described(session.get_one(ObservationRow, newest), count, session.get(DriftRow, stratum), config)
            for stratum, count, newest in session.execute(counts)
        ]
    return sorted(found, key=lambda item: (not item["alarms"], -item["series"], item["stratum"]))


def _described(row: ObservationRow, count: int, said: DriftRow | None, config: Config) -> dict[str, Any]:
    reference = min(count, config.drift.min_series)
    state = "collecting its reference" if said is None else "alarm" if said.alarms else "steady"
    return {
        **_stratum(row),
        "state": state,
        "series": count,
        "reference": reference,
        "alarms": dict(said.alarms) if said else {},
        "alarmed_at": said.alarmed_at if said else None,
        "looked_at": said.looked_at if said else None,
        "figures": dict(said.figures) if said else {},
        "last_observed_at": row.observed_at,
    }


def _short(value: float) -> float:
    return round(float(value), 4)
