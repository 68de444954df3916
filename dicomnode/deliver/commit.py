"""Storage commitment begins: a ``commit`` job asks a Destination to take responsibility for what it got (PS3.4 J)."""

from __future__ import annotations

from sqlalchemy.orm import Session

from dicomnode.jobs import enqueue, rouse
from dicomnode.store.commitments import COMMIT, commit_job


def request(session: Session, assignment_id: int, destination: str, now: float) -> None:
    """Have a ``commit`` job for what ``destination`` holds of one Assignment, to be done now.

    For the transaction that writes that it was delivered, first time or again. A job that waits for a re-send goes
    on; one that ended gets a new life, since there is something new to ask for.
    """
    key, payload = commit_job(assignment_id, destination, now)
    if not enqueue(session, COMMIT, key, payload, now):
        rouse(session, COMMIT, key, payload, now)
