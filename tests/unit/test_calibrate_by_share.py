"""Planes are compared with healthy planes that show as much of the organ."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dicomnode.detectors.calibration import read_calibration
from dicomnode.detectors.ensemble import joined, planes_of
from dicomnode.detectors.methods.contract import Judgement
from dicomnode.detectors.preprocess import Prepared
from dicomnode.detectors.resample import Box
from dicomnode.errors import ConfigError
from dicomnode.train.calibrate import HeldBack, ScoreRule, calibrate

RULE = ScoreRule(plane=(("dae", None, 1.0),), map=(("dae", 1.0),), top_planes=3, raw_unit="spreads", by_share=True)


def usual_score(shares, draw):
    """Healthy scores that are higher and spread wider the less of the organ is shown."""
    return 1 + 4 * (1 - shares) + (0.1 + (1 - shares)) * np.abs(draw.normal(0, 1, len(shares)))


def held_back(seed, patients=8, planes=30):
    draw = np.random.default_rng(seed)
    n = patients * planes
    shares = draw.uniform(0.05, 0.9, n).astype(np.float32)
    maps = draw.uniform(0, 1, (n, 4, 4)).astype(np.float32)
    judged = Judgement(usual_score(shares, draw).astype(np.float32), maps)
    names = [f"{seed}-{i // planes}" for i in range(n)]
    return HeldBack(np.ones((n, 4, 4), bool), names, {"dae": judged}, shares)


@pytest.fixture(scope="module")
def folds():
    return [held_back(seed) for seed in range(3)]


def judged(scores):
    return {"dae": Judgement(np.array(scores, np.float32), np.zeros((len(scores), 4, 4), np.float32))}


def test_a_usual_plane_of_the_base_scores_like_a_usual_plane_of_the_middle(folds):
    """What is normal at the skull base is not held against a head; what is not normal in the middle is."""
    calibration = calibrate(folds, RULE)
    draw = np.random.default_rng(9)
    shares = np.repeat([0.15, 0.8], 500).astype(np.float32)
    raws = calibration.plane_raws(judged(usual_score(shares, draw)), np.ones((1000, 4, 4), bool), shares)
    base, middle = raws[:500], raws[500:]
    assert abs(np.median(base) - np.median(middle)) < 0.3
    assert abs(np.quantile(base, 0.9) - np.quantile(middle, 0.9)) < 0.8
    same = calibration.plane_raws(judged([3.5, 3.5]), np.ones((2, 4, 4), bool), np.array([0.15, 0.8], np.float32))
    assert same[1] > 3 > same[0]


def test_without_the_rule_the_same_planes_differ(folds):
    """The gain is the rule's, not the data's."""
    calibration = calibrate(folds, replace(RULE, by_share=False))
    assert calibration.usual == []
    raws = calibration.plane_raws(judged([4.5, 1.8]), np.ones((2, 4, 4), bool))
    assert raws[0] > 2 * raws[1]


def test_the_calibration_comes_back_from_its_file_and_scores_the_same(folds):
    """What was learned on healthy planes is in calibration.json."""
    calibration = calibrate(folds, RULE)
    again = read_calibration(calibration.model_dump_json().encode())
    shares = np.array([0.02, 0.4, 0.99], np.float32)
    masks = np.ones((3, 4, 4), bool)
    assert np.array_equal(
        calibration.plane_raws(judged([2, 3, 4]), masks, shares), again.plane_raws(judged([2, 3, 4]), masks, shares)
    )


def test_a_rule_by_share_needs_shares(folds):
    """No silent comparison with the wrong planes."""
    with pytest.raises(ConfigError, match="share"):
        calibrate([replace(fold, shares=None) for fold in folds], RULE)
    with pytest.raises(ConfigError, match="share"):
        calibrate(folds, RULE).plane_raws(judged([2]), np.ones((1, 4, 4), bool))


def test_a_series_is_scored_by_the_planes_that_show_enough_of_the_organ(folds):
    """Planes of the base take part only where there is nothing else."""
    calibration = calibrate(folds, replace(RULE, series_share=0.4))
    raws, shares = np.array([9.0, 8.0, 1.0, 2.0, 3.0, 0.0]), np.array([0.1, 0.3, 0.4, 0.6, 0.8, 0.9])
    assert calibration.series_raw(raws, shares) == 2.0
    assert calibration.series_raw(raws[:2], shares[:2]) == 8.5
    own = [list(fold) for fold in calibrate(folds, RULE).healthy_series]
    assert calibration.healthy_series != own
    with pytest.raises(ConfigError, match="share"):
        calibration.series_raw(raws)


def test_batches_carry_the_shares_of_their_planes():
    """From the preparation to the score, through joining and choosing."""
    image = np.zeros((32, 32), np.float32)
    made = [Prepared(image, image == 0, Box(0, 0, 32, 32), share) for share in (0.2, 0.5, 0.7)]
    both = joined([planes_of(made[:2], stacked=True), planes_of(made[2:], stacked=True)])
    assert both.shares.tolist() == pytest.approx([0.2, 0.5, 0.7])
    assert both.chosen([2, 0]).shares.tolist() == pytest.approx([0.7, 0.2])
