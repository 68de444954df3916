"""Figures of localisation on maps whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from dicomnode.train.pixels import HEAT_STEPS, PixelTally, heat_steps, localisation, rank_steps


def planes() -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    truths = np.zeros((6, 24, 24), bool)
    truths[0, 3:8, 3:8] = truths[1, 10:20, 5:9] = truths[1, 2:4, 20:22] = True
    return (draw.random(truths.shape) * 0.6 + 0.35 * truths).astype(np.float32), truths


def tally_of(steps: np.ndarray, truths: np.ndarray) -> PixelTally:
    tally = PixelTally()
    for own, truth in zip(steps, truths, strict=True):
        tally.add(own, truth)
    return tally


def test_pixel_average_precision_is_that_of_all_pixels():
    """Counting in steps changes nothing that matters; normal planes count."""
    heat, truths = planes()
    exact = average_precision_score(truths.ravel(), heat.ravel())
    for steps in (heat_steps(heat), rank_steps(heat * 40)):
        assert tally_of(steps, truths).figures()["pixel_ap"] == pytest.approx(exact, abs=2e-3)


def test_dice_at_a_threshold_and_its_oracle():
    """Mean over the abnormal planes; no fixed threshold beats the best one by more than the grid's coarseness."""
    heat, truths = planes()
    figures = localisation(tally_of(heat_steps(heat), truths), 0.5)
    found = heat >= 0.5
    plain = [2 * (found[i] & truths[i]).sum() / (found[i].sum() + truths[i].sum()) for i in range(2)]
    assert figures["dice_mean"] == pytest.approx(np.mean(plain), abs=1e-3)
    assert figures["dice_overall"] == pytest.approx(2 * (found & truths).sum() / (found.sum() + truths.sum()), abs=1e-3)
    assert figures["dice_oracle"] >= figures["dice_mean"] - 0.01


def test_aupro_of_a_perfect_and_of_a_blind_map():
    """1 when every region is reached before any normal pixel, 0.15 (half of the limit) for chance."""
    _, truths = planes()
    assert tally_of(heat_steps(truths * 0.9), truths).figures()["aupro"] == pytest.approx(1.0)
    noise = np.random.default_rng(1).random((60, 24, 24))
    blind = tally_of(heat_steps(noise), np.tile(truths, (10, 1, 1))).figures()["aupro"]
    assert blind == pytest.approx(0.15, abs=0.05)


def test_steps_stay_in_range():
    """Heat 1 is the last step."""
    assert heat_steps(np.array([0.0, 1.0])).tolist() == [0, HEAT_STEPS - 1]
