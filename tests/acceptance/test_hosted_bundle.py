"""A MONAI bundle that somebody else made, run by the node: SEG and SR come back; another hash stops the start."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicomnode.config import Peer
from dicomnode.deliver.send import send_paths
from dicomnode.demo.study_dataset import PhantomStudy, StudyBuilder, stored
from dicomnode.dicom.sop_classes import CT_IMAGE
from dicomnode.report.envelope import SERIES_NUMBERS
from tests.acceptance.node_process import PATIENCE_S, NodeProcess
from tests.unit.hosted_fixtures import dice, section, write_bundle

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(900)]

LIMIT_S = 240.0
ROWS, SPACING_MM, SLICE_MM, SLICES, RADIUS_MM = 96, 1.5, 3.0, 24, 18.0
ROUTE = """
[[route]]
name = "spheres"
when = { Modality = "CT" }
detector = "spheres"
send_to = ["shelf"]
[results]
profile = "viewer-rich"
"""


def sphere_study(seed: int = 71) -> PhantomStudy:
    """A water phantom with a sphere of 250 HU off its centre; the truth masks hold the sphere."""
    builder = StudyBuilder("CT", seed, CT_IMAGE, "Phantom", "Abdomen 3 mm")
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:ROWS, :ROWS]
    for number in range(SLICES):
        z = (number - SLICES / 2) * SLICE_MM
        x, y = (columns - 60) * SPACING_MM, (rows - 40) * SPACING_MM
        truth = x**2 + y**2 + (z - 6.0) ** 2 <= RADIUS_MM**2
        body = (columns - ROWS / 2) ** 2 + (rows - ROWS / 2) ** 2 <= (0.45 * ROWS) ** 2
        values = np.where(truth, 250.0, np.where(body, 20.0, -1000.0)) + rng.normal(0, 5, truth.shape)
        dataset = builder.add(stored(values.astype(np.float32) + 1024, 0, 4095), truth)
        builder.place(dataset, SPACING_MM, SLICE_MM, z)
        dataset.BodyPartExamined = "ABDOMEN"
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.BitsStored, dataset.HighBit = 12, 11
        dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = -1024, 1, "HU"
        dataset.WindowCenter, dataset.WindowWidth = 40, 400
        dataset.KVP, dataset.AcquisitionNumber = 120, 1
    return builder.finish("water phantom with a sphere")


@dataclass(frozen=True)
class Delivered:
    """What the folder peer holds, and what was sent."""

    study: PhantomStudy
    results: list[Dataset]
    sha256: str

    def only(self, document: str) -> Dataset:
        (found,) = (one for one in self.results if SERIES_NUMBERS[document] == one.SeriesNumber)
        return found


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> Delivered:
    """The phantom through a node that hosts the bundle, to a folder."""
    folder = tmp_path_factory.mktemp("hosted")
    settings = section("bundle", write_bundle(folder / "bundle"), "", name="spheres")
    study = sphere_study()
    (folder / "shelf").mkdir()
    shelf = f'[[peer]]\nname = "shelf"\nfolder = "{folder / "shelf"}"\n'
    node = NodeProcess(folder / "node", 104, node='accelerator = "cpu"', routes=shelf + settings + ROUTE)
    try:
        node.start()
        target = Peer(name="node", ae_title="NODE", host="127.0.0.1", port=node.port)
        assert all(answer.ok for answer in send_paths(study.write(folder / "study"), target, "SCANNER"))
        until = time.monotonic() + LIMIT_S
        while not (state := node.wait_settled(1, LIMIT_S))["recent"][0]["results"][0]["objects"]:
            assert time.monotonic() < until, state
            time.sleep(0.5)
    finally:
        node.close()
    results = [dcmread(path) for path in (folder / "shelf").rglob("*.dcm")]
    return Delivered(study, results, settings.split('sha256 = "')[1][:64])


def test_the_segmentation_overlaps_the_sphere(delivered: Delivered) -> None:
    """Frame by frame, by the source image that each names."""
    seg = delivered.only("seg")
    (segment,) = seg.SegmentSequence
    assert segment.SegmentLabel.startswith("sphere")
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Mass"
    assert seg.PatientID == delivered.study.datasets[0].PatientID
    found = {uid: np.zeros_like(truth) for uid, truth in delivered.study.truth.items()}
    for frame, group in zip(seg.pixel_array, seg.PerFrameFunctionalGroupsSequence, strict=True):
        source = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        found[source] |= frame > 0
    truth = np.stack(list(delivered.study.truth.values()))
    assert dice(np.stack([found[uid] for uid in delivered.study.truth]), truth) >= 0.8


def test_the_reports_name_the_label_the_model_and_what_the_score_is(delivered: Delivered) -> None:
    """The root names label and weights and claims no false positive rate; the volume report gives the size in mm3."""
    root, volumes = delivered.only("sr"), delivered.only("sr-volume")
    texts = " ".join(str(element.value) for element in root.iterall() if element.keyword == "TextValue")
    assert "sphere: 1.00, threshold 0.50: present" in texts
    assert delivered.sha256 in texts
    assert "how many healthy patients reach that is not known" in texts
    codes = {str(element.value) for element in root.iterall() if element.keyword == "CodeValue"}
    assert "EXPECTED_FPR" not in codes
    assert {"4147007", "118565006"} <= {str(e.value) for e in volumes.iterall() if e.keyword == "CodeValue"}
    sizes = [
        float(item.MeasuredValueSequence[0].NumericValue)
        for item in _items(volumes)
        if item.get("ValueType") == "NUM" and item.ConceptNameCodeSequence[0].CodeValue == "118565006"
    ]
    assert sizes == [pytest.approx(4 / 3 * np.pi * RADIUS_MM**3, rel=0.15)]


def _items(dataset: Dataset) -> list[Dataset]:
    own = list(dataset.get("ContentSequence") or ())
    return own + [inner for item in own for inner in _items(item)]


def test_pictures_and_page_come_too(delivered: Delivered) -> None:
    """Everything of the profile is there."""
    kinds = {int(one.SeriesNumber) for one in delivered.results}
    assert {SERIES_NUMBERS[kind] for kind in ("sc", "seg", "pm", "sr", "sr-regions", "sr-volume", "pdf")} <= kinds


def test_a_bundle_with_another_hash_stops_the_start_with_the_reason(tmp_path: Path) -> None:
    """The operator reads which file, both hashes and which line of the configuration."""
    settings = section("bundle", write_bundle(tmp_path / "bundle"), "", name="spheres", sha256="0" * 64)
    routes = settings + ROUTE.replace('"shelf"', '"pacs"')
    node = NodeProcess(tmp_path / "node", 104, routes=routes)
    try:
        node.start(wait=False)
        assert node.process is not None
        assert node.process.wait(PATIENCE_S) == 2
    finally:
        node.close()
    told = node.log.read_text()
    assert "route[1].detector: detector 'spheres' cannot be used" in told
    assert "bundle has SHA-256" in told
    assert "the configuration allows 000000000000… only" in told
    listed = node.run("detectors", "list")
    assert listed.returncode == 1
    assert "broken: spheres: ConfigError: bundle has SHA-256" in listed.stderr


def test_a_bundle_that_cannot_be_hosted_stops_the_start_with_the_reason(tmp_path: Path) -> None:
    """The right hash, and a network that this MONAI does not have."""
    bundle = write_bundle(tmp_path / "bundle", network_def={"_target_": "monai.networks.nets.NoSuchNet"})
    routes = section("bundle", bundle, "", name="spheres") + ROUTE.replace('"shelf"', '"pacs"')
    node = NodeProcess(tmp_path / "node", 104, node='accelerator = "cpu"', routes=routes)
    try:
        node.start(wait=False)
        assert node.process is not None
        assert node.process.wait(PATIENCE_S) == 2
    finally:
        node.close()
    assert "the bundle cannot be hosted: network_def" in node.log.read_text()
