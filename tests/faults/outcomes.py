"""R9: each accepted Instance ends in exactly one of done, waiting, dead letter. Counted from the rows alone."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

from tests.faults.receiver import LOCKED_S

DONE, WAITING, DEAD = "done", "waiting", "dead letter"
ALIVE = ("ready", "leased")


def outcomes(database: Path) -> Counter[str]:
    """How many accepted Instances ended as what; one that has no outcome counts under the reason."""
    with closing(sqlite3.connect(database, timeout=LOCKED_S)) as connection:
        connection.row_factory = sqlite3.Row
        connection.execute("BEGIN")
        jobs = _jobs(connection)
        of_series = {row["id"]: _of_series(connection, jobs, row) for row in connection.execute("SELECT * FROM series")}
        found: Counter[str] = Counter()
        for row in connection.execute("SELECT series_id, conflict FROM instance"):
            found[DONE if row["conflict"] else of_series[row["series_id"]]] += 1
        return found


def without_outcome(found: Counter[str]) -> dict[str, int]:
    """The part of ``outcomes`` that must not be."""
    return {reason: count for reason, count in found.items() if reason not in (DONE, WAITING, DEAD)}


def _jobs(connection: sqlite3.Connection) -> dict[tuple[str, str], str]:
    """(kind, subject) to state; the subject of a delivery is assignment:destination."""
    found = {}
    for row in connection.execute("SELECT kind, dedup_key, payload, state FROM job"):
        key = row["dedup_key"]
        if row["kind"] == "deliver":
            payload = json.loads(row["payload"])
            key = f"{payload['assignment_id']}:{payload['destination']}"
        found[row["kind"], key] = row["state"]
    return found


def _of_series(connection: sqlite3.Connection, jobs: dict[tuple[str, str], str], series: sqlite3.Row) -> str:
    if series["state"] == "open":
        return WAITING
    route = jobs.get(("route", f"{series['id']}:{series['generation']}"))
    query = "SELECT * FROM assignment WHERE series_id = ? AND generation = ?"
    assignments = connection.execute(query, (series["id"], series["generation"])).fetchall()
    if route in ALIVE:
        return WAITING if not assignments else "assigned, and to be routed again"
    if route == "dead":
        return DEAD
    if not assignments:
        return "complete, and neither routed nor to be routed"
    states = {_of_assignment(connection, jobs, row) for row in assignments}
    wrong = states - {DONE, WAITING, DEAD}
    return next(iter(wrong), next(state for state in (WAITING, DEAD, DONE) if state in states or state == DONE))


def _of_assignment(connection: sqlite3.Connection, jobs: dict[tuple[str, str], str], row: sqlite3.Row) -> str:
    detect = jobs.get(("detect", str(row["id"])))
    if detect in ALIVE:  # an outcome may be there already, and objects that may have to stand in for it not yet
        return WAITING
    if row["outcome"] is None:
        return f"pending, and its job is {detect}"
    if detect == "dead":
        return DEAD
    query = (
        "SELECT delivery.destination, delivery.state FROM delivery JOIN derived ON derived.id = delivery.derived_id "
        "WHERE derived.assignment_id = ?"
    )
    states = set()
    for destination, state in connection.execute(query, (row["id"],)).fetchall():
        deliver = jobs.get(("deliver", f"{row['id']}:{destination}"))
        if state == "waiting":
            states.add(WAITING if deliver in ALIVE else f"undelivered, and its job is {deliver}")
        else:
            states.add(DEAD if state == "failed" or deliver == "dead" else DONE)
    wrong = states - {DONE, WAITING, DEAD}
    return next(iter(wrong), WAITING if WAITING in states else DEAD if DEAD in states else DONE)
