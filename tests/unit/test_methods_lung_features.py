"""``lung-features``: what it learns from, that it finds lesions on an untrained backbone, and what it keeps."""

from __future__ import annotations

import numpy as np
import pytest
import safetensors.numpy
import torch
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score

from dicomnode.detectors.ensemble import pack_weights, unpack_weights
from dicomnode.detectors.methods.catalogue import build_method
from dicomnode.detectors.methods.contract import Material, Planes, Run
from dicomnode.detectors.methods.features.lung_heads import RidgeSums, balanced, fit_distance, weighted_ridge
from dicomnode.detectors.methods.features.lung_opacities import LungPicture, made_up, with_opacity
from dicomnode.errors import ConfigError
from tests.method_phantoms import labelled, material

QUICK: dict[str, object] = {"size": 32, "batch": 8, "steps": 4, "components": 20}


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def fitted():
    torch.set_num_threads(1)
    method = build_method("lung-features", QUICK)
    method.fit(material(), Run(seed=1))
    return method


def lungs(n: int = 64) -> LungPicture:
    y, x = np.mgrid[:n, :n] / n
    mask = np.any([((x - 0.5 - s * 0.22) / 0.16) ** 2 + ((y - 0.45) / 0.35) ** 2 < 1 for s in (-1, 1)], axis=0)
    return LungPicture(np.where(mask, 0.2, 0.7).astype(np.float32), mask)


def test_lesions_are_found_with_an_untrained_backbone(fitted):
    """AUROC of the planes is at least 0.85 after seconds, without any pretrained weights."""
    planes, _ = labelled()
    assert roc_auc_score(planes.labels, fitted.score(planes)) >= 0.85


def test_the_backbone_is_kept_once_for_all_folds(fitted):
    """Two folds take little more room than one, and answer as before."""
    one, two = pack_weights([{"lung-features": fitted}]), pack_weights([{"lung-features": fitted}] * 2)
    assert len(two) < 1.1 * len(one)
    entry = {"kind": "lung-features", **QUICK}
    folds = unpack_weights(two, {"folds": 2, "networks": [entry]})
    planes, _ = labelled()
    answers = [fold["lung-features"].score(planes) for fold in folds]
    assert np.array_equal(*answers)
    assert answers[0] == pytest.approx(fitted.score(planes), abs=0.05)


def test_only_what_the_folds_differ_in_is_kept_by_fold(fitted):
    """Arrays that are equal lie under ``all``, the others under their fold."""
    other = build_method("lung-features", QUICK)
    other.restore(fitted.tensors())
    other.network.opacity_bias += 1.0
    names = safetensors.numpy.load(pack_weights([{"lung-features": fitted}, {"lung-features": other}]))
    assert {name for name in names if not name.startswith("all.")} == {
        "0.lung-features.opacity_bias",
        "1.lung-features.opacity_bias",
    }


def test_without_a_mixed_set_it_must_be_told_so():
    """The mixed reading needs its set; weighed 0 it is left out and the rest is fitted."""
    healthy = material().healthy
    with pytest.raises(ConfigError, match="mixed"):
        build_method("lung-features", QUICK).fit(Material(healthy), Run())
    method = build_method("lung-features", {**QUICK, "mixed": 0.0})
    method.fit(Material(healthy), Run())
    assert np.isfinite(method.score(healthy)).all()


def test_each_projection_is_measured_against_its_own_kind():
    """With views, healthy AP planes, which lie far from PA ones, are recognised and score like healthy PA planes."""
    healthy = material().healthy
    half = len(healthy) // 2
    images = healthy.images.copy()
    images[half:] = np.clip(images[half:] + 0.4 * healthy.masks[half:], 0, 1)
    views = ("PA",) * half + ("AP",) * (len(healthy) - half)
    planes = Planes(images, healthy.masks, healthy.stacks, views=views)
    method = build_method("lung-features", {**QUICK, "mixed": 0.0, "opacity": 0.0})
    method.fit(Material(planes), Run())
    scores = method.score(planes)
    assert abs(scores[half:].mean() - scores[:half].mean()) < 1.5
    level, spread = method.network.level, method.network.spread
    assert level[3] - level[2] > 3 * spread[2]


def test_an_opacity_makes_lung_brighter_and_nothing_darker_than_noise():
    """Where it is visible, the picture has changed; outside the lungs' hull it has not."""
    picture = lungs()
    changed, visible = with_opacity(picture, np.random.default_rng(3))
    assert visible.max() > 0.1
    assert (changed - picture.image)[visible > 0.1].mean() > 0.02
    assert np.abs(changed - picture.image)[:2].max() < 0.05


def test_made_up_pictures_repeat_by_their_seed_and_some_are_healthy():
    """Same seed, same picture; about a third have no opacity."""
    first, second = (made_up(lungs(), np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(first[0], second[0])
    rng = np.random.default_rng(0)
    without = np.mean([made_up(lungs(), rng)[1].max() == 0 for _ in range(60)])
    assert 0.15 < without < 0.6


def test_the_regressions_are_those_of_the_text_books():
    """Against scikit-learn's ridge on standardised features, at once and by parts."""
    rng = np.random.default_rng(0)
    features, weights = rng.normal(2, 3, (200, 6)), rng.uniform(0.5, 2, 200)
    targets = features @ rng.normal(size=6) + rng.normal(size=200)
    standard = (features - features.mean(0)) / features.std(0)
    known = Ridge(alpha=5.0).fit(standard, targets, sample_weight=weights)
    assert weighted_ridge(features, targets, weights, 5.0)(features) == pytest.approx(known.predict(standard), abs=1e-4)
    sums = RidgeSums()
    sums.add(features[:80], targets[:80])
    sums.add(features[80:], targets[80:])
    known = Ridge(alpha=0.1 * 200).fit(standard, targets)
    assert sums.solved(0.1)(features) == pytest.approx(known.predict(standard), abs=1e-6)


def test_the_distance_is_mahalanobis_with_a_shrunk_covariance():
    """With as many components as features it is scikit-learn's Ledoit-Wolf distance in the turned space."""
    rng = np.random.default_rng(1)
    healthy, mirrored = rng.normal(size=(2, 60, 5)) * [1, 2, 3, 4, 5]
    found = fit_distance(healthy, mirrored, np.ones(60, bool), 5)
    both = np.concatenate([healthy, mirrored]) / (healthy.std(0) + 1e-6)
    known = LedoitWolf().fit(both).mahalanobis(healthy / (healthy.std(0) + 1e-6))
    assert found(healthy) == pytest.approx(np.log(known), abs=1e-4)


def test_projections_and_classes_count_alike():
    """Each pair of class and projection has the same sum of weights."""
    targets, views = np.array([0.0, 0, 0, 1, 1, 0]), np.array([0, 0, 1, 0, 1, 1])
    weights = balanced(targets, views)
    sums = [weights[(targets == t) & (views == v)].sum() for t in (0, 1) for v in (0, 1)]
    assert sums == pytest.approx([sums[0]] * 4)
    assert weights.mean() == pytest.approx(1.0)
