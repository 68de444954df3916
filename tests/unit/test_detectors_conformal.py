"""Calibrated scores: valid against healthy patients, continuous, and in the order of the raw scores."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from dicomnode.detectors.conformal import conformal_score, exceeding, quantile_heat, reachable


def test_the_count_is_exact_at_healthy_scores_and_never_too_small_between_them():
    """Interpolation keeps the p-value conservative."""
    healthy = [3.0, 1.0, 2.0, 2.0]
    assert [exceeding(healthy, raw) for raw in (1.0, 2.0, 3.0)] == [4, 3, 1]
    assert exceeding(healthy, 0.0) == 4
    for raw in np.linspace(0, 5, 101):
        assert exceeding(healthy, raw) >= sum(h >= raw for h in healthy)


def test_a_higher_raw_score_never_lowers_the_score_and_raises_it_beyond_the_last_patient():
    """Ranking survives calibration."""
    healthy = [list(np.linspace(1, 2, 15)), list(np.linspace(1.1, 2.2, 17))]
    scores = [conformal_score(healthy, [raw, raw]) for raw in np.linspace(0, 4, 200)]
    assert all(b >= a for a, b in pairwise(scores))
    beyond = [conformal_score(healthy, [raw, raw]) for raw in (2.3, 2.6, 3.0)]
    assert beyond[0] < beyond[1] < beyond[2] < 1 - 1 / 33


def test_a_healthy_patient_exceeds_the_threshold_at_most_at_the_stated_rate():
    """Split conformal: P(score >= 0.95) <= 0.05 for a new patient of the same population."""
    draw = np.random.default_rng(3)
    hits = [conformal_score([list(draw.normal(size=39))], [float(draw.normal())]) >= 0.95 for _ in range(4000)]
    assert 0.015 < np.mean(hits) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 4000)


@pytest.mark.parametrize(("n", "possible"), [(18, False), (19, True), (32, True)])
def test_a_threshold_of_95_percent_needs_nineteen_patients(n, possible):
    """With fewer patients no score could reach it."""
    assert reachable(n, 0.95) is possible


def test_heat_is_the_stated_share_at_each_knot_and_stays_below_one():
    """0.5 at the healthy 95th percentile, 0.9 at the 99.5th, rising towards 1 beyond."""
    knots = [(0.5, 1.0), (0.9, 2.0)]
    heat = quantile_heat(np.array([0.0, 0.5, 1.0, 2.0, 3.0, 9.0]), knots)
    assert heat[:4].tolist() == pytest.approx([0, 0.25, 0.5, 0.9])
    assert 0.9 < heat[4] < heat[5] <= 1
    assert heat.dtype == np.float32
