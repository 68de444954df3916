"""``dicomnode train``, ``evaluate`` and ``compare`` as a user calls them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from tests.picture_folders import chest_folder, picture

OWN = ("--method", "ae-u", "--detector", "cxr", "--steps", "3", "--folds", "2", "--accelerator", "cpu")
SMALL = ("--set", "size=32", "--set", "width=4")


def dicomnode(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dicomnode", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return chest_folder(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def model(data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("models")
    done = dicomnode("train", data, *OWN, *SMALL, "--out", out, "--checkpoints", out / "kept", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["patients"] == 24
    return Path(answer["folder"])


def test_a_trained_folder_can_be_measured_by_path(model, data, tmp_path):
    """Train, then evaluate with a report; the card is written from the figures."""
    assert (model / "MODEL_CARD.md").is_file()
    assert len(list((model / "previews").glob("*.png"))) == 12
    done = dicomnode("evaluate", model, data, "--json", "--record", "--report", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert 0 <= figures["auroc"] <= 1
    assert figures["n"] == 24
    assert (tmp_path / "report" / "report.html").is_file()
    assert json.loads((model / "card.json").read_text())["metrics"]["val"]["auroc"]["abnormal"] == 12


def test_unusable_input_is_exit_status_2(model, data, tmp_path):
    """With a sentence that says what to do, and no traceback."""
    cases = [
        ("evaluate", model, data, "--split", "nothing"),
        ("evaluate", model, tmp_path),
        ("evaluate", "no-such-model", data),
        ("train", data, "--out", tmp_path),
        ("train", data, "--method", "ae-u", "--detector", "cxr", "--set", "nonsense=1", "--out", tmp_path),
        ("train", tmp_path, *OWN, "--out", tmp_path),
        ("compare", data, "--detector", "cxr", "--methods", "magic", "--out", tmp_path / "c"),
    ]
    for arguments in cases:
        done = dicomnode(*arguments)
        assert done.returncode == 2, arguments
        assert "Traceback" not in done.stderr


def test_compare_writes_a_table(data, tmp_path):
    """Markdown and JSON, the rival beside every figure."""
    done = dicomnode("compare", data, "--detector", "cxr", "--methods", "pca-residual", "--size", 32, "--steps", 5,
                     "--out", tmp_path, "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"][0]["difference_to_trivial"]
    assert "best trivial feature" in (tmp_path / "results.md").read_text()


def radiograph(path: Path, number: int) -> None:
    image, _ = picture(number, lesion=False)
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = DigitalXRayImageStorageForPresentation, generate_uid()
    data.StudyInstanceUID, data.SeriesInstanceUID = generate_uid(), generate_uid()
    data.PatientID, data.Modality, data.BodyPartExamined, data.ViewPosition = f"P{number}", "DX", "CHEST", "PA"
    data.PatientAge, data.PresentationIntentType, data.ImageType = "040Y", "FOR PRESENTATION", ["DERIVED", "PRIMARY"]
    data.Rows, data.Columns, data.SamplesPerPixel = 64, 64, 1
    data.PhotometricInterpretation, data.PixelRepresentation = "MONOCHROME2", 0
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.InstanceNumber = 7, 1
    data.RescaleSlope, data.RescaleIntercept = "1", "0"
    data.PixelData = np.ascontiguousarray(image).tobytes()
    data["PixelData"].VR = "OB"
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.save_as(path, enforce_file_format=True)


def test_a_dicom_folder_trains_a_model_too(tmp_path):
    """Every Series that the detector accepts, by the node's own loader; the rest is told."""
    folder = tmp_path / "dicom"
    folder.mkdir()
    for number in range(6):
        radiograph(folder / f"{number}.dcm", number)
    (folder / "notes.txt").write_text("no image")
    done = dicomnode(
        "train", folder, *OWN, *SMALL, "--out", tmp_path / "out", "--alpha", "0.2", "--name", "mine", "--json"
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["patients"] == 6
    assert answer["left_out"] == {"files that are no DICOM image": 1}
    shown = dicomnode("evaluate", tmp_path / "out" / "mine", chest_folder(tmp_path / "val", healthy=2), "--json")
    assert json.loads(shown.stdout)["n"] == 24
    few = dicomnode("train", folder, *OWN, *SMALL, "--out", tmp_path / "few")
    assert few.returncode == 2
    assert "alpha must be at least" in few.stderr
