"""Results of detectors outside that came back by C-STORE: given to their patient, stored, and on their way (D24)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

import dicomnode
from dicomnode.audit import append
from dicomnode.audit.events import Event
from dicomnode.config import Config
from dicomnode.deid.errands import REMOTE_JOB
from dicomnode.deid.refusal import Quarantined, Reason
from dicomnode.deid.reidentify import Reidentifier
from dicomnode.deid.returning import Returned, Returner, reader_of
from dicomnode.deid.vault import Vault
from dicomnode.deliver.leaving import Image, images_of
from dicomnode.deliver.ledger import subject
from dicomnode.detect.case import read_case
from dicomnode.detect.outcome import StoredObject, enqueue_delivery, outputs, replace_derived
from dicomnode.detect.reader import Reader
from dicomnode.detectors.contract import Outcome
from dicomnode.errors import Permanent
from dicomnode.jobs import Heartbeat, Job, finish, hold, wake
from dicomnode.node.originals import SpoolOriginals
from dicomnode.sandbox import SandboxLimits
from dicomnode.store.engine import Store
from dicomnode.store.spool import Spool, digest
from dicomnode.store.tables import AssignmentRow, DerivedRow, SeriesRow, StudyRow

_ROOT = "1.2.840.10008.5.1.4.1.1."
_KINDS = {"88.59": "ko", "66.4": "seg", "30": "pm", "104.1": "pdf"}
_DOCUMENTS = "88."


class ReturnErrand:
    """``return`` jobs: one Series that a detector outside has sent."""

    def __init__(
        self, config: Config, store: Store, spool: Spool, vault: Vault, reader: Reader, clock: Callable[[], float]
    ) -> None:
        self._config, self._store, self._spool, self._vault = config, store, spool, vault
        memory_bytes = config.detect.reader_memory_mb << 20
        limits = SandboxLimits(memory_bytes, config.detect.reader_cpu_s, config.detect.reader_wall_s)
        self._returner = Returner(Reidentifier(vault, SpoolOriginals(store, spool, reader)), limits)
        self._clock = clock

    def do(self, job: Job, heart: Heartbeat) -> None:  # noqa: ARG002
        """See ``Errand``. What is held back stays in the spool as it came, and the job becomes a dead letter."""
        peer = str(job.payload["peer"])
        with self._store.read() as session:
            images = images_of(session, self._spool, int(job.payload["series_id"]))
        tell = reader_of(self._vault, self._store, {"peer": peer, "job": job.id, "purpose": "a result came back"})
        found: dict[int, list[Returned]] = {}
        held: list[tuple[Image, str]] = []
        for image in images:
            try:
                returned = self._returner.give_back(image.path, tell)
                found.setdefault(self._asked_by(peer, returned), []).append(returned)
            except Quarantined as refusal:
                held.append((image, str(refusal)))
        self._write(job, peer, found, held)
        if held:
            reasons = "; ".join(sorted({reason for _, reason in held}))
            raise Permanent(f"{len(held)} of {len(images)} results of {peer} held back: {reasons}")
        with self._store.write() as session:
            finish(session, job, self._clock())

    def given_up(self, session: Session, job: Job, reason: str, now: float) -> dict[str, Any]:  # noqa: ARG002
        """See ``Errand``. The Assignment that waits for the result fails when its time is over."""
        return {"peer": job.payload["peer"], "series": int(job.payload["series_id"])}

    def _asked_by(self, peer: str, returned: Returned) -> int:
        """The Assignment whose Series the result speaks of. Raises Quarantined when this peer was never asked."""
        names = [remote.name for remote in self._config.deid.remote if remote.peer == peer]
        query = (
            select(AssignmentRow.id, SeriesRow.SeriesInstanceUID, AssignmentRow.outcome)
            .join(SeriesRow, SeriesRow.id == AssignmentRow.series_id)
            .join(StudyRow, StudyRow.id == SeriesRow.study_id)
            .where(StudyRow.StudyInstanceUID == returned.StudyInstanceUID, AssignmentRow.route.in_(names))
            .order_by(AssignmentRow.id.desc())
        )
        with self._store.read() as session:
            rows = session.execute(query).all()
        if not rows:
            raise Quarantined(Reason.UNKNOWN_PSEUDONYM, f"{peer} was never asked about its Study")
        spoken_of = [row for row in rows if row.SeriesInstanceUID in returned.originals]
        pending = [row for row in rows if row.outcome is None]
        return int((spoken_of or pending or rows)[0].id)

    def _write(
        self, job: Job, peer: str, found: Mapping[int, Sequence[Returned]], held: Sequence[tuple[Image, str]]
    ) -> None:
        """What is new goes on its way; what an earlier attempt or generation has brought already is there."""
        with self._store.read() as session:
            new = {key: _new(session, returned) for key, returned in found.items()}
        stored = {key: [self._stored(one) for one in returned] for key, returned in new.items()}
        now = self._clock()
        with self._store.write() as session:
            hold(session, job)
            for assignment_id, objects in stored.items():
                if objects:
                    self._deliver(session, job, peer, assignment_id, objects, now)
                    facts = {**subject(session, assignment_id), "peer": peer, "job": job.id}
                    lines = [one.line for one in new[assignment_id]]
                    append(session, Event.RE_IDENTIFICATION, {**facts, "instances": lines})
                    self._provenance(session, assignment_id, objects, now)
            if held:
                kept = [{"SOPInstanceUID": image.SOPInstanceUID, "reason": reason} for image, reason in held]
                append(session, Event.QUARANTINE, {"peer": peer, "job": job.id, "instances": kept})

    def _deliver(
        self, session: Session, job: Job, peer: str, assignment_id: int, objects: Sequence[StoredObject], now: float
    ) -> None:
        row = session.get_one(AssignmentRow, assignment_id)
        derived = replace_derived(session, row, objects, now)
        for destination in row.send_to:
            key = f"return {job.payload['series_id']}:{job.payload['generation']}"
            enqueue_delivery(session, row, destination, derived, now, of=key)
        if row.outcome not in (Outcome.FINDINGS.value, Outcome.NO_FINDINGS.value):
            row.outcome, row.finished_at = Outcome.FINDINGS.value, now
            row.reason = f"{len(objects)} objects came from {peer}; what they say is not interpreted here"
        wake(session, REMOTE_JOB, str(assignment_id), now)

    def _stored(self, returned: Returned) -> StoredObject:
        """Durable in the spool. Raises Transient when the disk fails."""
        return StoredObject(
            kind_of(returned.SOPClassUID),
            returned.SOPInstanceUID,
            returned.SOPClassUID,
            returned.SeriesInstanceUID,
            returned.SeriesNumber,
            returned.after,
            len(returned.content),
            self._spool.store((returned.content,), "derived", digest(returned.SOPInstanceUID.encode())[:40] + ".dcm"),
        )

    def _provenance(self, session: Session, assignment_id: int, objects: Sequence[StoredObject], now: float) -> None:
        """Who was asked about which Instances, and what came of it (trust A1): the model is the peer's own affair."""
        case = read_case(session, self._spool, assignment_id)
        row = case.assignment
        facts: dict[str, Any] = {**case.subject, "route": row.route, "detector": row.detector, "outcome": row.outcome}
        facts |= {"software_version": dicomnode.__version__, "started_at": row.started_at, "finished_at": now}
        sources = [{"SOPInstanceUID": uid, "sha256": sha256} for uid, sha256 in case.digests.items()]
        append(session, Event.INFERENCE, {**facts, "sources": sources, "outputs": outputs(objects)})


def _new(session: Session, returned: Sequence[Returned]) -> list[Returned]:
    uids = {one.SOPInstanceUID: one for one in returned}
    known = set(session.scalars(select(DerivedRow.SOPInstanceUID).where(DerivedRow.SOPInstanceUID.in_(uids))))
    return [one for uid, one in uids.items() if uid not in known]


def kind_of(sop_class: str) -> str:
    """The kind (``config.results``) that an object of another maker counts as."""
    suffix = sop_class.removeprefix(_ROOT)
    if suffix in _KINDS:
        return _KINDS[suffix]
    return "sr" if suffix.startswith(_DOCUMENTS) else "sc"
