"""The whole node is killed at ten random moments while five studies flow; nothing is lost, nothing doubled."""

from __future__ import annotations

import hashlib
import random
import shutil
import sqlite3
import subprocess
import threading
from collections import Counter
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from dicomnode.demo.phantoms import make_ct_head, make_dx_chest, make_mr_flair
from dicomnode.report.montage import LONG_SERIES
from tests.acceptance.node_process import PATIENCE_S, NodeProcess
from tests.acceptance.orthanc import Orthanc

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.timeout(900),
    pytest.mark.skipif(shutil.which("Orthanc") is None, reason="Orthanc is not installed"),
    pytest.mark.skipif(shutil.which("storescu") is None, reason="DCMTK is not installed"),
]
ROUNDS = 10


class Scanner(threading.Thread):
    """Sends five studies with storescu, again and again until each was acknowledged as a whole."""

    def __init__(self, port: int, folders: list[Path]) -> None:
        super().__init__(daemon=True)
        self.port, self.folders = port, folders
        self.acknowledged: set[str] = set()
        self.stop = threading.Event()

    def run(self) -> None:
        for folder in self.folders:
            while not self.stop.is_set() and not self._send(folder):
                self.stop.wait(0.5)

    def _send(self, folder: Path) -> bool:
        command = [
            "storescu",
            "-v",
            "-aet",
            "SCANNER",
            "-aec",
            "NODE",
            "+sd",
            "+r",
            "127.0.0.1",
            str(self.port),
            str(folder),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
        current = ""
        for line in (done.stdout + done.stderr).splitlines():
            if "Sending file:" in line:
                current = line.split("Sending file:", 1)[1].strip()
            elif "Received Store Response (Success)" in line:
                self.acknowledged.add(current)
        return done.returncode == 0


def test_ten_kills_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    folders = []
    for index, (make, seed) in enumerate(
        [(make_ct_head, 1), (make_dx_chest, 2), (make_mr_flair, 3), (make_dx_chest, 4), (make_mr_flair, 5)]
    ):
        make(seed=seed).write(tmp_path / f"study{index}")
        folders.append(tmp_path / f"study{index}")
    moments = random.Random(20261121)
    with Orthanc(tmp_path / "orthanc") as orthanc:
        node = NodeProcess(tmp_path / "node", orthanc.dicom_port)
        scanner = Scanner(node.port, folders)
        try:
            node.start(wait=False)
            scanner.start()
            for _ in range(ROUNDS):
                threading.Event().wait(moments.uniform(2.0, 14.0))
                node.kill()
                node.start(wait=False)
            scanner.join(300)
            assert not scanner.is_alive(), "the scanner could not deliver its studies"
            node.wait_settled(len(folders), 400)
        finally:
            scanner.stop.set()
            node.close()
        _acknowledged_instances_are_on_disk(node, scanner.acknowledged)
        _every_study_has_one_result_set(node, orthanc, folders)
        assert node.run("audit", "verify").returncode == 0


def _acknowledged_instances_are_on_disk(node: NodeProcess, acknowledged: set[str]) -> None:
    assert acknowledged
    with sqlite3.connect(node.database) as database:
        rows = dict(database.execute("SELECT SOPInstanceUID, path FROM instance"))
    for sent in acknowledged:
        source = dcmread(sent)
        stored = dcmread(node.folder / "data" / "spool" / rows[str(source.SOPInstanceUID)])
        assert digest(stored) == digest(source)


def digest(dataset) -> str:
    """SHA-256 of the data set, encoded alike for both sides."""
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    dataset.remove_private_tags()
    write_dataset(buffer, dataset)
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def _every_study_has_one_result_set(node: NodeProcess, orthanc: Orthanc, folders: list[Path]) -> None:
    for folder in folders:
        images = list(folder.iterdir())
        study = str(dcmread(images[0], stop_before_pixels=True).StudyInstanceUID)
        kinds = Counter(orthanc.modalities_of_study(study))
        montage = len(images) > LONG_SERIES
        assert kinds["OT"] == len(images) + montage, f"{kinds} for {len(images)} images"
        assert kinds["SR"] in (1, 2), kinds
        assert set(kinds) == {"OT", "SR"}
    assert all(not path.is_file() for path in (node.folder / "data" / "spool" / "incoming").iterdir())
