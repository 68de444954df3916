"""Figures of merit on cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from dicomnode.train.statistics import (
    Resampling,
    auroc,
    average_precision,
    deciles,
    delong_interval,
    percentile_interval,
    sensitivity_at,
    stratified_auroc,
)


def test_auroc_counts_ties_half():
    """Mann-Whitney with mid-ranks."""
    assert auroc(np.array([True, True, False, False]), np.array([3.0, 1.0, 1.0, 0.0])) == pytest.approx(0.875)
    assert np.isnan(auroc(np.array([True]), np.array([1.0])))


def test_strata_remove_a_confounder():
    """Scores that only tell the stratum are worth 0.5 within strata."""
    strata = np.repeat([0, 1], 100)
    labels = np.concatenate([np.arange(100) < 20, np.arange(100) < 80])
    scores = strata.astype(float)
    assert auroc(labels, scores) > 0.7
    assert stratified_auroc(labels, scores, strata) == pytest.approx(0.5)


def test_average_precision_of_a_known_ranking():
    """Hits at ranks 1 and 3: (1/1 + 2/3)/2."""
    assert average_precision(np.array([True, False, True]), np.array([3.0, 2.0, 1.0])) == pytest.approx(5 / 6)


def test_the_interval_is_wider_when_whole_patients_are_drawn():
    """Slices of one patient are not independent."""
    draw = np.random.default_rng(0)
    patients = np.repeat(np.arange(12), 20)
    values = np.repeat(draw.normal(size=12), 20)
    by_patient = percentile_interval(Resampling.of([str(p) for p in patients], 1000).mean(values))
    by_slice = percentile_interval(Resampling.of([str(i) for i in range(240)], 1000).mean(values))
    assert by_patient[1] - by_patient[0] > 2 * (by_slice[1] - by_slice[0])
    assert by_patient[0] < values.mean() < by_patient[1]


def test_deciles_are_balanced():
    """Ten strata of equal size."""
    assert np.bincount(deciles(np.linspace(0, 1, 100))).tolist() == [10] * 10


def test_the_fast_bootstrap_is_the_plain_one():
    """Weights per draw give what repeating the patients' samples gives, with ties, strata and unequal patients."""
    draw = np.random.default_rng(1)
    patients = [f"p{i}" for i in draw.integers(0, 9, 60)]
    labels, strata = draw.random(60) < 0.4, draw.integers(0, 3, 60)
    scores = np.round(draw.normal(size=60) + labels, 1)
    resampling = Resampling.of(patients, repeats=20)
    fast = resampling.auroc(labels, scores, strata), resampling.average_precision(labels, scores)
    for number, counts in enumerate(resampling.counts):
        rows = np.repeat(np.arange(60), counts[resampling.owner])
        plain = stratified_auroc(labels[rows], scores[rows], strata[rows])
        assert fast[0][number] == pytest.approx(plain, nan_ok=True)
        assert fast[1][number] == pytest.approx(average_precision(labels[rows], scores[rows]), nan_ok=True)


def test_average_precision_with_ties_is_that_of_the_thresholds():
    """Equal scores are called together; the same as scikit-learn's."""
    from sklearn.metrics import average_precision_score

    draw = np.random.default_rng(2)
    labels, scores = draw.random(200) < 0.3, draw.integers(0, 8, 200).astype(float)
    assert average_precision(labels, scores) == pytest.approx(average_precision_score(labels, scores))


def test_delong_interval_of_a_published_kind_of_case():
    """The interval holds the AUROC, narrows with the square root of n, and matches the components by definition."""
    draw = np.random.default_rng(3)
    labels = np.repeat([True, False], 40)
    scores = draw.normal(size=80) + labels
    low, high = delong_interval(labels, scores)
    wins = (scores[labels][:, None] > scores[~labels][None, :]).astype(float)
    spread = np.sqrt(wins.mean(axis=1).var(ddof=1) / 40 + wins.mean(axis=0).var(ddof=1) / 40)
    assert (high - low) / 2 == pytest.approx(1.959964 * spread)
    assert (high + low) / 2 == pytest.approx(wins.mean())
    wide = delong_interval(np.tile(labels, 4), np.tile(scores, 4))
    assert (wide[1] - wide[0]) == pytest.approx((high - low) / 2, rel=0.03)


def test_sensitivity_at_a_specificity_counts_a_tie_as_called():
    """With specificity 0.9 of ten normals one may be called."""
    labels = np.array([True] * 4 + [False] * 10)
    scores = np.array([9.0, 8.0, 5.0, 1.0, 6.0, *range(-9, 0)])
    assert sensitivity_at(labels, scores, 0.9) == pytest.approx(1.0)
    assert sensitivity_at(labels, scores, 0.95) == pytest.approx(0.5)
    assert np.isnan(sensitivity_at(labels[:4], scores[:4], 0.9))
