"""Figures of merit on cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from dicomnode.train.statistics import (
    auroc,
    average_precision,
    clustered_interval,
    deciles,
    stratified_auroc,
    with_interval,
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
    by_patient = clustered_interval(lambda i: float(values[i].mean()), [str(p) for p in patients])
    by_slice = clustered_interval(lambda i: float(values[i].mean()), [str(i) for i in range(240)])
    assert by_patient[1] - by_patient[0] > 2 * (by_slice[1] - by_slice[0])


def test_an_interval_holds_its_figure_and_deciles_are_balanced():
    """Ten strata of equal size."""
    figure = with_interval(lambda i: float(i.mean()), [str(i) for i in range(50)], repeats=200)
    assert figure["low"] < figure["value"] < figure["high"]
    assert np.bincount(deciles(np.linspace(0, 1, 100))).tolist() == [10] * 10
