"""What head detectors promise beyond the contract of all: axial planes only, and no plane left out in silence."""

from __future__ import annotations

import numpy as np
import pytest

from dicomnode.detectors.contract import LoadedDetector, Outcome
from dicomnode.detectors.discovery import discover
from dicomnode.models.registry import ModelRegistry
from tests.contract.test_detectors_contract import SAGITTAL, phantom, volume

HEADS = ("ct-head", "mr-brain-flair")


@pytest.fixture(scope="module", params=HEADS)
def head(request: pytest.FixtureRequest) -> tuple[str, LoadedDetector]:
    detector = discover().detectors[request.param]
    return request.param, detector.load(ModelRegistry().get(detector.default_model).folder, "cpu")


def test_a_plane_that_is_not_axial_is_not_analysed(head: tuple[str, LoadedDetector]) -> None:
    name, loaded = head
    result = loaded.detect(volume([phantom(name, (160, 150), lesion=False, seed=1)], SAGITTAL))
    assert result.outcome is Outcome.NOT_ANALYSED
    assert "not axial" in result.reason


def test_a_plane_that_cannot_be_used_is_marked_as_left_out(head: tuple[str, LoadedDetector]) -> None:
    name, loaded = head
    pixels = [phantom(name, (160, 150), lesion=False, seed=i) for i in range(2)]
    result = loaded.detect(volume([*pixels, np.zeros((160, 150), np.float32)]))
    assert [bool(plane.left_out) for plane in result.planes] == [False, False, True]
    assert "validation" in result.parameters
