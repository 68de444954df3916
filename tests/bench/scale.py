"""``python -m tests.bench.scale``: claims, questions and status with a million audit rows and 100,000 jobs."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from alembic import command
from alembic.config import Config as AlembicConfig
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import dicomnode.store
from dicomnode.audit import AuditFilter, find
from dicomnode.audit.chain import Entry, append_many
from dicomnode.audit.events import Event
from dicomnode.config import parse_config
from dicomnode.console.status import read_status
from dicomnode.jobs import claim, expire, finish, waiting
from dicomnode.store.engine import Store
from dicomnode.store.schema import migrate
from dicomnode.store.spool import Spool, digest
from tests.bench.database import Times
from tests.bench.document import DOCUMENT, with_section
from tests.bench.machine import look
from tests.docs_conformance.markdown import table

TITLE = "Database at scale"
LIMITS_MS = {"claim": 5.0, "status": 200.0}
QUESTION_MS = 50.0
"""The limit of every question to the audit log."""
PER_STUDY = 500
CHUNK = 5000
KINDS = ("count", "route", "detect", "deliver", "commit")
DESTINATION = "pacs"
_UID = "1.2.826.0.1.3680043.8.498.10203040506070809"
START_S = 1.7e9
OUTCOMES = ("findings", "no findings", "not analysed")
USERS = ("ada", "grace", "admin")
_ENDING = (
    Event.INSTANCES_TRANSFERRED,
    Event.SERIES_COMPLETE,
    Event.ROUTED,
    *[Event.INFERENCE] * 6,
    Event.DELIVERED,
    Event.AUDIT_LOG_USED,
)
"""The rows behind those of the images of a study."""


@dataclass(frozen=True, slots=True)
class Scale:
    """A filled database and what it takes. ``append_s``: audit rows per second, 5,000 per transaction."""

    audit_rows: int
    jobs: int
    instances: int
    megabytes: float
    append_s: float
    migration_s: float
    claim: Times
    waiting: Times
    expire: Times
    finish: Times
    questions: dict[str, Times]
    status: Times


def study_uid(number: int) -> str:
    """The Study Instance UID of the study ``number``."""
    return f"{_UID}.{number}"


def patient_id(number: int) -> str:
    """The Patient ID of the study ``number``: two studies each."""
    return f"PAT{number // 2:07}"


def accession(number: int) -> str:
    """The Accession Number of the study ``number``."""
    return f"A{number:07}"


def image_uid(number: int, image: int) -> str:
    """The SOP Instance UID of an image of the study ``number``."""
    return f"{study_uid(number)}.9.{image}"


def peer_of(number: int) -> str:
    """Who sent the study ``number``: one of two scanners, or one that sends one study in a hundred."""
    return "DX" if number % 100 == 1 else ("CT", "MR")[number % 2]


def model_of(number: int) -> tuple[str, str, str]:
    """Name, version and weights SHA-256 of the model that saw the study ``number``."""
    name, version = ("head", "chest", "knee")[number % 3], f"1.{number // 50 % 4}"
    return name, version, digest(f"{name} {version}".encode())


def fill(
    store: Store, audit_rows: int, jobs: int, advance: Callable[[int], None] = lambda _: None
) -> tuple[float, float]:
    """Fill a database of the schema before the indexes, then migrate it; ``advance`` hears of audit rows.

    Returns audit rows per second, and the seconds of the migration.

    Of the jobs 1 in 20 is ready, 1 in 1,000 is leased or dead, the others are done. Each fifth job is another Series,
    with ten Instances and three delivered objects.
    """
    _migrate_to(store, "0004")
    started = time.perf_counter()
    for first in range(0, audit_rows, CHUNK):
        count = min(CHUNK, audit_rows - first)
        with store.transaction() as connection:
            append_many(connection, _entries(first, count))
        advance(count)
    rate = audit_rows / max(time.perf_counter() - started, 1e-9)
    series = jobs // len(KINDS)
    with store.transaction() as connection:
        _insert(connection, "association", _associations(max(1, audit_rows // PER_STUDY)))
        for name, rows in _tables(series).items():
            _insert(connection, name, rows)
        _insert(connection, "job", _jobs(jobs))
    started = time.perf_counter()
    migrate(store)
    return rate, time.perf_counter() - started


def _migrate_to(store: Store, revision: str) -> None:
    config = AlembicConfig()
    config.set_main_option("script_location", str(Path(dicomnode.store.__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    store.path.parent.mkdir(parents=True, exist_ok=True)
    with store.engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        connection.commit()


def _entries(first: int, count: int) -> Iterator[Entry]:
    for number in range(first, first + count):
        kind, body = _row(*divmod(number, PER_STUDY))
        yield Entry(kind, body, START_S + number)


def _row(study: int, place: int) -> tuple[Event, dict[str, Any]]:
    """The audit row ``place`` of a study: its transfer image by image, the analyses, a delivery, somebody who looks."""
    subject = {
        "PatientID": patient_id(study),
        "AccessionNumber": accession(study),
        "StudyInstanceUID": study_uid(study),
    }
    transfer = {"association": study + 1, "peer": peer_of(study), "CallingAETitle": peer_of(study) + "1"} | subject
    images = PER_STUDY - len(_ENDING) - 1
    if place == 0:
        return Event.BEGIN_TRANSFERRING, transfer
    if place <= images:
        image = {"SeriesInstanceUID": f"{study_uid(study)}.1", "SOPInstanceUID": image_uid(study, place - 1)}
        classes = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "TransferSyntaxUID": "1.2.840.10008.1.2.1"}
        facts = {"sha256": "0" * 64, "size": 526_000, "generation": 1, "action": "C"}
        return Event.INSTANCE_STORED, transfer | image | classes | facts
    kind = _ENDING[place - images - 1]
    series = subject | {"SeriesInstanceUID": f"{study_uid(study)}.1", "generation": 1}
    outputs = [{"SOPInstanceUID": f"{_UID}.8.{study * 3 + n}", "kind": "sc", "sha256": "0" * 64} for n in range(3)]
    match kind:
        case Event.INSTANCES_TRANSFERRED:
            return kind, transfer | {"n_new": images, "n_repeated": 0, "n_conflict": 0, "n_refused": 0}
        case Event.INFERENCE:
            model = dict(zip(("model", "model_version", "weights_sha256"), model_of(study), strict=True))
            outcome = {"outcome": OUTCOMES[study % len(OUTCOMES)], "score": 0.5, "outputs": outputs}
            return kind, series | model | outcome
        case Event.DELIVERED:
            return kind, series | {"peer": DESTINATION, "instances": outputs}
        case Event.AUDIT_LOG_USED:
            return kind, {"command": "list", "filters": {"study": study_uid(study)}, "user": USERS[study % len(USERS)]}
        case _:
            return kind, series


def _associations(studies: int) -> Iterator[dict[str, Any]]:
    one = {"CalledAETitle": "DICOMNODE", "address": "10.0.0.1", "ended": "released", "n_stored": 0, "n_refused": 0}
    for number in range(studies):
        times = {"opened_at": START_S + number * PER_STUDY, "ended_at": START_S + (number + 1) * PER_STUDY}
        peer = peer_of(number)
        yield {"id": number + 1, "CallingAETitle": peer + "1", "peer": peer} | one | times


def _tables(series: int) -> dict[str, Iterator[dict[str, Any]]]:
    header = json.dumps({"Rows": [512], "Columns": [512], "InstanceNumber": [1], "ImageType": ["ORIGINAL", "PRIMARY"]})
    numbers = range(series)
    study = {"StudyDate": "", "StudyDescription": "", "created_at": 0.0}
    one = {"Modality": "CT", "SeriesDescription": "", "CallingAETitle": "CT1", "association_id": 1, "generation": 1}
    one |= {"incomplete": 0, "first_received_at": 0.0}
    image = {
        "SOPClassUID": "1.2",
        "TransferSyntaxUID": "1.2",
        "size": 1,
        "header": header,
        "generation": 1,
        "copies": 1,
    }
    given = {"generation": 1, "route": "ct", "detector": "ct-head", "send_to": '["pacs"]', "priority": 0, "reason": ""}
    made = {"kind": "sc", "SOPClassUID": "1.2", "SeriesInstanceUID": "1.2", "size": 1, "created_at": 0.0}
    return {
        "study": (
            {"id": n + 1, "StudyInstanceUID": study_uid(n), "PatientID": patient_id(n), "AccessionNumber": accession(n)}
            | study
            for n in numbers
        ),
        "series": (
            {"id": n + 1, "study_id": n + 1, "SeriesInstanceUID": f"{study_uid(n)}.1", "last_received_at": float(n)}
            | one
            | {"state": "open" if n % 1000 == 0 else "complete"}
            for n in numbers
        ),
        "instance": (
            {"series_id": n // 10 + 1, "SOPInstanceUID": image_uid(n // 10, n % 10), "sha256": f"{n:064}"}
            | image
            | {"path": f"received/{n}"}
            | {"association_id": 1, "received_at": float(n), "conflict": n % 10_000 == 0}
            for n in range(series * 10)
        ),
        "assignment": (
            {"id": n + 1, "series_id": n + 1, "created_at": 0.0}
            | given
            | {"outcome": "not analysed" if n % 10 == 0 else "no findings", "gate": "volume" if n % 10 == 0 else None}
            for n in numbers
        ),
        "derived": (
            {"id": n + 1, "assignment_id": n // 3 + 1, "SOPInstanceUID": f"{_UID}.8.{n}", "sha256": f"{n:064}"}
            | made
            | {"path": f"derived/{n}"}
            for n in range(series * 3)
        ),
        "delivery": (
            {"derived_id": n + 1, "destination": DESTINATION, "state": "delivered", "attempts": 1, "delivered_at": 1.0}
            | {"committed_at": None if n % 100 == 0 else 2.0}
            for n in range(series * 3)
        ),
    }


def _jobs(jobs: int) -> Iterator[dict[str, Any]]:
    ended = {"payload": "{}", "attempt": 1, "crashes": 0, "interruptions": 0, "not_before": 0.0}
    for number in range(jobs):
        kind, target = KINDS[number % len(KINDS)], number // len(KINDS) + 1
        state = "leased" if number % 2000 == 7 else "dead" if number % 2000 == 8 else "done"
        state = "ready" if number % 20 in (2, 3) and number % 40 < 20 else state
        payload = {"assignment_id": target, "destination": DESTINATION}
        row = {"kind": kind, "dedup_key": f"{target}:{DESTINATION}", "state": state, "priority": number % 3}
        row |= ended | {"payload": json.dumps(payload), "created_at": float(number), "error": ""}
        row |= {"error": "peer down"} if state == "ready" and number % 3 == 0 else {}
        yield row | {"lease_until": 1e12 if state == "leased" else None}


def _insert(connection: Any, name: str, rows: Iterator[dict[str, Any]]) -> None:
    first = next(rows, None)
    if first is None:
        return
    columns, marks = ", ".join(f'"{key}"' for key in first), ", ".join(f":{key}" for key in first)
    statement = f"INSERT INTO {name} ({columns}) VALUES ({marks})"
    connection.execute(statement, first)
    connection.executemany(statement, rows)


def measure_scale(work: Path, audit_rows: int, jobs: int, times: int, advance: Callable[[int], None]) -> Scale:
    """Fill a database in ``work`` and measure; every figure is of ``times`` calls.

    Raises RuntimeError when an answer is not the right one.
    """
    store = Store(f"sqlite:///{work / 'scale.sqlite3'}")
    try:
        rate, migration = fill(store, audit_rows, jobs, advance)
        studies = max(1, audit_rows // PER_STUDY)
        some = [number * 7919 % studies for number in range(times)]
        claimed, finished, looked, expired = _job_times(store, times)
        return Scale(
            audit_rows,
            jobs,
            jobs // len(KINDS) * 10,
            store.path.stat().st_size / 1e6,
            rate,
            migration,
            claimed,
            looked,
            expired,
            finished,
            {name: Times.of([_ask(store, ask(n)) for n in some]) for name, ask in QUESTIONS.items()},
            Times.of(list(_status_times(store, work, times))),
        )
    finally:
        store.close()


def _job_times(store: Store, times: int) -> tuple[Times, Times, Times, Times]:
    claiming, finishing, looking, expiring = [], [], [], []
    for _ in range(times):
        started = time.perf_counter()
        with store.write() as session:
            job = claim(session, ("detect",), "bench", 1e9, 60.0)
        claiming.append(time.perf_counter() - started)
        if job is None:
            raise RuntimeError("there was no job to claim")
        started = time.perf_counter()
        with store.write() as session:
            finish(session, job, 2.0)
        finishing.append(time.perf_counter() - started)
        started = time.perf_counter()
        with store.read() as session:
            waiting(session, ("count", "route", "status"), 1e9)
        looking.append(time.perf_counter() - started)
        started = time.perf_counter()
        with store.write() as session:
            expire(session, 1e9)
        expiring.append(time.perf_counter() - started)
    return Times.of(claiming), Times.of(finishing), Times.of(looking), Times.of(expiring)


def _at(number: int) -> str:
    return datetime.fromtimestamp(START_S + number * PER_STUDY, UTC).isoformat()


def _question(**asked: Callable[[int], Any]) -> Callable[[int], AuditFilter]:
    """The newest 200 rows for a study's number."""
    return lambda number: AuditFilter(limit=200, **{name: say(number) for name, say in asked.items()})


QUESTIONS: dict[str, Callable[[int], AuditFilter]] = {
    "study": _question(study=study_uid),
    "patient": _question(patient=patient_id),
    "accession number": _question(accession=accession),
    "series": _question(series=lambda n: f"{study_uid(n)}.1"),
    "received instance": _question(instance=lambda n: image_uid(n, n % 10)),
    "result instance": _question(instance=lambda n: f"{_UID}.8.{n * 3}"),
    "peer that sends half of all": _question(peer=lambda n: ("CT", "MR")[n % 2]),
    "peer that sends little": _question(peer=lambda _: "DX"),
    "destination": _question(peer=lambda _: DESTINATION),
    "model": _question(model=lambda n: model_of(n)[0]),
    "model of a version": _question(model=lambda n: "@".join(model_of(n)[:2])),
    "model by its weights": _question(model=lambda n: model_of(n)[2]),
    "outcome": _question(outcome=lambda n: OUTCOMES[n % len(OUTCOMES)]),
    "user": _question(user=lambda n: USERS[n % len(USERS)]),
    "event": _question(event=lambda n: ("inference", "instance stored", "delivered")[n % 3]),
    "time from … on": _question(since=_at),
    "time from … to …": _question(since=_at, until=lambda n: _at(n + 1)),
    "event in a time": _question(event=lambda _: "inference", since=_at, until=lambda n: _at(n + 1)),
    "peer in a time": _question(peer=peer_of, since=_at, until=lambda n: _at(n + 1)),
    "model, outcome and time": _question(
        model=lambda n: model_of(n)[0], outcome=lambda n: OUTCOMES[n % len(OUTCOMES)], since=_at
    ),
}
"""What auditors ask, by the filters of ``dicomnode audit list``."""


def _ask(store: Store, wanted: AuditFilter) -> float:
    started = time.perf_counter()
    with store.read() as session:
        rows = list(find(session, wanted))
    took = time.perf_counter() - started
    if not rows:
        raise RuntimeError("something of the log was not found")
    return took


def _status_times(store: Store, work: Path, times: int) -> Iterator[float]:
    config, _ = parse_config("", "bench")
    spool = Spool(work / "spool")
    for _ in range(max(3, times // 10)):
        started = time.perf_counter()
        read_status(config, store, spool, 1e9)
        yield time.perf_counter() - started


def section(found: Scale, machine: str) -> str:
    """The section of docs/benchmarks.md."""
    names = {
        "claim": "claim a job (a durable transaction)",
        "finish": "finish a job (a durable transaction)",
        "waiting": "is there a job? (an idle worker's question)",
        "expire": "give back what ran out (a durable transaction)",
        "status": "everything `dicomnode status` shows",
    }
    rows = []
    for name, words in names.items():
        times: Times = getattr(found, name)
        limit = f"{LIMITS_MS[name]:.0f} ms" if name in LIMITS_MS else ""
        rows.append(_line(words, times, limit))
    for name, times in found.questions.items():
        rows.append(_line(f"audit rows by {name} (the newest 200)", times, f"{QUESTION_MS:.0f} ms"))
    about = (
        f"Written by `make bench-scale`. {machine}. {found.audit_rows:,} audit rows, {found.jobs:,} jobs, "
        f"{found.instances:,} instances, {found.megabytes:,.0f} MB; audit rows were appended at {found.append_s:,.0f} "
        f"rows/s ({CHUNK:,} per transaction); adding the indexes to a database without them took "
        f"{found.migration_s:.0f} s. Limits are of the 95th percentile."
    )
    return f"## {TITLE}\n\n{about}\n\n{table(('what', 'p50', 'p95', 'greatest', 'limit'), rows)}"


def _line(words: str, times: Times, limit: str) -> tuple[str, ...]:
    return words, f"{times.p50_ms:.1f} ms", f"{times.p95_ms:.1f} ms", f"{times.max_ms:.1f} ms", limit


@click.command()
@click.option("--audit-rows", type=click.IntRange(1), default=1_000_000, show_default=True)
@click.option("--jobs", type=click.IntRange(200), default=100_000, show_default=True)
@click.option("--times", type=click.IntRange(3), default=300, show_default=True, help="Calls of each kind.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), default=DOCUMENT, help="The document.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def main(audit_rows: int, jobs: int, times: int, output: Path, as_json: bool) -> None:
    """Measure the database at scale and write the section in docs/benchmarks.md. Exit status 1 beyond a limit."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        tempfile.TemporaryDirectory(prefix="dicomnode-bench-") as folder,
        Progress(*columns, console=Console(stderr=True)) as bars,
    ):
        machine = look(Path(folder))
        filling = bars.add_task("audit rows", total=audit_rows)
        found = measure_scale(Path(folder), audit_rows, jobs, times, lambda count: bars.advance(filling, count))
    words = f"{machine.date}; {machine.cpu}, {machine.cores} cores, load average at the start {machine.load:.1f}"
    output.write_text(with_section(output.read_text(encoding="utf-8"), TITLE, section(found, words)), encoding="utf-8")
    if as_json:
        click.echo(json.dumps(asdict(found), indent=1))
    slow = [name for name, limit in LIMITS_MS.items() if getattr(found, name).p95_ms > limit]
    slow += [name for name, took in found.questions.items() if took.p95_ms > QUESTION_MS]
    for name in slow:
        click.echo(f"slower than its limit: {name}", err=True)
    raise SystemExit(1 if slow else 0)


if __name__ == "__main__":
    main()
