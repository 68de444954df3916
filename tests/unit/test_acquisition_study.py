"""Training fits the acquisition gate, the node's detector asks it, and the shift study tells scanner from lesion."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dicomnode.detectors.contract import Volume
from dicomnode.detectors.residual import P_VALUE, ResidualDetector, load_residual_detector
from dicomnode.dicom.references import SeriesReference
from dicomnode.dicom.summary import SeriesSummary
from dicomnode.errors import ConfigError
from dicomnode.models.card import read_card
from dicomnode.models.registry import CALIBRATION_FILE, open_model
from dicomnode.train.build import add_acquisition, load_healthy, train_model
from dicomnode.train.calibrate import ScoreRule
from dicomnode.train.datasets import read_pictures, read_plane
from dicomnode.train.recipes import NetworkRecipe, recipe_for
from dicomnode.train.shift_study import CELLS, shift_study
from dicomnode.train.shifts import SHIFTS, UNSHIFTED, planted, shifted

RECIPE = replace(
    recipe_for("cxr"),
    preparation="radiograph",
    mixed=None,
    size=32,
    networks=(
        NetworkRecipe({"kind": "dae", "size": 32, "width": 4, "bright_only": True, "smooth": 3, "batch": 32}, 40),
    ),
    folds=2,
    rule=ScoreRule(plane=(("dae", 0.05, 1.0),), map=(("dae", 1.0),), top_planes=1, raw_unit="test unit"),
)
PATIENTS = 60


def picture(seed: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    _, columns = np.mgrid[:64, :64]
    image = 110 + 40 * np.cos((columns - 32 + draw.normal(0, 1)) / 10) + draw.normal(0, 4, (64, 64))
    return np.clip(image, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Sixty healthy patients for training and sixteen others, one picture each."""
    root = tmp_path_factory.mktemp("pictures")
    rows = []
    for i in range(PATIENTS + 16):
        Image.fromarray(picture(i)).save(root / f"{i}.png")
        split = "train_normal" if i < PATIENTS else "val"
        rows.append({"file": f"{i}.png", "patient_id": f"p{i}", "split": split, "label": "0", "pixel_mm": "0.5"})
    with (root / "labels.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return root


@pytest.fixture(scope="module")
def folder(data, tmp_path_factory) -> Path:
    torch.set_num_threads(1)
    return train_model(RECIPE, data, tmp_path_factory.mktemp("out"))


@pytest.fixture(scope="module")
def detector(folder) -> ResidualDetector:
    return load_residual_detector("cxr", folder, "cpu")


def _volume(data: Path, index: int, shift: str = UNSHIFTED) -> Volume:
    plane = read_plane(read_pictures(data, {"val"})[index], 1.0)
    return Volume(SeriesSummary(SeriesReference("2.25.1", "2.25.2"), 1), (shifted(plane, shift, index),))


def test_training_writes_the_gate_into_the_model_folder(folder, detector) -> None:
    """Fitted on the folds' own patients, the spacing column included."""
    gate = detector.calibration.acquisition
    assert gate is not None
    assert gate.n_patients == PATIENTS
    assert "pixel spacing" in gate.features
    assert open_model(folder).read_calibration()


def test_the_detector_answers_both_questions(data, detector) -> None:
    """A healthy picture is usual, the same with a scanner's noise is not; the p-value is among the parameters."""
    usual, strange = (detector.detect(_volume(data, 0, shift)) for shift in (UNSHIFTED, "noise"))
    assert usual.acquisition is not None
    assert strange.acquisition is not None
    assert not usual.acquisition.unusual
    assert strange.acquisition.unusual
    p = float(usual.parameters[P_VALUE])
    assert 1 - p <= usual.score <= 1 - p + 1 / (PATIENTS + 1) + 1e-4


def test_a_gate_can_be_added_to_a_model_that_has_none(data, folder, detector, tmp_path) -> None:
    """The networks stay as they are, the card's hash follows, and the gate is the one that training fits."""
    old = tmp_path / folder.name
    old.mkdir()
    for path in folder.iterdir():
        (old / path.name).write_bytes(path.read_bytes())
    content = json.loads((old / CALIBRATION_FILE).read_text())
    del content["acquisition"]
    _rewrite(old, json.dumps(content).encode())
    bare = load_residual_detector("cxr", old, "cpu")
    assert bare.detect(_volume(data, 0)).acquisition is None
    added = add_acquisition(old, RECIPE, data)
    assert added == detector.calibration.acquisition
    again = load_residual_detector("cxr", old, "cpu")
    assert again.model == bare.model
    assert again.detect(_volume(data, 0)).acquisition == detector.detect(_volume(data, 0)).acquisition


def _rewrite(folder: Path, calibration: bytes) -> None:
    import hashlib

    from dicomnode.models.card import write_card

    (folder / CALIBRATION_FILE).write_bytes(calibration)
    sha256 = hashlib.sha256(calibration).hexdigest()
    write_card(folder, read_card(folder).model_copy(update={"calibration_sha256": sha256}))


def test_header_notes_come_from_the_card(data, folder, tmp_path) -> None:
    """An unseen manufacturer is named in the parameters by its keyword, and does not count by itself."""
    from dicomnode.models.card import Seen, write_card

    other = tmp_path / folder.name
    other.mkdir()
    for path in folder.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    write_card(other, read_card(other).model_copy(update={"seen": {"Manufacturer": Seen(values=["ACME"])}}))
    volume = _volume(data, 0)
    attributes = {"Manufacturer": ("Other Ltd",)}
    summary = SeriesSummary(volume.summary.reference, 1, attributes)
    result = load_residual_detector("cxr", other, "cpu").detect(replace(volume, summary=summary))
    assert result.parameters["header values not seen in training"] == "Manufacturer"
    assert result.acquisition is not None
    assert result.acquisition.header_notes == ("Manufacturer",)
    assert not result.acquisition.unusual


def test_the_shift_study_tells_scanner_from_lesion(data, folder) -> None:
    """JSON figures per shift: cells add up, noise is an acquisition, a planted lesion is none."""
    study = json.loads(json.dumps(shift_study(folder, RECIPE, data, shifts=("noise", "blur"), limit=16)))
    assert study["series"] == 32
    assert set(study["shifts"]) == {UNSHIFTED, "noise", "blur"}
    for figures in study["shifts"].values():
        assert sum(sum(row.values()) for row in figures["table"].values()) + figures["not_analysed"] == 32
        assert tuple(figures["table"]["with lesion"]) == CELLS
    still, noise = study["shifts"][UNSHIFTED], study["shifts"]["noise"]
    assert still["lesion_auroc"] > 0.8
    assert noise["acquisition_auroc"] > 0.9
    assert noise["table"]["without lesion"]["withheld"] + noise["table"]["without lesion"]["review"] >= 14
    assert still["table"]["without lesion"]["withheld"] <= 3


def test_an_unknown_shift_is_told(data, folder) -> None:
    with pytest.raises(ConfigError, match="there is no shift tilt"):
        shift_study(folder, RECIPE, data, shifts=("tilt",))


@pytest.mark.parametrize("name", SHIFTS)
def test_a_shift_keeps_shape_range_and_repeats(data, name: str) -> None:
    """Simulated scanners make pixels that a scanner could have stored, the same again with the same seed."""
    plane = read_plane(read_pictures(data, {"val"})[0], 1.0)
    made = shifted(plane, name, 1)
    assert made.pixels.shape == plane.pixels.shape
    assert made.pixels.dtype == np.float32
    assert plane.stored_min <= made.pixels.min() <= made.pixels.max() <= plane.stored_max
    assert np.array_equal(made.pixels, shifted(plane, name, 1).pixels)
    assert np.array_equal(made.pixels, plane.pixels) is (name == UNSHIFTED)


def test_a_planted_lesion_is_bright_and_focal(data, detector) -> None:
    plane = read_plane(read_pictures(data, {"val"})[0], 1.0)
    prepared = detector.prepare(plane)
    change = planted(plane, prepared, 3).pixels - plane.pixels
    assert change.min() >= 0
    assert 0 < (change > 5).mean() < 0.06


def test_the_healthy_planes_carry_their_spacing(data) -> None:
    """``pixel_mm`` of labels.csv reaches the gate."""
    assert load_healthy(RECIPE, data, "train_normal").geometry[0]["pixel spacing"] == pytest.approx(np.log(0.5))
