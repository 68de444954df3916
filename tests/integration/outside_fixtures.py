"""A hospital with a node, a PACS, a research folder and a detector outside: real sockets, every step by hand."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ComprehensiveSRStorage, CTImageStorage, ExplicitVRLittleEndian
from sqlalchemy import select

from dicomnode.assemble.sweep import sweep
from dicomnode.config import Peer, parse_config
from dicomnode.deid.keys import ProjectKey
from dicomnode.deliver.send import send_paths
from dicomnode.deliver.worker import Deliverer
from dicomnode.detect.reader import Reader
from dicomnode.node.build import Blueprint
from dicomnode.node.flow import FlowWorker
from dicomnode.node.outside import outside_workers
from dicomnode.receive import StorageServer
from dicomnode.store.schema import migrate
from dicomnode.store.tables import AssignmentRow, AuditRow, InstanceRow, JobRow
from tests.integration.deliver_fixtures import FakePacs
from tests.integration.detect_fixtures import ct_slice

CLASSES = (CTImageStorage, ComprehensiveSRStorage)
"""What the PACS and the detector outside take."""
SENTINELS = ("Sentinel", "SENTINEL-4711", "SENTINEL-ACC")
HOUR = 3600.0


def image(number: int, **changes: Any) -> Dataset:
    """An axial CT image of a patient whose identifiers can be looked for."""
    dataset = ct_slice(number)
    dataset.PatientName, dataset.PatientID, dataset.AccessionNumber = "Sentinel^Änne", "SENTINEL-4711", "SENTINEL-ACC"
    dataset.SpecificCharacterSet, dataset.PatientBirthDate = "ISO_IR 100", "19500102"
    dataset.AcquisitionDate, dataset.StudyDescription = "20260102", "Sentinel study"
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    return dataset


class Hospital:
    """``now``: the clock, which a test moves."""

    def __init__(self, folder: Path, pacs: FakePacs, remote: FakePacs, tables: str, remote_deid: str) -> None:
        self.folder, self.data, self.research = folder, folder / "data", folder / "research"
        self.research.mkdir()
        ProjectKey.create(folder / "project.key")
        ProjectKey.create(folder / "vault.key")
        text = f"""
[node]
ae_title = "NODE"
host = "127.0.0.1"
port = 0
data_dir = "{self.data}"
[receive]
min_free_bytes = 0
[assemble]
use_c_find = false
[deid]
key_file = "{folder / "project.key"}"
[deid.vault]
key_file = "{folder / "vault.key"}"
[[peer]]
name = "scanner"
ae_title = "SCANNER"
host = "127.0.0.1"
port = 104
may_send = true
[[peer]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"
port = {pacs.port}
[[peer]]
name = "cloud"
ae_title = "CLOUD"
host = "127.0.0.1"
port = {remote.port}
may_send = true
deid = "{remote_deid}"
[[peer]]
name = "research"
folder = "{self.research}"
deid = "basic"
{tables}
"""
        config, source = parse_config(text)
        self.plan = Blueprint(config, source)
        self.config, self.now = config, time.time()
        self.store = self.plan.store()
        self.data.mkdir()
        migrate(self.store)
        self.spool = self.plan.spool()
        self.gate = self.plan.gate()
        assert self.gate is not None
        self.server = StorageServer(config, self.store, self.spool)
        self.port = self.server.start()
        self.reader = Reader(config.detect)
        self.flow = FlowWorker(self.store, self.spool, config, {}, "flow", self.clock, self.reader)
        self.workers = outside_workers(config, self.store, self.spool, self.gate, "outside", self.clock)
        self.deliverer = Deliverer(config, self.store, self.spool, "deliver", self.clock, gate=self.gate)

    def clock(self) -> float:
        """The time of the node, in seconds since 1970."""
        return self.now

    def close(self) -> None:
        """End everything."""
        self.server.stop(1.0)
        self.reader.close()
        self.gate.close()
        self.store.close()

    def receives(self, datasets: Sequence[Dataset], calling: str = "SCANNER") -> None:
        """A peer sends by C-STORE; afterwards its Series are complete and routed."""
        folder = self.folder / f"sent {time.monotonic_ns()}"
        folder.mkdir()
        for number, dataset in enumerate(datasets):
            dcmwrite(folder / f"{number}.dcm", dataset, enforce_file_format=True)
        target = Peer(name="node", ae_title="NODE", host="127.0.0.1", port=self.port)
        answers = list(send_paths([folder], target, calling))
        assert [answer.status for answer in answers] == [0] * len(datasets)
        self.now = max(self.now, time.time()) + 2 * HOUR
        sweep(self.store, self.config, self.now)
        self.run(self.flow.step)

    def goes_out(self) -> int:
        """Do every job about what goes outside and comes back; returns how many."""
        return sum(self.run(worker.step) for worker in self.workers.values())

    def run(self, step: Any) -> int:
        """Do what there is to do now; returns how many jobs."""
        count = 0
        while step():
            count += 1
            assert count < 100, "the same job over and over"
        return count

    def jobs(self, kind: str) -> list[JobRow]:
        """The jobs of one kind."""
        with self.store.read() as session:
            return list(session.scalars(select(JobRow).where(JobRow.kind == kind).order_by(JobRow.id)))

    def audit(self, kind: str) -> list[dict[str, Any]]:
        """The bodies of the audit rows of one kind."""
        with self.store.read() as session:
            query = select(AuditRow.body).where(AuditRow.kind == kind).order_by(AuditRow.seq)
            return [json.loads(body) for body in session.scalars(query)]

    def assignments(self) -> list[AssignmentRow]:
        """Every Assignment."""
        with self.store.read() as session:
            return list(session.scalars(select(AssignmentRow).order_by(AssignmentRow.id)))

    def received(self) -> list[InstanceRow]:
        """Every stored Instance."""
        with self.store.read() as session:
            return list(session.scalars(select(InstanceRow).order_by(InstanceRow.id)))

    def exported(self) -> list[Dataset]:
        """What lies in the research folder."""
        return [dcmread(path) for path in sorted(self.research.rglob("*.dcm"))]


@contextmanager
def hospital(folder: Path, tables: str, remote_deid: str = "basic", answer: Any = None) -> Iterator[Any]:
    """A hospital with its peers running; yields it, the PACS and the detector outside."""

    with FakePacs(classes=CLASSES) as pacs, FakePacs(answer or (lambda *_: 0), classes=CLASSES, title="CLOUD") as cloud:
        built = Hospital(folder, pacs, cloud, tables, remote_deid)
        try:
            yield built, pacs, cloud
        finally:
            built.close()


def decoded(received: tuple[str, str, bytes]) -> Dataset:
    """A data set as a peer got it."""
    return dcmread(BytesIO(_part10(received[1], received[2])))


def _part10(syntax: str, content: bytes) -> bytes:
    uid = syntax.encode() + b"\0" * (len(syntax) % 2)
    element = b"\x02\x00\x10\x00UI" + len(uid).to_bytes(2, "little") + uid
    length = b"\x02\x00\x00\x00UL\x04\x00" + len(element).to_bytes(4, "little")
    return bytes(128) + b"DICM" + length + element + content


def report_about(images: Sequence[Dataset], uid: str = "2.25.9001", series: str = "2.25.9000") -> Dataset:
    """A structured report as a detector makes it that has seen ``images`` and nothing else."""
    first = images[0]
    report = Dataset()
    report.file_meta = FileMetaDataset()
    report.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    report.file_meta.MediaStorageSOPClassUID = ComprehensiveSRStorage
    report.file_meta.MediaStorageSOPInstanceUID = uid
    report.SOPClassUID, report.SOPInstanceUID, report.SeriesInstanceUID = ComprehensiveSRStorage, uid, series
    for keyword in ("StudyInstanceUID", "PatientID", "PatientName", "StudyDate", "AccessionNumber", "StudyID"):
        setattr(report, keyword, deepcopy(first[keyword].value))
    report.PatientIdentityRemoved, report.DeidentificationMethod = "YES", str(first.DeidentificationMethod)
    report.Modality, report.SeriesNumber, report.InstanceNumber = "SR", 1, 1
    report.ContentDate, report.ContentTime, report.CompletionFlag, report.VerificationFlag = (
        "20260501", "120000", "COMPLETE", "UNVERIFIED",
    )  # fmt: skip
    evidence, of = Dataset(), Dataset()
    evidence.StudyInstanceUID, of.SeriesInstanceUID = first.StudyInstanceUID, first.SeriesInstanceUID
    of.ReferencedSOPSequence = []
    for one in images:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = one.SOPClassUID, one.SOPInstanceUID
        of.ReferencedSOPSequence.append(item)
    evidence.ReferencedSeriesSequence = [of]
    report.CurrentRequestedProcedureEvidenceSequence = [evidence]
    return report
