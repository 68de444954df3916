"""The timer's work: look at every open Series, complete what is complete, ask senders for their count."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from dicomnode.assemble.asking import ask_sender
from dicomnode.assemble.evidence import Evidence, weigh
from dicomnode.assemble.facts import (
    any_ended,
    listening_since,
    open_associations,
    open_series,
    read_facts,
    read_headers,
)
from dicomnode.assemble.judge import SeriesFacts, Verdict, judge
from dicomnode.audit import append
from dicomnode.audit.events import Event
from dicomnode.config import Config
from dicomnode.dicom.summary import Header
from dicomnode.jobs import enqueue
from dicomnode.store.changes import Changes
from dicomnode.store.engine import Store
from dicomnode.store.tables import InstanceRow, SeriesRow, StudyRow

SWEEP_S, LEAST_PAUSE_S = 0.5, 0.05
"""Seconds between two sweeps, at most; and at least, where only a change asks for the second."""


@dataclass(frozen=True, slots=True)
class _Followed:
    """What is known of an open Series. ``evidence``: None until it is weighed."""

    newest_id: int = 0
    headers: tuple[Header, ...] = ()
    evidence: Evidence | None = None


@dataclass(slots=True)
class EvidenceMemory:
    """Headers of open Series as they come, so that only new ones are read. Losing it costs only time.

    ``due``: when, for all that is known, the next Series may be complete, in seconds since 1970. ``sending``: ids of
    the Associations that the Series came over, and that were open when they were last looked at.
    """

    known: dict[int, _Followed] = field(default_factory=dict)
    due: float = 0.0
    sending: set[int] = field(default_factory=set)

    def follow(self, session: Session, series: SeriesRow) -> _Followed:
        """Read what rows came to ``series`` since it was last looked at; ``last_received_at`` may lag behind."""
        seen = self.known.get(series.id, _Followed())
        if came := read_headers(session, series.id, seen.newest_id):
            seen = _Followed(came[-1][0], (*seen.headers, *(header for _, header in came)))
            self.known[series.id] = seen
        return seen

    def of(self, session: Session, series: SeriesRow) -> Evidence:
        """The evidence of ``series``."""
        seen = self.follow(session, series)
        if seen.evidence is not None:
            return seen.evidence
        evidence = weigh(seen.headers)
        self.known[series.id] = replace(seen, evidence=evidence)
        return evidence

    def keep_only(self, series_ids: set[int]) -> None:
        """Forget every other Series."""
        self.known = {key: value for key, value in self.known.items() if key in series_ids}


class Sweeper:
    """Sweeps when a Series is due, soon after anything has changed in the database, and now and then in any case.

    Sweeps that changes bring take at most a tenth of the time, however much is received; the end of an Association
    that a Series came over does not wait for that. ``clock``: seconds since 1970; ``steady``: seconds that nobody can
    set.
    """

    def __init__(
        self,
        store: Store,
        config: Config,
        clock: Callable[[], float],
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._config, self._clock, self._steady = store, config, clock, steady
        self._memory, self._changes = EvidenceMemory(), Changes(store)
        self._changed, self._ended, self._pause = True, -math.inf, 0.0

    def tick(self) -> int:
        """Sweep if there is a reason to; returns how many Series are complete now. Raises Transient."""
        begun, now = self._steady(), self._clock()
        self._changed |= self._changes.look()
        rested = begun - self._ended
        changed = self._changed and (rested >= self._pause or self._sent())
        wanted = changed or now >= self._memory.due or rested >= SWEEP_S
        if not wanted:
            return 0
        self._changed = False
        try:
            return sweep(self._store, self._config, now, self._memory)
        finally:
            self._ended = self._steady()
            self._pause = max(LEAST_PAUSE_S, 10.0 * (self._ended - begun))

    def _sent(self) -> bool:
        """Whether a sender has ended what was under way: one look at a few rows."""
        if not self._memory.sending:
            return False
        with self._store.read() as session:
            return any_ended(session, self._memory.sending)


@dataclass(frozen=True, slots=True)
class _Judged:
    series: SeriesRow
    facts: SeriesFacts
    verdict: Verdict


def sweep(store: Store, config: Config, now: float, memory: EvidenceMemory | None = None) -> int:
    """Complete every Series that is complete at ``now``; returns how many.

    Reads in one snapshot and writes one transaction per Series, each with its ``route`` job and its audit record.
    Enqueues ``count`` jobs where the sender's own count could help. ``memory`` saves reading headers again.
    Raises Transient when the database is not available.
    """
    memory = memory or EvidenceMemory()
    with store.read() as session:
        judged = _judge_all(session, config, now, memory)
    done = sum(_complete(store, entry, now) for entry in judged if entry.verdict.complete)
    if config.assemble.use_c_find:
        for entry in judged:
            if not entry.verdict.complete:
                ask_sender(store, config, entry.series, entry.facts, now)
    return done


def _judge_all(session: Session, config: Config, now: float, memory: EvidenceMemory) -> list[_Judged]:
    listening = listening_since(session)
    rows = list(open_series(session))
    memory.keep_only({row.id for row in rows})
    memory.sending = open_associations(session, rows)
    judged, memory.due = [], math.inf
    for row in rows:
        settled_at = row.last_received_at + config.assemble.settle_s
        if now < settled_at and row.asked_at is None:
            memory.follow(session, row)
            memory.due = min(memory.due, settled_at)
            continue
        facts = read_facts(session, row, memory.of(session, row), listening)
        verdict = judge(facts, config.assemble, now)
        if verdict.look_again_at > now:
            memory.due = min(memory.due, verdict.look_again_at)
        judged.append(_Judged(row, facts, verdict))
    return judged


def _complete(store: Store, judged: _Judged, now: float) -> bool:
    """Close the Series, unless an Instance came since it was judged."""
    series, verdict = judged.series, judged.verdict
    with store.write() as session:
        unchanged = (
            update(SeriesRow)
            .where(
                SeriesRow.id == series.id,
                SeriesRow.state == "open",
                SeriesRow.generation == series.generation,
                SeriesRow.last_received_at == series.last_received_at,
                SeriesRow.association_id.is_not_distinct_from(series.association_id),
            )
            .values(state="complete", complete_by=verdict.reason[:200], incomplete=verdict.incomplete, completed_at=now)
        )
        if session.execute(unchanged.returning(SeriesRow.id)).first() is None:
            return False
        payload = {"series_id": series.id, "generation": series.generation}
        enqueue(session, "route", f"{series.id}:{series.generation}", payload, now)
        _audit(session, judged, now)
    return True


def _audit(session: Session, judged: _Judged, now: float) -> None:
    series, facts, verdict = judged.series, judged.facts, judged.verdict
    study = session.get_one(StudyRow, series.study_id)
    conflicts = select(InstanceRow.id).where(InstanceRow.series_id == series.id, InstanceRow.conflict.is_(True))
    body = {
        "StudyInstanceUID": study.StudyInstanceUID,
        "PatientID": study.PatientID,
        "AccessionNumber": study.AccessionNumber,
        "SeriesInstanceUID": series.SeriesInstanceUID,
        "CallingAETitle": series.CallingAETitle,
        "generation": series.generation,
        "complete_by": verdict.reason,
        "incomplete": verdict.incomplete,
        "n_instances": facts.evidence.n_instances,
        "n_conflict": len(session.scalars(conflicts).all()),
        "n_expected": facts.n_expected,
        "association": series.association_id,
        "association_ended": facts.association,
        "seconds_since_last_instance": round(now - series.last_received_at, 3),
    }
    append(session, Event.SERIES_COMPLETE, body, datetime.fromtimestamp(now, UTC))
