"""When the sender of a Series is asked for its own count: after a pause, not too often, and only who answers."""

from __future__ import annotations

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from dicomnode.assemble.judge import SeriesFacts
from dicomnode.config import Config
from dicomnode.jobs import enqueue
from dicomnode.store.engine import Store
from dicomnode.store.tables import JobRow, SeriesRow

KIND = "count"
ASK_AGAIN_S = 10.0
SILENT_SENDER_S = 600.0


def ask_sender(store: Store, config: Config, series: SeriesRow, facts: SeriesFacts, now: float) -> bool:
    """Enqueue a ``count`` job for the Series, when it is time; returns whether that was done.

    Only a configured peer is asked, only when Instances came since the last answer, at most every 10 s, one question
    at a time; a peer that did not answer is left alone for ten minutes.
    """
    paused = now >= series.last_received_at + config.assemble.settle_s
    answered = series.asked_at is not None and series.asked_at >= series.last_received_at
    asked_lately = series.asked_at is not None and now < series.asked_at + ASK_AGAIN_S
    stuck = facts.association == "open" and not facts.moved_on
    if not paused or answered or asked_lately or stuck or config.peer_with_ae_title(series.CallingAETitle) is None:
        return False
    key = f"{series.CallingAETitle}:{series.id}:{series.generation}:{series.last_received_at:.3f}"
    with store.read() as session:
        if not _worth_asking(session, series, key, now):
            return False
    with store.write() as session:
        return enqueue(session, KIND, key, {"series_id": series.id, "generation": series.generation}, now, priority=1)


def _worth_asking(session: Session, series: SeriesRow, key: str, now: float) -> bool:
    """No question to this sender is under way, this one was not put before, and the sender is one that answers."""
    pending = JobRow.state.in_(("ready", "leased"))
    same_sender = JobRow.dedup_key.startswith(f"{series.CallingAETitle}:", autoescape=True)
    asked, asking = and_(JobRow.kind == KIND, JobRow.dedup_key == key), and_(JobRow.kind == KIND, pending, same_sender)
    jobs = select(JobRow.id).where(or_(asked, asking))  # each half has an index of its own
    if session.scalar(jobs.limit(1)) is not None:
        return False
    last = session.execute(
        select(SeriesRow.n_expected, SeriesRow.asked_at)
        .where(SeriesRow.CallingAETitle == series.CallingAETitle, SeriesRow.asked_at.is_not(None))
        .order_by(SeriesRow.asked_at.desc())
        .limit(1)
    ).first()
    return last is None or last.n_expected is not None or now >= last.asked_at + SILENT_SENDER_S
