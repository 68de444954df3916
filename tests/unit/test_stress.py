"""What a model is worth under attack, from gradients and from noise, on made-up chest pictures."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from dicomnode.cli import cli
from dicomnode.cli.stress import stress as command
from dicomnode.detectors.residual import load_residual_detector
from dicomnode.errors import ConfigError
from dicomnode.train.attack_study import attack_study, attack_text, attackable, pgd
from dicomnode.train.build import train_model
from dicomnode.train.calibrate import ScoreRule
from dicomnode.train.datasets import read_pictures
from dicomnode.train.probing import probe_of
from dicomnode.train.recipes import RECIPES, NetworkRecipe
from dicomnode.train.stress import stress_model
from tests.picture_folders import chest_folder

EPSILONS = (0.002, 0.01, 0.03)
"""Larger than those of real models: the lesions of the phantom are bright."""
RECIPE = replace(
    RECIPES["cxr"],
    preparation="radiograph",
    size=32,
    networks=(
        NetworkRecipe({"kind": "ae-l2", "size": 32, "width": 4, "batch": 16}, 60),
        NetworkRecipe({"kind": "z-score", "size": 32}),
    ),
    folds=2,
    mixed=None,
    backbone=None,
    rule=ScoreRule(
        plane=(("ae-l2", 0.05, 1.0), ("z-score", 0.05, 0.2)), map=(("ae-l2", 1.0),), top_planes=1, raw_unit="test unit"
    ),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return chest_folder(tmp_path_factory.mktemp("chests"))


@pytest.fixture(scope="module")
def folder(data, tmp_path_factory):
    torch.set_num_threads(1)
    return train_model(RECIPE, data, tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def probed(data, folder):
    detector = load_residual_detector("cxr", folder, "cpu")
    return detector, probe_of(detector, read_pictures(data, {"val"}), 1.0, 24)


@pytest.fixture(scope="module")
def study(probed):
    return attack_study(*probed, epsilons=EPSILONS, steps=8)


def test_the_auroc_falls_with_the_size_of_the_attack(study):
    """PGD raises healthy planes and lowers abnormal ones; more of it never helps the model."""
    clean, rows = study["clean"]["auroc"], study["epsilons"]
    figures = [clean, *(row["pgd"]["auroc"] for row in rows)]
    assert clean > 0.8
    assert figures == sorted(figures, reverse=True)
    assert figures[-1] < clean
    assert all(row["pgd"]["score_change_normal_sd"] > 0 > row["pgd"]["score_change_abnormal_sd"] for row in rows)


def test_noise_of_the_same_size_hurts_less(study):
    """Even the worst of several draws; otherwise the attack would not be one."""
    for row in study["epsilons"]:
        assert row["noise"]["auroc"] >= row["pgd"]["auroc"]
        assert row["noise"]["score_change_normal_sd"] < row["pgd"]["score_change_normal_sd"]
        assert row["noise"]["flipped"] <= row["pgd"]["flipped"]


def test_a_method_without_gradient_is_named_with_its_reason(study, probed):
    """z-score is no network; the attack goes through the other term alone."""
    assert study["attacked"] == ["ae-l2"]
    assert study["not_attackable_by_gradients"] == {"z-score": "not a network"}
    assert "z-score: not a network" in attack_text(study)
    detector, probe = probed
    assert len(attackable(detector, probe)[0]) == 2


def test_a_model_without_any_gradient_gets_noise_alone(probed):
    """The text says that noise is only a lower bound."""
    detector, probe = probed
    terms = [term for term in detector.calibration.plane_score if term.kind == "z-score"]
    kept = detector.calibration
    detector.calibration = kept.model_copy(update={"plane_score": terms})
    try:
        found = attack_study(detector, probe, epsilons=(0.01,), steps=2)
    finally:
        detector.calibration = kept
    assert found["epsilons"][0]["pgd"] is None
    assert found["epsilons"][0]["noise"]["auroc"] is not None
    assert "lower bound" in attack_text(found)


def test_an_attack_stays_within_its_bound(probed):
    """No pixel moves farther than epsilon, and none leaves the grey range."""
    detector, probe = probed
    parts, _ = attackable(detector, probe)
    clean = torch.from_numpy(probe.planes.images[:4])[:, None]
    masks = torch.from_numpy(probe.planes.masks[:4])[:, None].float()
    moved = pgd(parts, clean, clean, masks, torch.ones(4), 0.005, 6)
    assert float((moved - clean).abs().max()) <= 0.005 + 1e-6
    assert float(moved.min()) >= 0.0
    assert float(moved.max()) <= 1.0
    assert float((moved - clean).abs().max()) > 0.004


def test_a_probe_has_both_classes_and_no_more_planes_than_asked(data, probed):
    """Equal parts of both labels, the same every time; one class alone is refused."""
    detector, _ = probed
    pictures = read_pictures(data, {"val"})
    probe = probe_of(detector, pictures, 1.0, 10)
    assert len(probe.planes) == 10
    assert probe.abnormal.sum() == 5
    assert probe.truths[probe.abnormal].any()
    assert np.array_equal(probe.planes.images, probe_of(detector, pictures, 1.0, 10).planes.images)
    with pytest.raises(ConfigError, match="label 1"):
        probe_of(detector, [one for one in pictures if one.label == 0], 1.0, 10)


def test_the_command_prints_all_studies_as_json_without_patient_data(data, folder):
    """Attack, saliency and shifts; neither patient nor file names are in it."""
    arguments = [str(folder), str(data), "--limit", "8", "--accelerator", "cpu", "--json"]
    answer = CliRunner().invoke(command, arguments)
    assert answer.exit_code == 0, answer.output
    found = json.loads(answer.stdout)
    assert [row["epsilon"] for row in found["attack"]["epsilons"]] == [0.001, 0.002, 0.005]
    assert found["saliency"]["randomised_weights"]["passed"] is True
    assert "gamma 0.6" in found["shifts"]["shifts"]
    assert "SECRET" not in answer.stdout
    assert ".png" not in answer.stdout


def test_the_command_prints_tables_for_people(data, folder, monkeypatch):
    """One line per attack, per check and per shift."""
    small = stress_model(folder, data, limit=6)
    monkeypatch.setattr("dicomnode.train.stress.stress_model", lambda *_args, **_options: small)
    answer = CliRunner().invoke(command, [str(folder), str(data), "--accelerator", "cpu"])
    assert answer.exit_code == 0, answer.output
    assert "randomised weights" in answer.stdout
    assert "pgd" in answer.stdout
    assert "sharper kernel" in answer.stdout


@pytest.mark.parametrize("split", ["train_normal", "nowhere"])
def test_a_split_that_cannot_be_used_is_an_error(data, folder, split):
    """No pictures, or pictures of one label only: ConfigError, which the command line turns into status 2."""
    with pytest.raises(ConfigError):
        CliRunner().invoke(
            cli, ["stress", str(folder), str(data), "--split", split], catch_exceptions=False, standalone_mode=False
        )
