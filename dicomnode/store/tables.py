"""The rows. DICOM values keep the DICOM keyword as column name; times are seconds since the epoch (UTC)."""

from __future__ import annotations

from typing import Any

from sqlalchemy import DDL, JSON, ForeignKey, Index, LargeBinary, MetaData, String, Text, UniqueConstraint, event, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dicomnode.store.audit_sql import (
    ARCHIVE_TRIGGERS,
    PEER_INDEXES,
    PEER_SQL,
    RARE,
    SUBJECTS,
    TRIGGERS,
    holds_sql,
    subject_sql,
    value_sql,
)

AGEING_S = 300
"""Waiting so long lifts a job by one priority, so that routine work cannot starve behind urgent work."""
URGENCY_SQL = f"priority - created_at / {AGEING_S}.0"
"""How urgent a job is. It ages by order, not by the clock, so an index can hold it; changing it needs a migration."""
_MOST_URGENT = text(f"({URGENCY_SQL}) DESC")
READY_SQL = "state = 'ready'"
RETRYING_SQL = "error != '' AND finished_at IS NULL"


class Row(DeclarativeBase):
    """Root of all rows."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class ProcessRow(Row):
    """One process of the node: ``owner`` is its lease name, ``role`` receive, work, deliver or console."""

    __tablename__ = "process"

    owner: Mapped[str] = mapped_column(String(100), primary_key=True)
    role: Mapped[str] = mapped_column(String(20))
    pid: Mapped[int]
    started_at: Mapped[float]
    heartbeat_at: Mapped[float]
    stopped_at: Mapped[float | None]


class AssociationRow(Row):
    """One inbound Association. ``ended``: open, released, aborted, or lost (the node stopped in the middle).

    ``owner``: the process of the node that holds it, by its name in ``process``.
    """

    __tablename__ = "association"

    id: Mapped[int] = mapped_column(primary_key=True)
    CallingAETitle: Mapped[str] = mapped_column(String(16))
    CalledAETitle: Mapped[str] = mapped_column(String(16))
    address: Mapped[str] = mapped_column(String(64))
    peer: Mapped[str | None] = mapped_column(String(64))
    opened_at: Mapped[float]
    ended_at: Mapped[float | None]
    ended: Mapped[str] = mapped_column(String(10), default="open", index=True)
    n_stored: Mapped[int] = mapped_column(default=0)
    n_refused: Mapped[int] = mapped_column(default=0)
    owner: Mapped[str] = mapped_column(String(100), default="", server_default="")


class StudyRow(Row):
    """One Study of one Patient. ``deleted_at``: when retention last removed its images."""

    __tablename__ = "study"

    id: Mapped[int] = mapped_column(primary_key=True)
    StudyInstanceUID: Mapped[str] = mapped_column(String(64), unique=True)
    PatientID: Mapped[str] = mapped_column(String(64), default="", index=True)
    AccessionNumber: Mapped[str] = mapped_column(String(16), default="", index=True)
    StudyDate: Mapped[str] = mapped_column(String(8), default="")
    StudyDescription: Mapped[str] = mapped_column(String(64), default="")
    created_at: Mapped[float]
    deleted_at: Mapped[float | None]


class SeriesRow(Row):
    """One Series and its generation. ``state``: open (collecting) or complete; ``complete_by``: the evidence.

    ``n_expected``: Instances that the sender says the Series has (C-FIND), asked at ``asked_at``.
    """

    __tablename__ = "series"
    __table_args__ = (
        UniqueConstraint("study_id", "SeriesInstanceUID"),
        Index(None, "state", "last_received_at"),
        Index(None, "CallingAETitle", "asked_at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"), index=True)
    SeriesInstanceUID: Mapped[str] = mapped_column(String(64), index=True)
    Modality: Mapped[str] = mapped_column(String(16), default="")
    SeriesDescription: Mapped[str] = mapped_column(String(64), default="")
    CallingAETitle: Mapped[str] = mapped_column(String(16))
    association_id: Mapped[int | None] = mapped_column(ForeignKey("association.id"), index=True)
    generation: Mapped[int] = mapped_column(default=1)
    state: Mapped[str] = mapped_column(String(10), default="open")
    complete_by: Mapped[str | None] = mapped_column(String(200))
    incomplete: Mapped[bool] = mapped_column(default=False)
    first_received_at: Mapped[float]
    last_received_at: Mapped[float] = mapped_column(index=True)
    n_expected: Mapped[int | None]
    asked_at: Mapped[float | None]
    completed_at: Mapped[float | None]


class InstanceRow(Row):
    """One received Instance. ``sha256`` is of the data set's bytes; ``path`` is relative to the spool.

    ``conflict``: the same SOP Instance UID came before with other bytes; kept, shown, never analysed.
    ``generation``: the generation of its Series that it arrived in. ``header``: keyword to list of values.
    """

    __tablename__ = "instance"
    __table_args__ = (
        UniqueConstraint("SOPInstanceUID", "sha256"),
        Index(None, "series_id", "generation"),
        Index("ix_instance_conflict", "id", sqlite_where=text("conflict = 1")),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"))
    association_id: Mapped[int | None] = mapped_column(ForeignKey("association.id"), index=True)
    SOPInstanceUID: Mapped[str] = mapped_column(String(64))
    SOPClassUID: Mapped[str] = mapped_column(String(64))
    TransferSyntaxUID: Mapped[str] = mapped_column(String(64))
    sha256: Mapped[str] = mapped_column(String(64))
    size: Mapped[int]
    path: Mapped[str] = mapped_column(String(200))
    header: Mapped[dict[str, list[Any]]] = mapped_column(JSON)
    generation: Mapped[int]
    received_at: Mapped[float]
    copies: Mapped[int] = mapped_column(default=1)
    conflict: Mapped[bool] = mapped_column(default=False)


class AssignmentRow(Row):
    """One Series generation given to one detector by one route, and how it ended.

    ``detector`` is None when no route took the Series. ``outcome``: None while pending, else findings,
    no findings, not analysed, failed. ``gate``: what refused a Series that a route took: volume, detector or
    acquisition.
    """

    __tablename__ = "assignment"
    __table_args__ = (UniqueConstraint("series_id", "generation", "route"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"), index=True)
    generation: Mapped[int]
    route: Mapped[str] = mapped_column(String(100))
    detector: Mapped[str | None] = mapped_column(String(100))
    model: Mapped[str | None] = mapped_column(String(100))
    model_version: Mapped[str | None] = mapped_column(String(40))
    weights_sha256: Mapped[str | None] = mapped_column(String(64))
    send_to: Mapped[list[str]] = mapped_column(JSON)
    priority: Mapped[int] = mapped_column(default=0)
    outcome: Mapped[str | None] = mapped_column(String(20), index=True)
    reason: Mapped[str] = mapped_column(Text, default="")
    score: Mapped[float | None]
    threshold: Mapped[float | None]
    created_at: Mapped[float]
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]
    gate: Mapped[str | None] = mapped_column(String(20))


class StagesRow(Row):
    """How long each stage of an Assignment took, in seconds; see ``dicomnode.store.stages``.

    ``received_at``: when the last Instance came. ``deliver`` and ``total``: to the last destination.
    """

    __tablename__ = "stages"

    assignment_id: Mapped[int] = mapped_column(ForeignKey("assignment.id", ondelete="CASCADE"), primary_key=True)
    received_at: Mapped[float]
    complete: Mapped[float | None]
    route: Mapped[float | None]
    wait: Mapped[float | None]
    load: Mapped[float | None]
    inference: Mapped[float | None]
    report: Mapped[float | None]
    deliver: Mapped[float | None]
    total: Mapped[float | None]


class StageHistogramRow(Row):
    """All times of one stage ever: ``n`` of them, ``seconds`` together; ``buckets``: how many up to each bound."""

    __tablename__ = "stage_histogram"

    stage: Mapped[str] = mapped_column(String(20), primary_key=True)
    n: Mapped[int]
    seconds: Mapped[float]
    buckets: Mapped[list[int]] = mapped_column(JSON)


class DerivedRow(Row):
    """One Derived Instance of ours: its ``kind`` (``config.results``), its file in the spool and its digest.

    ``path``: empty when retention has removed the file; the row stays, for the results that refer to it.
    """

    __tablename__ = "derived"

    id: Mapped[int] = mapped_column(primary_key=True)
    assignment_id: Mapped[int] = mapped_column(ForeignKey("assignment.id"), index=True)
    kind: Mapped[str] = mapped_column(String(10))
    SOPInstanceUID: Mapped[str] = mapped_column(String(64), unique=True)
    SOPClassUID: Mapped[str] = mapped_column(String(64))
    SeriesInstanceUID: Mapped[str] = mapped_column(String(64))
    sha256: Mapped[str] = mapped_column(String(64))
    size: Mapped[int]
    path: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[float]
    SeriesNumber: Mapped[int | None]


class DeliveryRow(Row):
    """One Derived Instance to one Destination. ``state``: waiting, delivered, warning, failed, replaced or quarantine.

    ``replaced``: the Destination takes no such object; another kind carries the result. ``quarantine``: it cannot be
    de-identified and must not leave. ``committed_at``: when the Destination took responsibility for it (storage
    commitment).
    """

    __tablename__ = "delivery"
    __table_args__ = (
        UniqueConstraint("derived_id", "destination"),
        Index(None, "destination", "state", "committed_at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    derived_id: Mapped[int] = mapped_column(ForeignKey("derived.id"))
    destination: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(10), default="waiting")
    status: Mapped[int | None]
    attempts: Mapped[int] = mapped_column(default=0)
    delivered_at: Mapped[float | None]
    committed_at: Mapped[float | None]


class CommitmentRow(Row):
    """One storage commitment transaction (PS3.4 annex J) about Derived Instances of one Assignment at one Destination.

    ``instances``: the SOP Instance UIDs asked about. ``state``: requested, answered, settled or expired. ``report``:
    the answer, SOP Instance UID to failure reason, 0 for committed; None until it comes.
    """

    __tablename__ = "commitment"

    id: Mapped[int] = mapped_column(primary_key=True)
    TransactionUID: Mapped[str] = mapped_column(String(64), unique=True)
    assignment_id: Mapped[int] = mapped_column(ForeignKey("assignment.id"), index=True)
    destination: Mapped[str] = mapped_column(String(64))
    instances: Mapped[list[str]] = mapped_column(JSON)
    state: Mapped[str] = mapped_column(String(10), default="requested", index=True)
    report: Mapped[dict[str, int] | None] = mapped_column(JSON)
    requested_at: Mapped[float]
    expires_at: Mapped[float]
    answered_at: Mapped[float | None]


class JobRow(Row):
    """A durable job; see ``dicomnode.jobs``. What is done costs nothing: ``state`` bounds every other index."""

    __tablename__ = "job"
    __table_args__ = (
        UniqueConstraint("kind", "dedup_key"),
        Index(None, "state", "kind", "not_before"),
        Index("ix_job_claim", "kind", _MOST_URGENT, "id", "not_before", "created_at", sqlite_where=text(READY_SQL)),
        Index("ix_job_retrying", "id", sqlite_where=text(RETRYING_SQL)),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))
    dedup_key: Mapped[str] = mapped_column(String(200))
    payload: Mapped[dict[str, Any]] = mapped_column(JSON)
    state: Mapped[str] = mapped_column(String(10), default="ready")
    priority: Mapped[int] = mapped_column(default=0)
    attempt: Mapped[int] = mapped_column(default=0)
    crashes: Mapped[int] = mapped_column(default=0)
    interruptions: Mapped[int] = mapped_column(default=0)
    not_before: Mapped[float] = mapped_column(default=0.0)
    lease_owner: Mapped[str | None] = mapped_column(String(100))
    lease_until: Mapped[float | None]
    lease_token: Mapped[str | None] = mapped_column(String(32))
    error: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[float]
    finished_at: Mapped[float | None]


class ObservationRow(Row):
    """What one analysis adds to the watch on drift. No patient data and no free text: hashes, scores, a histogram.

    ``stratum``: hash of sender, scanner, protocol, detector and weights. ``scanner``: hash of manufacturer and model,
    ``protocol``: hash of modality, body part and protocol name or description. ``histogram``: shares of intensities.
    """

    __tablename__ = "observation"
    __table_args__ = (Index(None, "stratum", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    assignment_id: Mapped[int] = mapped_column(ForeignKey("assignment.id"), unique=True)
    stratum: Mapped[str] = mapped_column(String(16))
    CallingAETitle: Mapped[str] = mapped_column(String(16))
    scanner: Mapped[str] = mapped_column(String(16))
    protocol: Mapped[str] = mapped_column(String(16))
    detector: Mapped[str] = mapped_column(String(100))
    weights_sha256: Mapped[str] = mapped_column(String(64))
    score: Mapped[float]
    acquisition: Mapped[float | None]
    histogram: Mapped[list[float]] = mapped_column(JSON)
    observed_at: Mapped[float]


class DriftRow(Row):
    """What the watch on drift last said of one stratum. ``judged_to``: the last observation of a finished window.

    ``looked_to``: the last observation that was looked at. ``alarms``: measure to its words, empty when all is well;
    ``figures``: the numbers behind them, of the window that was looked at last.
    """

    __tablename__ = "drift"

    stratum: Mapped[str] = mapped_column(String(16), primary_key=True)
    judged_to: Mapped[int]
    looked_to: Mapped[int]
    looked_at: Mapped[float]
    alarms: Mapped[dict[str, str]] = mapped_column(JSON)
    alarmed_at: Mapped[float | None]
    figures: Mapped[dict[str, Any]] = mapped_column(JSON)


class RemovalRow(Row):
    """A spool file that no row needs any more: written with the deletion of its row, gone when the file is gone."""

    __tablename__ = "removal"

    path: Mapped[str] = mapped_column(String(200), primary_key=True)
    decided_at: Mapped[float]


class ClockRow(Row):
    """The clock of the node that runs now; see ``dicomnode.store.clock``. One row, ``id`` 1."""

    __tablename__ = "clock"

    id: Mapped[int] = mapped_column(primary_key=True)
    epoch: Mapped[float]
    since: Mapped[float]
    boot: Mapped[str] = mapped_column(String(40))


class AuditRow(Row):
    """One link of the audit chain; see ``dicomnode.audit``. Append-only by triggers."""

    __tablename__ = "audit"
    __table_args__ = (
        *(Index(name, text(subject_sql(keyword))) for keyword, name in SUBJECTS.items()),
        *(Index(name, text(value_sql(key)), sqlite_where=text(holds_sql(key))) for key, name in RARE.items()),
        *(Index(name, text(PEER_SQL), sqlite_where=text(rows)) for name, rows in PEER_INDEXES.items()),
    )

    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    ts: Mapped[str] = mapped_column(Text, index=True)
    kind: Mapped[str] = mapped_column(Text, index=True)
    body: Mapped[str] = mapped_column(Text)
    prev: Mapped[bytes] = mapped_column(LargeBinary)
    hash: Mapped[bytes] = mapped_column(LargeBinary, unique=True)


class AuditArchiveRow(Row):
    """Where an archived part of the audit chain ends: its last row, which the row behind it continues.

    Append-only by triggers. ``manifest_sha256``: of the archive that holds the rows up to ``seq``.
    """

    __tablename__ = "audit_archive"

    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    hash: Mapped[bytes] = mapped_column(LargeBinary)
    archived_at: Mapped[str] = mapped_column(Text)
    manifest_sha256: Mapped[str] = mapped_column(String(64))


class AuditShippedRow(Row):
    """How far the copy of the log at an audit record repository reaches. ``place``: its host and port.

    ``failed_since``: seconds since the epoch, None while it is reached; ``alerted``: the outage was recorded.
    """

    __tablename__ = "audit_shipped"

    place: Mapped[str] = mapped_column(String(300), primary_key=True)
    seq: Mapped[int] = mapped_column(default=0)
    shipped_at: Mapped[float | None]
    failed_since: Mapped[float | None]
    alerted: Mapped[bool] = mapped_column(default=False)
    error: Mapped[str] = mapped_column(Text, default="")


for _table, _triggers in ((AuditRow.__table__, TRIGGERS), (AuditArchiveRow.__table__, ARCHIVE_TRIGGERS)):
    for _sql in _triggers.values():
        event.listen(_table, "after_create", DDL(_sql.replace("%", "%%")))  # type: ignore[no-untyped-call]
