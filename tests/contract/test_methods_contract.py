"""What every method of the catalogue promises, whatever its family."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dicomnode.detectors.methods.catalogue import build_method, catalogue, method_entry
from dicomnode.detectors.methods.contract import Method, Run
from dicomnode.errors import ConfigError
from tests.method_phantoms import labelled, material

_TRANSLATION: dict[str, object] = {"width": 8, "blocks": 1, "critic_width": 8}
QUICK: dict[str, dict[str, object]] = dict.fromkeys(
    ("anomalypro", "brainomaly", "brainomaly-clamped"), _TRANSLATION
) | {
    "ae-3d": {"depth": 4, "width": 8},
    "bayes-ae": {"samples": 2},
    "ddpm": {"width": 8, "back": 2},
}
"""Smaller settings of methods that are slow at 32 pixels; everything else runs with size 32 and batch 8."""


def fitted(name: str) -> Method:
    entry = method_entry(name)
    torch.set_num_threads(1)
    method = build_method(name, {"size": 32, "batch": 8, "steps": 3, **QUICK.get(name, {})})
    method.fit(material(depth=4 if entry.stacked else 1), Run(seed=1))
    return method


@pytest.fixture(scope="module", params=sorted(catalogue()))
def case(request):
    entry = method_entry(request.param)
    planes, _ = labelled(depth=4 if entry.stacked else 1)
    return request.param, fitted(request.param), planes


def test_a_method_answers_a_score_and_a_map_for_every_plane(case):
    """Shapes, finite numbers, maps that are not negative, on the grid of the planes."""
    _, method, planes = case
    judged = method.judge(planes)
    assert judged.scores.shape == (len(planes),)
    assert judged.maps.shape == planes.images.shape
    assert np.isfinite(judged.scores).all()
    assert np.isfinite(judged.maps).all()
    assert (judged.maps >= 0).all()
    assert np.allclose(method.score(planes), judged.scores, atol=1e-5)
    assert np.allclose(method.map(planes), judged.maps, atol=1e-5)


def test_what_a_method_learned_can_be_kept_and_taken_up_again(case):
    """Plain arrays, through safetensors, give the same answers in a new method of the same settings."""
    import safetensors.numpy

    name, method, planes = case
    arrays = {key: np.ascontiguousarray(value) for key, value in method.tensors().items()}
    kept = safetensors.numpy.load(safetensors.numpy.save(arrays))
    first, second = (build_method(name, {"size": 32, "batch": 8, "steps": 3, **QUICK.get(name, {})}) for _ in range(2))
    first.restore(kept)
    second.restore(kept)
    again = first.judge(planes)
    assert np.allclose(again.scores, second.judge(planes).scores, atol=1e-6)
    spread = float(np.ptp(method.judge(planes).scores)) + 1e-6
    assert np.abs(again.scores - method.score(planes)).max() <= 0.05 * spread + 1e-3


def test_arrays_of_another_method_are_refused(case):
    """A wrong file is an error, not a silent nonsense."""
    name, _, _ = case
    with pytest.raises(ConfigError):
        build_method(name, {"size": 32}).restore({"nothing": np.zeros(3, np.float32)})


def test_the_same_seed_gives_the_same_method(case):
    """Training can be repeated on the same machine."""
    name, method, planes = case
    assert np.allclose(fitted(name).score(planes), method.score(planes), atol=1e-5)


def test_a_plane_is_judged_alike_alone_and_in_company(case):
    """Batches do not leak into each other (methods that need neighbours see their own stack only)."""
    name, method, planes = case
    stack = planes.stacks[1]
    alone = method.judge(planes.chosen(stack))
    together = method.judge(planes)
    assert np.allclose(alone.scores, together.scores[list(stack)], atol=1e-4, rtol=1e-3), name


def test_an_entry_says_what_it_is(case):
    """Source, unit of the score and the rows of the papers are there for reports and for docs/methods.md."""
    entry = method_entry(case[0])
    assert entry.source
    assert entry.score
    assert entry.rows


def test_an_unknown_method_or_setting_is_told():
    """The names there are, and the setting that is wrong."""
    with pytest.raises(ConfigError, match="there are"):
        build_method("no-such-method", {})
    with pytest.raises(ConfigError, match="breadth"):
        build_method("ae-u", {"breadth": 3})
