"""Studies in every state that retention may find them in: real rows, real files, no network."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.uid import generate_uid
from sqlalchemy import select

from dicomnode.config import Config
from dicomnode.jobs import Job, claim
from dicomnode.node.retention import DAY_S, RETENTION_JOB, ask_for_retention, keep_space
from dicomnode.store.engine import Store
from dicomnode.store.schema import migrate
from dicomnode.store.spool import Spool, digest
from dicomnode.store.tables import (
    AssignmentRow,
    AssociationRow,
    DeliveryRow,
    DerivedRow,
    InstanceRow,
    JobRow,
    SeriesRow,
    StudyRow,
)

NOW = 1_000_000_000.0
COMMITS, TAKES = "pacs", "viewer"
"""A peer that is asked for storage commitment, and one that is not."""


@dataclass(frozen=True)
class Sent:
    """One Derived Instance and how far it is on its way to one destination."""

    destination: str = COMMITS
    state: str = "delivered"
    committed: bool = True


@dataclass(frozen=True)
class Analysis:
    """One Assignment. ``job``: state of a job that names it, None for none."""

    outcome: str | None = "findings"
    send_to: tuple[str, ...] = (COMMITS,)
    objects: tuple[Sent, ...] = (Sent(), Sent())
    job: str | None = "done"


@dataclass(frozen=True)
class OneSeries:
    """One Series. ``generation``: of the Series; the ``analyses`` are of the first. ``job``: of its ``route`` job."""

    state: str = "complete"
    connected: bool = False
    generation: int = 1
    images: int = 2
    analyses: tuple[Analysis, ...] = field(default=(Analysis(),))
    job: str | None = "done"


@dataclass(frozen=True)
class OneStudy:
    """One Study; ``days``: since the last thing that happened to it."""

    days: float = 40.0
    series: tuple[OneSeries, ...] = field(default=(OneSeries(),))


@functools.cache
def empty_database() -> bytes:
    """A migrated database: migrating for every example would take longer than the example."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(f"sqlite:///{folder}/x.sqlite3")
        migrate(store)
        with store.engine.connect() as connection:
            connection.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        store.close()
        return store.path.read_bytes()


def settings(days: float | None = 30.0, reserve_bytes: int = 0) -> Config:
    """A configuration with retention and two peers; ``days`` None: age is no reason."""
    retention = {"reserve_bytes": reserve_bytes} | ({} if days is None else {"days": days})
    peers = [
        {"name": name, "ae_title": name.upper(), "host": "127.0.0.1", "port": 104, "commit": name == COMMITS}
        for name in (COMMITS, TAKES)
    ]
    return Config.model_validate({"retention": retention, "peer": peers})


class Ward:
    """A store and a spool."""

    def __init__(self, folder: Path, config: Config | None = None) -> None:
        (folder / "x.sqlite3").write_bytes(empty_database())
        self.store = Store(f"sqlite:///{folder}/x.sqlite3")
        self.spool = Spool(folder / "spool")
        self.config = config or settings()
        self.now = NOW

    def clock(self) -> float:
        return self.now

    def admit(self, spec: OneStudy) -> int:
        """Write a Study as ``spec`` says; returns its row's id."""
        at = self.now - spec.days * DAY_S
        with self.store.write() as session:
            study = StudyRow(StudyInstanceUID=generate_uid(), PatientID="P1", AccessionNumber="A1", created_at=at - 10)
            session.add(study)
            session.flush()
            for one in spec.series:
                association = AssociationRow(
                    CallingAETitle="CT1",
                    CalledAETitle="NODE",
                    address="127.0.0.1",
                    opened_at=at - 10,
                    ended="open" if one.connected else "released",
                )
                session.add(association)
                session.flush()
                series = SeriesRow(
                    study_id=study.id,
                    SeriesInstanceUID=generate_uid(),
                    CallingAETitle="CT1",
                    association_id=association.id,
                    state=one.state,
                    generation=one.generation,
                    first_received_at=at - 9,
                    last_received_at=at - 5,
                )
                session.add(series)
                session.flush()
                session.add_all(self._image(series.id, at) for _ in range(one.images))
                if one.job:
                    self._job(session, "route", {"series_id": series.id, "generation": one.generation}, one.job)
                for analysis in one.analyses:
                    self._analysis(session, series.id, analysis, at)
            return study.id

    def _image(self, series: int, at: float) -> InstanceRow:
        uid = generate_uid()
        content = uid.encode() * 50
        return InstanceRow(
            series_id=series,
            SOPInstanceUID=uid,
            SOPClassUID="1.2",
            TransferSyntaxUID="1.2.840.10008.1.2.1",
            sha256=digest(content),
            size=len(content),
            path=self._file("received", content),
            header={},
            generation=1,
            received_at=at - 5,
        )

    def _analysis(self, session, series: int, analysis: Analysis, at: float) -> None:
        row = AssignmentRow(
            series_id=series,
            generation=1,
            route=generate_uid(),
            detector="scripted",
            send_to=list(analysis.send_to),
            outcome=analysis.outcome,
            created_at=at - 4,
            finished_at=None if analysis.outcome is None else at - 3,
        )
        session.add(row)
        session.flush()
        for sent in analysis.objects:
            uid = generate_uid()
            content = uid.encode() * 50
            derived = DerivedRow(
                assignment_id=row.id,
                kind="sc",
                SOPInstanceUID=uid,
                SOPClassUID="1.2",
                SeriesInstanceUID="1.2.3",
                sha256=digest(content),
                size=len(content),
                path=self._file("derived", content),
                created_at=at - 3,
            )
            session.add(derived)
            session.flush()
            there = sent.state in ("delivered", "warning")
            session.add(
                DeliveryRow(
                    derived_id=derived.id,
                    destination=sent.destination,
                    state=sent.state,
                    delivered_at=at - 1 if there else None,
                    committed_at=at if there and sent.committed else None,
                )
            )
        if analysis.job:
            self._job(session, "detect", {"assignment_id": row.id}, analysis.job)

    def _file(self, area: str, content: bytes) -> str:
        """A file of the spool that nobody waits for to be durable."""
        name = digest(content)
        path = f"{area}/{name[:2]}/{name}.dcm"
        self.spool.absolute(path).parent.mkdir(parents=True, exist_ok=True)
        self.spool.absolute(path).write_bytes(content)
        return path

    def _job(self, session, kind: str, payload: dict[str, int], state: str) -> None:
        key = ":".join(str(value) for value in payload.values())
        row = JobRow(kind=kind, dedup_key=key, payload=payload, state=state, created_at=1.0)
        if state == "leased":
            row.lease_owner, row.lease_until, row.lease_token = "w", self.now + 60, "t"
        session.add(row)

    def claimed(self) -> Job:
        """The ``retention`` job, as its worker holds it."""
        ask_for_retention(self.store, self.now)
        with self.store.write() as session:
            job = claim(session, (RETENTION_JOB,), "flow-1", self.now, 60.0)
        assert job is not None
        return job

    def run(self) -> int:
        """What a worker does with the ``retention`` job; returns how many Studies went."""
        return keep_space(self.store, self.spool, self.config, self.claimed(), self.clock)

    def files(self, study: int) -> list[Path]:
        """The files of a Study that its rows name."""
        images = select(InstanceRow.path).join(SeriesRow, SeriesRow.id == InstanceRow.series_id)
        made = (
            select(DerivedRow.path)
            .join(AssignmentRow, AssignmentRow.id == DerivedRow.assignment_id)
            .join(SeriesRow, SeriesRow.id == AssignmentRow.series_id)
        )
        with self.store.read() as session:
            return [
                self.spool.absolute(path)
                for query in (images, made)
                for path in session.scalars(query.where(SeriesRow.study_id == study))
                if path
            ]

    def on_disk(self) -> set[Path]:
        """Every finished file of the spool."""
        return {path for area in ("received", "derived") for path in (self.spool.root / area).rglob("*.dcm")}

    def rows(self, kind: type) -> list:
        with self.store.read() as session:
            return list(session.scalars(select(kind)))
