"""The watch on drift alarms when a distribution has moved, and at the promised rate when it has not."""

from __future__ import annotations

import numpy as np
import pytest

from dicomnode.detect.drift_statistics import cusum, cusum_limit, shift, stability_index


def test_equal_distributions_alarm_at_most_at_the_level_asked_for() -> None:
    """300 pairs of samples of the same distribution at level 0.05."""
    draw = np.random.default_rng(0)
    alarms = [shift(draw.random(100), draw.random(50), 0.05).alarm for _ in range(300)]
    assert np.mean(alarms) <= 0.08


@pytest.mark.parametrize("moved", [lambda x: x**0.15, lambda x: 0.5 + 0.1 * (x - 0.5)])
def test_a_moved_or_narrowed_distribution_alarms(moved) -> None:
    """KS and PSI see a shift and a change of shape, at a level for a hundred strata."""
    draw = np.random.default_rng(1)
    found = shift(draw.random(100), moved(draw.random(50)), 0.01 / 500)
    assert found.alarm
    assert found.p < 1e-4 or found.psi > found.psi_limit


def test_small_samples_raise_the_limit_of_the_stability_index() -> None:
    """0.25 alone would alarm on chance: the limit follows the sample sizes."""
    draw = np.random.default_rng(2)
    small = shift(draw.random(40), draw.random(20), 0.01)
    large = shift(draw.random(5000), draw.random(5000), 0.01)
    assert small.psi_limit > 0.5
    assert large.psi_limit == 0.25


def test_the_stability_index_is_that_of_the_formula() -> None:
    """Σ (new - old) ln(new / old), 0 for equal shares, finite for an empty bin."""
    assert stability_index([0.5, 0.5], [0.5, 0.5]) == 0
    assert stability_index([0.5, 0.5], [0.8, 0.2]) == pytest.approx(0.3 * np.log(1.6) - 0.3 * np.log(0.4))
    assert np.isfinite(stability_index([1.0, 0.0], [0.0, 1.0]))


def test_a_constant_sample_is_compared_without_a_fault() -> None:
    """All reference scores equal: no bins, no spread."""
    assert not shift([0.5] * 50, [0.5] * 50, 0.01).alarm
    assert shift([0.5] * 50, [0.6] * 50, 0.01).alarm


def test_cusum_keeps_its_false_alarm_rate_and_finds_a_small_lasting_shift() -> None:
    """500 windows without drift at level 0.05; then a mean that moved by one standard deviation."""
    draw = np.random.default_rng(3)
    reference = draw.normal(size=20000)
    limit = cusum_limit(50, 0.05)
    false = np.mean([max(cusum(reference, draw.normal(size=50))) > limit for _ in range(500)])
    assert false <= 0.07
    up, down = cusum(reference, draw.normal(1.0, 1.0, 50))
    assert up > limit > down


def test_a_stricter_level_asks_for_a_higher_cusum() -> None:
    assert cusum_limit(50, 1e-5) > cusum_limit(50, 1e-2) > 0
