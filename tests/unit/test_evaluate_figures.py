"""Everything that an evaluation answers, on made-up pictures and a model trained on them."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dicomnode.detectors.calibration import read_calibration
from dicomnode.detectors.contract import DetectionResult, ModelIdentity, Volume
from dicomnode.detectors.residual import ResidualDetector, load_residual_detector
from dicomnode.errors import ConfigError
from dicomnode.models.registry import open_model
from dicomnode.train.build import train_model
from dicomnode.train.datasets import read_pictures, truth_of
from dicomnode.train.evaluate import card_figures, evaluate_detector, evaluate_folder
from dicomnode.train.headline import sample_of
from dicomnode.train.judging import Judged
from dicomnode.train.page import write_page
from dicomnode.train.recipes import Wish, recipe_of
from dicomnode.train.thresholds import choose_alpha, choose_region_threshold
from tests.picture_folders import chest_folder, write_folder

KEYS = {
    *("auroc", "auroc_ci", "auroc_delong_ci", "auprc", "prevalence", "pixel_ap", "dice", "dice_oracle", "aupro"),
    *("sensitivity_at_90_specificity", "sensitivity_at_95_specificity", "best_trivial", "difference_to_trivial"),
    *("calibration", "subgroups", "n", "n_patients", "left_out", "patient_auroc", "model", "split", "protocol"),
    *("classes", "reasons"),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return chest_folder(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def folder(data, tmp_path_factory) -> Path:
    torch.set_num_threads(1)
    wish = Wish("dae", {"size": 32, "width": 4, "batch": 16, "smooth": 3}, steps=150, folds=2, name="own")
    recipe = replace(recipe_of("cxr", wish), size=32)
    recipe = replace(recipe, rule=replace(recipe.rule, plane=(("dae", 0.02, 1.0),)))
    return train_model(recipe, data, tmp_path_factory.mktemp("out"))


@pytest.fixture(scope="module")
def found(folder, data):
    return evaluate_folder(folder, data)


def test_every_figure_is_there_and_finds_planted_lesions(found, folder):
    """All keys, plain JSON, and figures that a working model earns on easy pictures."""
    figures = json.loads(json.dumps(found.figures, allow_nan=False))
    assert figures.keys() >= KEYS
    assert figures["auroc"] > 0.85
    low, high = figures["auroc_ci"]
    assert low <= figures["auroc"] <= high
    assert figures["n"] == 24
    assert figures["prevalence"] == 0.5
    assert figures["pixel_ap"] > 0.2
    assert 0 <= figures["dice"] <= figures["dice_oracle"] + 0.01
    assert figures["model"]["sha256"] == open_model(folder).card.sha256
    assert figures["best_trivial"]["name"]
    assert figures["calibration"]["conformal"]["normal_pictures"]
    assert set(figures["subgroups"]["sex"]) == {"F", "M"}
    assert figures["subgroups"]["view"] is None


def test_the_card_takes_the_figures_in_its_own_words(found):
    """What a result's validation statement reads."""
    card = card_figures(found.figures)
    assert card["auroc"].keys() == {"value", "low", "high", "abnormal", "normal"}
    assert card["difference_to_trivial"]["value"] == pytest.approx(
        found.figures["difference_to_trivial"]["value"], abs=1e-3
    )


def test_a_picture_that_is_left_out_counts_as_the_least_suspicious(data):
    """A node would not flag it, so it lowers the figure instead of leaving it."""
    pictures = read_pictures(data, {"val"})
    judged = [Judged(p, float(p.label or 0), 0.5, None, {}) for p in pictures]
    unseen = next(i for i, p in enumerate(pictures) if p.label == 1)
    judged[unseen] = replace(judged[unseen], raw=float("-inf"), left_out="too dark")
    sample = sample_of(judged)
    assert sample.raws[unseen] == sample.raws.min() < 0
    assert len(sample.labels) == 24


def test_slices_are_compared_with_clean_patients_within_deciles(data):
    """Normal slices of patients who have the abnormality elsewhere are no normals."""
    pictures = read_pictures(data, {"val"})
    rows = [
        replace(p, position=i / 24, patient_label=1 if p.label == 1 or i % 4 == 0 else 0)
        for i, p in enumerate(pictures)
    ]
    sample = sample_of([Judged(p, 0.0, 0.0, None, {}) for p in rows])
    assert (~sample.labels).sum() == 6
    assert len(np.unique(sample.strata)) > 5
    assert "deciles" in sample.protocol


class Hosted:
    """A detector that is not one of residual maps: it has only what the contract asks for."""

    def __init__(self, inner: ResidualDetector) -> None:
        self.inner, self.accelerator = inner, "cpu"

    @property
    def model(self) -> ModelIdentity:
        return self.inner.model

    def detect(self, volume: Volume) -> DetectionResult:
        return self.inner.detect(volume)


def test_any_detector_can_be_measured(folder, data, found):
    """Through ``detect`` alone the same pictures give about the same order."""
    hosted = Hosted(load_residual_detector("cxr", folder, "cpu"))
    figures = evaluate_detector(hosted, read_pictures(data, {"val"}), 1.0, split="val").figures
    assert figures["auroc"] == pytest.approx(found.figures["auroc"], abs=0.1)
    assert figures["n"] == 24


def test_one_class_gives_null_and_the_reason(folder, tmp_path):
    """No figure is invented; nothing is missing."""
    root = write_folder(tmp_path, [{"split": "s", "label": 2} for _ in range(3)] + [{"split": "s", "label": 0}])
    figures = evaluate_folder(folder, root, "s").figures
    assert figures.keys() >= KEYS
    assert figures["auroc"] is None
    assert "one class" in figures["reasons"]["auroc"]
    assert figures["classes"]["2"]["n"] == 3


def test_unusable_input_is_told(folder, tmp_path):
    """A split without labels, a file that is no picture, a labels.csv without pictures."""
    root = write_folder(tmp_path, [{"split": "s", "label": ""}, {"split": "t", "label": 1}])
    with pytest.raises(ConfigError, match="no labelled picture"):
        evaluate_folder(folder, root, "s")
    (root / "1.png").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match="cannot be read as a picture"):
        evaluate_folder(folder, root, "t")
    (root / "labels.csv").write_text("name\n1.png\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="column 'file'"):
        read_pictures(root, {"t"})


def test_boxes_stand_in_for_outlines(tmp_path):
    """A box of boxes.csv is the truth of an abnormal picture; a normal one has none whatever the file says."""
    root = write_folder(tmp_path, [{"split": "s", "label": 1}, {"split": "s", "label": 0}, {"split": "s", "label": 1}])
    with (root / "boxes.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([["file", "x", "y", "w", "h"], ["0.png", 4, 8, 10, 5], ["1.png", 0, 0, 9, 9]])
    sick, well, unknown = read_pictures(root, {"s"})
    truth = truth_of(sick, (64, 64))
    assert truth is not None
    assert np.argwhere(truth).min(axis=0).tolist() == [8, 4]
    assert truth.sum() == 50
    assert not truth_of(well, (64, 64)).any()
    assert truth_of(unknown, (64, 64)) is None


def test_thresholds_are_chosen_on_the_split_and_written(folder, data, tmp_path):
    """The model folder stays valid, and Dice at the new threshold is at least that of the old one."""
    import shutil

    copy = tmp_path / "own"
    shutil.copytree(folder, copy)
    before = evaluate_folder(copy, data).figures["dice"]
    chosen = choose_region_threshold(copy, data)
    assert read_calibration(open_model(copy).read_calibration()).region_heat == chosen
    assert evaluate_folder(copy, data).figures["dice"] >= before - 1e-3
    alpha = choose_alpha(copy, data, most=0.3)
    assert read_calibration(open_model(copy).read_calibration()).alpha == alpha


def test_the_report_shows_figures_and_names_nobody(found, tmp_path):
    """One page with its pictures inside, PNGs beside it, the notice, no patient."""
    page = write_page(found, tmp_path).read_text(encoding="utf-8")
    assert "Research only. Not a medical device." in page
    assert page.count("data:image/png;base64,") == 4
    assert "SECRET" not in page
    assert f"{found.figures['auroc']:.3f}" in page
    assert {path.name for path in tmp_path.glob("*.png")} == {
        "roc-curve.png", "precision-and-recall.png", "reliability.png", "scores-by-class.png"}  # fmt: skip
