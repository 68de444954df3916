"""Fake archives on loopback (real pynetdicom), small DICOM files, and a database with results to deliver."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydicom import Dataset, FileDataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit, generate_uid
from pynetdicom import evt
from sqlalchemy import select

from dicomnode.config import Config, Destination, Peer
from dicomnode.dicom.requestor import Acceptor
from dicomnode.jobs import enqueue
from dicomnode.store.engine import Store
from dicomnode.store.schema import migrate
from dicomnode.store.spool import Spool
from dicomnode.store.tables import (
    AssignmentRow,
    AuditRow,
    DeliveryRow,
    DerivedRow,
    JobRow,
    SeriesRow,
    StudyRow,
)

SC = "1.2.840.10008.5.1.4.1.1.7"
SR = "1.2.840.10008.5.1.4.1.1.88.34"
CLASS_OF = {
    "sc": SC,
    "mf-sc": "1.2.840.10008.5.1.4.1.1.7.4",
    "seg": "1.2.840.10008.5.1.4.1.1.66.4",
    "pm": "1.2.840.10008.5.1.4.1.1.30",
    "gsps": "1.2.840.10008.5.1.4.1.1.11.1",
    "ko": "1.2.840.10008.5.1.4.1.1.88.59",
    "sr": SR,
    "sr-volume": SR,
    "pdf": "1.2.840.10008.5.1.4.1.1.104.1",
    "page": SC,
}
"""The SOP Class of every kind of result."""
VERIFICATION = "1.2.840.10008.1.1"
PLAIN = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)

Answer = Callable[[int, str, Any], int]


class FakePacs:
    """An archive whose answers a test chooses.

    ``answer(n, SOPInstanceUID, association)``: the status of the n-th C-STORE (from 1); it may abort or wait.
    """

    def __init__(
        self,
        answer: Answer = lambda *_: 0x0000,
        *,
        classes: Sequence[str] = (SC, SR),
        syntaxes: Sequence[str] = PLAIN,
        title: str = "PACS",
        port: int = 0,
        tls: Any = None,
        handlers: Sequence[Any] = (),
    ) -> None:
        self.answer, self.title = answer, title
        self.received: list[tuple[str, str, bytes]] = []
        self.associations = 0
        self._entity = Acceptor(ae_title=title)
        self._entity.require_called_aet = True
        self._entity.add_supported_context(VERIFICATION)
        for sop_class in classes:
            self._entity.add_supported_context(sop_class, list(syntaxes))
        self._port, self._tls, self._handlers = port, tls, handlers

    def __enter__(self) -> FakePacs:
        handlers = [(evt.EVT_C_STORE, self._store), (evt.EVT_ACCEPTED, self._count), *self._handlers]
        address = ("127.0.0.1", self._port)
        self._server = self._entity.start_server(address, block=False, evt_handlers=handlers, ssl_context=self._tls)
        self.port = self._server.server_address[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._entity.shutdown()

    @property
    def uids(self) -> list[str]:
        """SOP Instance UIDs in the order of their C-STORE."""
        return [uid for uid, _, _ in self.received]

    def peer(self, name: str = "pacs", **changes: Any) -> Peer:
        """This archive as a configured peer."""
        values = {"name": name, "ae_title": self.title, "host": "127.0.0.1", "port": self.port, **changes}
        return Peer.model_validate(values)

    def _count(self, _: Any) -> None:
        self.associations += 1

    def _store(self, event: Any) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        self.received.append((uid, str(event.context.transfer_syntax), event.request.DataSet.getvalue()))
        return self.answer(len(self.received), uid, event.assoc)


@contextmanager
def nobody_at() -> Iterator[int]:
    """A port on which nobody listens, and nobody else can meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def aborting(at: int) -> Answer:
    """Answers Success, but aborts the Association inside the ``at``-th C-STORE."""

    def answer(number: int, _: str, association: Any) -> int:
        if number == at:
            association.abort()
        return 0x0000

    return answer


def hanging(at: int, release: threading.Event) -> Answer:
    """Answers Success, but the ``at``-th C-STORE only when ``release`` is set."""

    def answer(number: int, *_: Any) -> int:
        if number == at:
            release.wait(120)
        return 0x0000

    return answer


def make_file(
    path: Path,
    *,
    sop_class: str = SC,
    syntax: str = ExplicitVRLittleEndian,
    study: str | None = None,
    pixels: int = 64,
    meta_instance: str | None = None,
) -> Dataset:
    """Write a small DICOM file and return its data set; ``pixels`` bytes of pixel data."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study or generate_uid(), generate_uid()
    dataset.PatientName, dataset.PatientID, dataset.Modality = (
        "Sentinel^Secret",
        "P1",
        "SR" if sop_class == SR else "OT",
    )
    dataset.PatientBirthDate = dataset.PatientSex = dataset.AccessionNumber = dataset.StudyID = ""
    dataset.StudyDate = dataset.StudyTime = dataset.ReferringPhysicianName = ""
    dataset.SeriesNumber = dataset.InstanceNumber = 1
    if sop_class == SC:
        dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = pixels // 64, 64, 1
        dataset.BitsAllocated = dataset.BitsStored = 8
        dataset.HighBit, dataset.PixelRepresentation, dataset.PhotometricInterpretation = 7, 0, "MONOCHROME2"
        dataset.PixelData = _pixel_data(syntax, pixels)
        dataset["PixelData"].VR = "OB"
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = meta_instance or dataset.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    file = FileDataset(path, dataset, file_meta=meta, preamble=b"\0" * 128)
    path.parent.mkdir(parents=True, exist_ok=True)
    dcmwrite(path, file, enforce_file_format=meta_instance is None)
    return file


def _pixel_data(syntax: str, count: int) -> bytes:
    if syntax != JPEGBaseline8Bit:
        return bytes(index % 251 for index in range(251)) * (count // 251 + 1) if count > 10_000 else bytes(count)
    item = b"\xfe\xff\x00\xe0"
    return item + b"\0\0\0\0" + item + b"\x04\0\0\0" + b"\xff\xd8\xff\xd9"


def body_of(path: Path) -> bytes:
    """The data set's bytes of a DICOM file."""
    from dicomnode.dicom.header import part10_offset

    content = path.read_bytes()
    return content[part10_offset(content)[1] :]


class Outbox:
    """A migrated database and a spool with results that wait for Destinations."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(f"sqlite:///{folder}/x.sqlite3")
        migrate(self.store)
        self.spool = Spool(folder / "spool")
        self._folder = folder
        self.now = 1_000_000.0

    def clock(self) -> float:
        return self.now

    def add_study(self) -> int:
        """A Study with one Series; returns the SeriesRow's id."""
        with self.store.write() as session:
            study = StudyRow(StudyInstanceUID=generate_uid(), PatientID="P1", AccessionNumber="A1", created_at=self.now)
            session.add(study)
            session.flush()
            series = SeriesRow(study_id=study.id, SeriesInstanceUID=generate_uid(), CallingAETitle="SCANNER")
            series.first_received_at = series.last_received_at = self.now
            session.add(series)
            session.flush()
            return series.id

    def add_result(
        self,
        series: int,
        *destinations: str,
        kinds: Sequence[str] = ("sc", "sc", "sr"),
        standby: Sequence[str] = (),
        generation: int = 1,
        pixels: int = 64,
    ) -> int:
        """Derived Instances of a new Assignment for ``destinations``, each with jobs; returns the Assignment's id.

        ``standby``: kinds that are made too, to stand in for others, and wait for nobody.
        """
        with self.store.write() as session:
            row = AssignmentRow(series_id=series, generation=generation, route=generate_uid(), send_to=[*destinations])
            row.created_at = self.now
            session.add(row)
            session.flush()
            for kind in (*kinds, *standby):
                derived = self._derived(row.id, kind, pixels)
                session.add(derived)
                session.flush()
                if kind in kinds:
                    session.add_all(DeliveryRow(derived_id=derived.id, destination=name) for name in destinations)
            for name in destinations:
                payload = {"assignment_id": row.id, "destination": name}
                enqueue(session, "deliver", f"{row.id}:{name}", payload, self.now)
            return row.id

    def _derived(self, assignment: int, kind: str, pixels: int) -> DerivedRow:
        path = self._folder / "made.dcm"
        dataset = make_file(path, sop_class=CLASS_OF[kind], pixels=pixels)
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        return DerivedRow(
            assignment_id=assignment,
            kind=kind,
            SOPInstanceUID=str(dataset.SOPInstanceUID),
            SOPClassUID=str(dataset.SOPClassUID),
            SeriesInstanceUID=str(dataset.SeriesInstanceUID),
            sha256=digest,
            size=len(content),
            path=self.spool.store((content,), "derived", digest),
            created_at=self.now,
        )

    def states(self, destination: str = "pacs") -> list[str]:
        """The state of every delivery to ``destination``, in the order they were made."""
        query = select(DeliveryRow.state).where(DeliveryRow.destination == destination).order_by(DeliveryRow.id)
        with self.store.read() as session:
            return list(session.scalars(query))

    def states_by_kind(self, destination: str = "pacs") -> dict[str, list[str]]:
        """The states of the deliveries to ``destination``, by kind of result."""
        query = select(DerivedRow.kind, DeliveryRow.state).join(DeliveryRow, DeliveryRow.derived_id == DerivedRow.id)
        found: dict[str, list[str]] = {}
        with self.store.read() as session:
            chosen = query.where(DeliveryRow.destination == destination).order_by(DerivedRow.id)
            for kind, state in session.execute(chosen):
                found.setdefault(kind, []).append(state)
        return found

    def kind_of(self, uid: str) -> str:
        """The kind of the Derived Instance with this SOP Instance UID."""
        return next(row.kind for row in self.derived() if row.SOPInstanceUID == uid)

    def deliveries(self) -> list[DeliveryRow]:
        with self.store.read() as session:
            return list(session.scalars(select(DeliveryRow).order_by(DeliveryRow.id)))

    def derived(self) -> list[DerivedRow]:
        with self.store.read() as session:
            return list(session.scalars(select(DerivedRow).order_by(DerivedRow.id)))

    def jobs(self) -> list[JobRow]:
        with self.store.read() as session:
            return list(session.scalars(select(JobRow).order_by(JobRow.id)))

    def audit(self, kind: str) -> list[dict[str, Any]]:
        """The bodies of the audit rows of one kind."""
        import json

        with self.store.read() as session:
            return [json.loads(body) for body in session.scalars(select(AuditRow.body).where(AuditRow.kind == kind))]


def config(*peers: Destination) -> Config:
    """A configuration that knows ``peers``."""
    return Config(peer=peers)


def encoded(dataset: Dataset) -> bytes:
    """``dataset`` in Implicit VR Little Endian."""
    from pydicom.filewriter import write_dataset

    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, True
    write_dataset(buffer, dataset)
    return buffer.getvalue()
