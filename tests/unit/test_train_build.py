"""From pictures to a model folder that the registry and a detector take, in seconds on phantoms."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from dicomnode.detectors.contract import Outcome, Volume
from dicomnode.detectors.ensemble import method_of
from dicomnode.detectors.methods.contract import Material, Run, apart
from dicomnode.detectors.residual import load_residual_detector
from dicomnode.dicom.references import SeriesReference
from dicomnode.dicom.summary import SeriesSummary
from dicomnode.errors import ConfigError
from dicomnode.models.registry import ModelRegistry
from dicomnode.train.build import load_healthy, train_model
from dicomnode.train.calibrate import ScoreRule
from dicomnode.train.datasets import patient_folds, read_pictures, read_plane
from dicomnode.train.evaluate import card_figures, evaluate_folder, record_metrics
from dicomnode.train.model_card import write_model_card
from dicomnode.train.recipes import NetworkRecipe, recipe_for

NETWORKS = (
    NetworkRecipe({"kind": "ae-u", "size": 32, "width": 4, "latent": 4, "batch": 32}, 94),
    NetworkRecipe({"kind": "dae", "size": 32, "width": 4, "bright_only": True, "smooth": 3}, 47),
)
RECIPE = replace(
    recipe_for("cxr"),
    preparation="radiograph",
    mixed=None,
    size=32,
    networks=NETWORKS,
    folds=2,
    rule=ScoreRule(
        plane=(("ae-u", 0.05, 1.0), ("dae", 0.05, 1.0)), map=(("dae", 1.0),), top_planes=1, raw_unit="test unit"
    ),
)


def picture(seed: int, *, lesion: bool) -> np.ndarray:
    draw = np.random.default_rng(seed)
    rows, columns = np.mgrid[:64, :64]
    image = 150 + 50 * np.cos((columns - 32 + draw.normal(0, 1)) / 10) + draw.normal(0, 4, (64, 64))
    if lesion:
        image[np.hypot(rows - 25, columns - 50) < 7] += 90
    return np.clip(image, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """22 healthy patients with two pictures each, and eight labelled ones."""
    root = tmp_path_factory.mktemp("pictures")
    rows = []
    for i in range(52):
        abnormal = i >= 48
        split = "train_normal" if i < 44 else "val"
        Image.fromarray(picture(i, lesion=abnormal)).save(root / f"{i}.png")
        Image.fromarray(np.zeros((64, 64), np.uint8)).save(root / f"{i}_mask.png")
        rows.append({"file": f"{i}.png", "patient_id": f"p{i // 2}", "split": split, "label": int(abnormal)})
    with (root / "labels.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return root


@pytest.fixture(scope="module")
def model_folder(data, tmp_path_factory):
    torch.set_num_threads(1)
    return train_model(RECIPE, data, tmp_path_factory.mktemp("out"))


def test_the_trained_folder_is_taken_by_the_registry_and_the_detector(model_folder):
    """What training writes, the node can load."""
    registry = ModelRegistry([model_folder.parent], shipped=False)
    assert registry.broken() == {}
    detector = load_residual_detector("cxr", registry.get(RECIPE.model).folder, "cpu")
    assert detector.ensemble.kinds == ("ae-u", "dae")
    assert detector.calibration.n_patients == 22


def test_a_planted_lesion_is_found_where_it_is_and_a_healthy_picture_is_not_called(model_folder, data):
    """The loop is real: healthy-only training, conformal score, region on the lesion."""
    detector = load_residual_detector("cxr", model_folder, "cpu")
    summary = SeriesSummary(SeriesReference("2.25.1", "2.25.2"), 1)
    planes = {picture.label: read_plane(picture, 1.0) for picture in read_pictures(data, {"val"})}
    sick = detector.detect(Volume(summary, (planes[1],)))
    assert sick.outcome is Outcome.FINDINGS
    column, row = sick.findings[0].regions[0].contour.mean(axis=0)
    assert np.hypot(row - 25, column - 50) < 9
    assert detector.detect(Volume(summary, (planes[0],))).score < sick.score


def test_evaluation_separates_lesions_and_the_card_tells_the_figures(model_folder, data):
    """Figures go into card.json, and MODEL_CARD.md repeats them."""
    metrics = {"val": card_figures(evaluate_folder(model_folder, data).figures)}
    assert metrics["val"]["auroc"]["value"] > 0.9
    assert metrics["val"]["pictures"] == 8
    record_metrics(model_folder, metrics)
    text = write_model_card(model_folder).read_text(encoding="utf-8")
    assert str(metrics["val"]["auroc"]["value"]) in text
    assert "Not a medical device" in text


def test_every_healthy_patient_is_held_back_by_exactly_one_fold(data):
    """Calibration never sees a patient that its networks were trained on."""
    healthy = load_healthy(RECIPE, data, "train_normal")
    for fold in range(RECIPE.folds):
        seen = {healthy.patients[i] for i in healthy.seen_by(fold)}
        held = {healthy.patients[i] for i in healthy.held_back(fold)}
        assert held
        assert not seen & held
    assert patient_folds(healthy.patients, 2) == patient_folds(reversed(healthy.patients), 2)


def test_the_same_seed_gives_the_same_weights():
    """Training can be repeated."""
    torch.set_num_threads(1)
    images = np.random.default_rng(0).random((6, 32, 32), dtype=np.float32)
    material = Material(apart(images, np.ones(images.shape, bool)))
    first, second = (method_of(NETWORKS[0].architecture) for _ in range(2))
    first.fit(material, Run(steps=2))
    second.fit(material, Run(steps=2))
    for key, value in first.tensors().items():
        assert np.array_equal(value, second.tensors()[key])


def test_an_interrupted_run_goes_on_from_its_checkpoints(data, tmp_path):
    """Networks that were fitted are not fitted again."""
    quick = replace(RECIPE, networks=(NetworkRecipe(NETWORKS[0].architecture, 2),), rule=ScoreRule(
        plane=(("ae-u", 0.05, 1.0),), map=(("ae-u", 1.0),), top_planes=1, raw_unit="u"))  # fmt: skip
    first = train_model(quick, data, tmp_path / "a", checkpoints=tmp_path / "kept")
    steps: list[str] = []
    second = train_model(
        quick, data, tmp_path / "b", checkpoints=tmp_path / "kept", progress=lambda step, _: steps.append(step)
    )
    assert steps == []
    assert (first / "weights.safetensors").read_bytes() == (second / "weights.safetensors").read_bytes()


def test_data_that_cannot_be_used_is_told(data, tmp_path):
    """Missing labels, an empty split, too few patients."""
    with pytest.raises(ConfigError, match="cannot be read"):
        read_pictures(tmp_path, {"val"})
    with pytest.raises(ConfigError, match="no picture of the split"):
        read_pictures(data, {"nothing"})
    with pytest.raises(ConfigError, match="too few"):
        patient_folds(["a", "b", "c"], 2)
    with pytest.raises(ConfigError, match="no recipe"):
        recipe_for("toe")
