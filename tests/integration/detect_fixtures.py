"""A store with one complete CT Series, its files in a spool, and detectors that behave as told."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from sqlalchemy import select
from sqlalchemy.orm import Session

from dicomnode.config import parse_config
from dicomnode.detect.reader import Reader
from dicomnode.detect.worker import DetectWorker
from dicomnode.detectors.contract import (
    Acceptance,
    Calibration,
    DetectionResult,
    Finding,
    ModelIdentity,
    Outcome,
    PlaneResult,
    Region,
    SeriesSummary,
    Volume,
)
from dicomnode.dicom.uids import derived_uid
from dicomnode.jobs import enqueue
from dicomnode.node.flow import FlowWorker
from dicomnode.store.engine import Store
from dicomnode.store.schema import migrate
from dicomnode.store.spool import Spool, digest
from dicomnode.store.tables import AssignmentRow, AuditRow, InstanceRow, SeriesRow, StudyRow

STUDY, SERIES = derived_uid("test study"), derived_uid("test series")
PEER = '[[peer]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = 104\n'
MODEL = ModelIdentity("scripted-model", "1.0.0", "ab" * 32, "MIT")


def ct_slice(number: int) -> Dataset:
    """One small axial CT image."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, derived_uid("test image", str(number))
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = STUDY, SERIES
    dataset.PatientID, dataset.PatientName, dataset.PatientBirthDate, dataset.PatientSex = "ID-1", "TEST^CASE", "", "O"
    dataset.AccessionNumber, dataset.StudyID, dataset.StudyDate, dataset.StudyTime = "A1", "1", "20260101", "120000"
    dataset.ReferringPhysicianName, dataset.Modality, dataset.SeriesNumber = "", "CT", 1
    dataset.InstanceNumber, dataset.FrameOfReferenceUID = number, derived_uid("test frame")
    dataset.ImageType, dataset.BodyPartExamined = ["ORIGINAL", "PRIMARY", "AXIAL"], "HEAD"
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [0, 0, 5 * number], [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing, dataset.SliceThickness, dataset.RescaleType = [1, 1], 5, "HU"
    dataset.Rows = dataset.Columns = 64
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.RescaleIntercept, dataset.RescaleSlope = -1024, 1
    pixels = np.full((64, 64), 1054 + number, dtype=np.uint16)
    pixels[20:30, 20:30] = 1090
    dataset.PixelData = pixels.tobytes()
    return dataset


def complete_series(
    store: Store, spool: Spool, images: int = 3, *, numbers: Sequence[int] = (), send_to: Sequence[str] = ("pacs",)
) -> int:
    """Store a complete Series with a ``detect`` job for it; returns the Assignment's id.

    ``numbers``: Instance Numbers of its images, 5 mm apart by number; 1 to ``images`` when not given.
    """
    with store.write() as session:
        study = StudyRow(StudyInstanceUID=STUDY, PatientID="ID-1", AccessionNumber="A1", created_at=1.0)
        session.add(study)
        session.flush()
        series = SeriesRow(
            generation=1,
            study_id=study.id,
            SeriesInstanceUID=SERIES,
            Modality="CT",
            CallingAETitle="SCANNER",
            state="complete",
            first_received_at=1.0,
            last_received_at=2.0,
        )
        session.add(series)
        session.flush()
        for number in numbers or range(1, images + 1):
            session.add(_instance(spool, series.id, number))
        return assign(session, series, send_to)


def late_image(store: Store, spool: Spool, number: int, send_to: Sequence[str] = ("pacs",)) -> int:
    """A late image opens the next generation of the Series, which is routed again; returns its Assignment's id."""
    with store.write() as session:
        series = session.scalars(select(SeriesRow)).one()
        series.generation += 1
        session.add(_instance(spool, series.id, number))
        return assign(session, series, send_to)


def assign(session: Session, series: SeriesRow, send_to: Sequence[str] = ("pacs",), route: str = "r") -> int:
    """What routing the Series leaves: an Assignment and its ``detect`` job; returns the Assignment's id."""
    assignment = AssignmentRow(
        series_id=series.id,
        generation=series.generation,
        route=route,
        detector="scripted",
        send_to=list(send_to),
        created_at=3.0,
    )
    session.add(assignment)
    session.flush()
    enqueue(session, "detect", str(assignment.id), {"assignment_id": assignment.id}, 3.0)
    return assignment.id


def _instance(spool: Spool, series_id: int, number: int) -> InstanceRow:
    from dicomnode.report import to_bytes

    dataset = ct_slice(number)
    content = to_bytes(dataset)
    return InstanceRow(
        series_id=series_id,
        SOPInstanceUID=dataset.SOPInstanceUID,
        SOPClassUID=dataset.SOPClassUID,
        TransferSyntaxUID=ExplicitVRLittleEndian,
        sha256=digest(content),
        size=len(content),
        path=spool.store((content,), "received", digest(content)),
        header={"Modality": ["CT"], "BodyPartExamined": ["HEAD"], "SeriesNumber": [1]},
        generation=1,
        received_at=2.0,
    )


@cache
def reader() -> Reader:
    """One warm child for all tests of a process."""
    return Reader()


class Bench:
    """A worker of each duty around one store and one spool; ``now``: the clock of the detect worker."""

    def __init__(self, folder: Path, config: str = PEER) -> None:
        self.store = Store(f"sqlite:///{folder}/node.sqlite3")
        migrate(self.store)
        self.spool = Spool(folder / "spool")
        self.now = 100.0
        self.config, self.source = parse_config(config)

    def worker(self, script: Callable[[Volume], DetectionResult], own: Reader | None = None) -> DetectWorker:
        detectors, digest = ScriptedDetector(script), self.source.sha256
        return DetectWorker(
            self.store, self.spool, self.config, digest, detectors, "worker-1", lambda: self.now, own or reader()
        )

    def flow(self) -> FlowWorker:
        detectors = {"scripted": ScriptedDetector(finding_result)}
        return FlowWorker(self.store, self.spool, self.config, detectors, "flow-1", reader=reader())

    def rows(self, kind: type) -> list:
        with self.store.read() as session:
            return list(session.scalars(select(kind)))

    def audited(self, kind: str) -> list[dict]:
        """Bodies of the audit rows of one kind."""
        return [json.loads(row.body) for row in self.rows(AuditRow) if row.kind == kind]


def finding_result(volume: Volume) -> DetectionResult:
    """One square finding on the middle plane."""
    middle = len(volume.planes) // 2
    rows, columns = volume.planes[middle].shape
    mask = np.zeros((rows, columns), dtype=bool)
    mask[20:30, 20:30] = True
    contour = np.array([[20, 20], [30, 20], [30, 30], [20, 30], [20, 20]], dtype=np.float32)
    region = Region(middle, mask, contour, (20.0, 20.0, 30.0, 30.0), 0.97, 100.0)
    planes = tuple(
        PlaneResult(0.97 if index == middle else 0.2, np.where(mask, 0.97, 0.1).astype(np.float32))
        for index in range(len(volume.planes))
    )
    calibration = Calibration("percentile of healthy patients, 0..1", "test", 40, 0.95, 0.05)
    return DetectionResult(
        Outcome.FINDINGS,
        score=0.97,
        raw_score=2.5,
        raw_unit="mean residual",
        calibration=calibration,
        planes=planes,
        findings=(Finding("scripted-1", (region,), 0.97),),
    )


class ScriptedDetector:
    """A detector whose ``detect`` is the function it was given."""

    name, version, default_model, description = "scripted", "3.1.4", "scripted-model", "does as told"
    accelerator, model = "cpu", MODEL

    def __init__(self, script: Callable[[Volume], DetectionResult]) -> None:
        self.script, self.calls = script, 0

    def accepts(self, summary: SeriesSummary) -> Acceptance:
        return Acceptance(summary.Modality == "CT", "CT")

    def version_of(self, detector: str) -> str:
        return self.version

    def load(self, model_folder: Path, accelerator: str) -> ScriptedDetector:
        return self

    def get(self, detector: str, model: str | None) -> ScriptedDetector:
        """Stands in for the warm detectors."""
        return self

    def detect(self, volume: Volume) -> DetectionResult:
        self.calls += 1
        return self.script(volume)
