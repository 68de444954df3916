"""Every result says how well its model did in validation, and warns when that was no better than a coin."""

import pytest

from dicomnode.detectors.validation import validation_parameters
from dicomnode.models.registry import ModelRegistry


def figure(value: float, low: float, high: float) -> dict[str, dict[str, float]]:
    return {"auroc": {"value": value, "low": low, "high": high, "abnormal": 20, "normal": 25}}


def test_the_figure_has_its_interval_and_its_numbers():
    said = validation_parameters({"val": figure(0.856, 0.758, 0.933), "val_ap": figure(0.7, 0.6, 0.8)})
    assert said["validation"] == (
        "val: AUROC per image 0.856, 95 % interval 0.758 to 0.933 (20 abnormal, 25 normal images); "
        "val_ap: AUROC per image 0.700, 95 % interval 0.600 to 0.800 (20 abnormal, 25 normal images)"
    )
    assert said["validation AUROC"] == "0.86 (0.76-0.93)"
    assert "warning" not in said


@pytest.mark.parametrize(("low", "warned"), [(0.336, True), (0.5, True), (0.501, False)])
def test_an_interval_that_reaches_down_to_chance_is_a_warning(low, warned):
    assert ("warning" in validation_parameters({"val": figure(0.6, low, 0.7)})) is warned


def test_a_card_without_figures_says_so():
    assert validation_parameters({}) == {"validation": "not measured"}
    assert validation_parameters({"val": {"pictures": 3}}) == {"validation": "not measured"}


def test_every_shipped_model_states_its_figure():
    for model in ModelRegistry().list():
        assert "validation AUROC" in validation_parameters(model.card.metrics), model.name
