"""A map that does not depend on the model, or marks what does not matter, is found out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from dicomnode.detectors.contract import Array
from dicomnode.detectors.methods.catalogue import build_method
from dicomnode.detectors.methods.contract import Judgement, Method, Planes, Run
from dicomnode.train.probing import Probe
from dicomnode.train.saliency import (
    ALIKE,
    Explained,
    OfMethod,
    filled,
    rank_correlation,
    saliency_study,
    shuffled,
    structural_similarity,
    top_part,
)
from tests.method_phantoms import labelled, material


def built() -> Method:
    return build_method("ae-l2", {"size": 32, "batch": 16, "steps": 150, "width": 8})


@pytest.fixture(scope="module")
def probe() -> Probe:
    planes, truths = labelled()
    assert planes.labels is not None
    return Probe(planes, planes.labels == 1, truths, np.zeros(len(planes), np.intp))


@pytest.fixture(scope="module")
def fitted() -> OfMethod:
    torch.set_num_threads(1)
    method = built()
    method.fit(material(), Run(seed=1))
    return OfMethod(method, built)


class Redrawn:
    """The scores of a method beside a map that is made from the image alone."""

    def __init__(self, inner: Explained, sign: float = 1.0) -> None:
        self._inner, self._sign = inner, sign

    def judge(self, planes: Planes) -> Judgement:
        edges = np.stack([ndimage.gaussian_gradient_magnitude(image, 1.0) for image in planes.images])
        return Judgement(self._inner.judge(planes).scores, edges.astype(np.float32))

    def randomised(self, seed: int) -> Explained | None:
        other = self._inner.randomised(seed)
        return None if other is None else Redrawn(other)


class Turned:
    """A method whose map is cold where it should be hot."""

    def __init__(self, inner: Explained) -> None:
        self._inner = inner

    def judge(self, planes: Planes) -> Judgement:
        judged = self._inner.judge(planes)
        maps: Array = judged.maps.max(axis=(1, 2), keepdims=True) - judged.maps
        return Judgement(judged.scores, maps)

    def randomised(self, seed: int) -> Explained | None:
        other = self._inner.randomised(seed)
        return None if other is None else Turned(other)


def test_the_maps_of_a_trained_method_pass(fitted, probe):
    """A residual map follows the weights, its hottest part carries the score, and it points at the lesion."""
    found = saliency_study(fitted, probe)
    assert found["passed"], found
    assert found["randomised_weights"]["rank_correlation"] < ALIKE
    assert found["deletion"]["planes_won"] > 0.8
    assert found["pointing_game"]["hits"] > 2 * found["pointing_game"]["chance"]


def test_an_edge_detector_fails_the_randomised_weights(fitted, probe):
    """Its map looks the same whatever the model has learned (Adebayo et al. 2018)."""
    found = saliency_study(Redrawn(fitted), probe)
    assert found["randomised_weights"]["rank_correlation"] == pytest.approx(1.0)
    assert found["randomised_weights"]["structural_similarity"] == pytest.approx(1.0)
    assert found["randomised_weights"]["passed"] is False
    assert found["passed"] is False


def test_a_map_that_marks_the_wrong_places_fails_deletion_and_pointing(fitted, probe):
    """Covering what it calls hot does not lower the score, and it does not point at lesions."""
    found = saliency_study(Turned(fitted), probe)
    assert found["deletion"]["passed"] is False
    assert found["pointing_game"]["passed"] is False


def test_without_outlines_or_abnormal_planes_the_checks_say_that_they_were_not_made(fitted, probe):
    """No silent pass: passed is None with a reason, and one check alone decides."""
    count = len(probe.planes)
    bare = Probe(probe.planes, np.zeros(count, bool), np.zeros_like(probe.truths), probe.strata)
    found = saliency_study(fitted, bare)
    assert found["pointing_game"] == {"passed": None, "reason": "no outline or box"}
    assert found["deletion"]["passed"] is None
    assert found["passed"] is True


def test_shuffled_numbers_are_the_same_numbers():
    """Only the order changes; whole numbers stay, and nothing to shuffle is told."""
    tensors = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.arange(4)}
    other = shuffled(tensors, 0)
    assert other is not None
    assert sorted(other["a"].ravel()) == sorted(tensors["a"].ravel())
    assert not np.array_equal(other["a"], tensors["a"])
    assert np.array_equal(other["n"], tensors["n"])
    assert shuffled({"n": np.arange(4)}, 0) is None


def test_likeness_is_one_for_equal_maps_and_small_for_unrelated_ones():
    """Both measures, inside the organ only; a flat map is like nothing."""
    draw = np.random.default_rng(0)
    first, second = draw.random((2, 32, 32)).astype(np.float32)
    mask = np.ones((32, 32), bool)
    assert rank_correlation(first, 2 * first + 1, mask) == pytest.approx(1.0)
    assert rank_correlation(first, second, mask) < 0.2
    assert rank_correlation(first, np.zeros_like(first), mask) == 0.0
    assert structural_similarity(first, 3 * first, mask) > 0.99
    assert structural_similarity(first, second, mask) < 0.2


def test_covering_takes_so_much_and_fills_it_from_around():
    """The part has the wanted size inside the organ, and a spot vanishes without an edge."""
    mask = np.zeros((32, 32), bool)
    mask[4:24, 4:24] = True
    part = top_part(np.random.default_rng(0).random((32, 32)).astype(np.float32), mask, 0.1)
    assert part.sum() == 40
    assert not (part & ~mask).any()
    image = np.full((32, 32), 0.5, np.float32)
    image[10:14, 10:14] = 1.0
    assert np.allclose(filled(image, image > 0.9), 0.5, atol=1e-3)
