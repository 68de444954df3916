"""Calibrated scores: valid against healthy patients, continuous, and in the order of the raw scores."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from dicomnode.detectors.conformal import conformal_score, false_positive_rate, quantile_heat, step_of, threshold_for


def test_the_count_is_exact_and_the_place_lies_between_the_neighbours():
    """count of healthy >= raw, and the linear place between two healthy scores."""
    healthy = [3.0, 1.0, 2.0, 2.0]
    assert [step_of(healthy, raw)[0] for raw in (0.0, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0)] == [4, 4, 3, 3, 1, 1, 0]
    assert step_of(healthy, 1.25)[1] == pytest.approx(0.25)
    assert step_of(healthy, 0.5)[1] == 0
    assert 0 < step_of(healthy, 3.5)[1] < step_of(healthy, 9.0)[1] < 1


def test_a_higher_raw_score_never_lowers_the_score_and_raises_it_beyond_the_last_patient():
    """Ranking survives calibration."""
    healthy = [list(np.linspace(1, 2, 15)), list(np.linspace(1.1, 2.2, 17))]
    scores = [conformal_score(healthy, [raw, raw]) for raw in np.linspace(0, 4, 200)]
    assert all(b >= a for a, b in pairwise(scores))
    beyond = [conformal_score(healthy, [raw, raw]) for raw in (2.3, 2.6, 3.0)]
    assert beyond[0] < beyond[1] < beyond[2] < 1


def test_the_decision_is_that_of_the_exact_p_value():
    """The place inside a step never lifts a score over the threshold."""
    draw = np.random.default_rng(1)
    for _ in range(300):
        folds = [list(draw.normal(size=n)) for n in (11, 11, 10)]
        raws = list(draw.normal(1.5, 1, size=3))
        count = sum(h >= raw for fold, raw in zip(folds, raws, strict=True) for h in fold)
        assert (conformal_score(folds, raws) >= threshold_for(32, 0.05)) == ((1 + count) / 33 <= 0.05)


def test_a_healthy_patient_reaches_the_threshold_at_the_stated_rate():
    """Split conformal: the share of new healthy patients at the threshold is floor(α(n+1))/(n+1)."""
    draw = np.random.default_rng(3)
    rate = false_positive_rate(39, 0.05)
    assert rate == pytest.approx(2 / 40)
    limit = threshold_for(39, 0.05)
    hits = [conformal_score([list(draw.normal(size=39))], [float(draw.normal())]) >= limit for _ in range(3000)]
    assert np.mean(hits) == pytest.approx(rate, abs=3 * np.sqrt(rate * (1 - rate) / 3000))


@pytest.mark.parametrize(("n", "possible"), [(18, False), (19, True), (32, True)])
def test_a_rate_of_five_percent_needs_nineteen_patients(n, possible):
    """With fewer patients no score can reach the threshold, and a calibration with them is refused."""
    assert (conformal_score([list(np.arange(float(n)))], [1e9]) >= threshold_for(n, 0.05)) is possible


def test_heat_is_the_stated_share_at_each_knot_and_stays_below_one():
    """0.5 at the healthy 95th percentile, 0.9 at the 99.5th, rising towards 1 beyond."""
    knots = [(0.5, 1.0), (0.9, 2.0)]
    heat = quantile_heat(np.array([0.0, 0.5, 1.0, 2.0, 3.0, 9.0]), knots)
    assert heat[:4].tolist() == pytest.approx([0, 0.25, 0.5, 0.9])
    assert 0.9 < heat[4] < heat[5] <= 1
    assert heat.dtype == np.float32
