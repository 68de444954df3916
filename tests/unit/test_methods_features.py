"""The feature methods find the phantom's lesions with an untrained backbone, and stand alone once fitted."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from sklearn.metrics import roc_auc_score

from dicomnode.detectors.methods.backbones.frozen import FrozenBackbone, build_network
from dicomnode.detectors.methods.catalogue import build_method
from dicomnode.detectors.methods.contract import Method, Run
from dicomnode.detectors.methods.features.coreset import coreset
from dicomnode.detectors.methods.features.deep_svdd import OneClassEncoder
from dicomnode.detectors.methods.features.frozen_method import FeatureGrid
from dicomnode.detectors.methods.features.padim import Padim, PadimSettings
from dicomnode.detectors.methods.features.patchcore import Patchcore, PatchcoreSettings
from dicomnode.detectors.methods.features.reverse_distillation import ReverseDistillation
from dicomnode.detectors.methods.features.scoring import blurred, masked_max, on_grid
from dicomnode.errors import ConfigError
from tests.method_phantoms import labelled, material

FLOORS = [
    ("padim", {}, 0.95, 0.85),
    ("patchcore", {"layers": [1, 2], "bank": 200}, 0.95, 0.9),
    ("features-gaussian", {}, 0.95, 0.85),
    ("features-knn", {}, 0.95, 0.85),
    ("deep-svdd", {"steps": 60, "batch": 8}, 0.9, 0.8),
    ("reverse-distillation", {"steps": 50, "batch": 4}, 0.9, 0.75),
]
ON_BACKBONE = ["padim", "patchcore", "features-gaussian", "features-knn", "reverse-distillation"]


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.mark.parametrize(("name", "settings", "planes_floor", "pixels_floor"), FLOORS)
def test_a_feature_method_finds_lesions_and_their_place(name, settings, planes_floor, pixels_floor):
    """AUROC of planes and of pixels reach the stated floors after seconds, without any pretrained weights."""
    planes, truth = labelled()
    method = build_method(name, {"size": 32, **settings})
    method.fit(material(), Run(seed=1))
    judged = method.judge(planes)
    assert roc_auc_score(planes.labels, judged.scores) >= planes_floor
    assert roc_auc_score(truth.ravel(), judged.maps.ravel()) >= pixels_floor


@pytest.mark.parametrize("name", ["padim", "patchcore", "features-knn"])
def test_planes_of_another_size_are_judged(name):
    """Planes of 32 pixels by a method of 64: scores separate, maps come back at 32."""
    planes, _ = labelled()
    method = build_method(name, {"size": 64, "layers": [1, 2], "channels": 40} if name == "padim" else {"size": 64})
    method.fit(material(), Run())
    judged = method.judge(planes)
    assert judged.maps.shape == planes.images.shape
    assert roc_auc_score(planes.labels, judged.scores) >= 0.95


def weights_file(folder: Path) -> dict[str, str]:
    torch.manual_seed(2)
    path = folder / "weights.safetensors"
    safetensors.torch.save_file(build_network("squeezenet1-0").state_dict(), path)
    return {"backbone_weights": str(path), "backbone_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


@pytest.mark.parametrize("name", ON_BACKBONE)
def test_a_fitted_method_stands_alone(name, tmp_path):
    """The file of the backbone's weights may be gone: the arrays hold the backbone, in float16."""
    planes, _ = labelled()
    shape = {"size": 32, "backbone": "squeezenet1-0", "layers": [1, 2], "steps": 2, "batch": 4}
    method = build_method(name, {**shape, **weights_file(tmp_path)})
    method.fit(material(), Run())
    kept = safetensors.numpy.load(safetensors.numpy.save(method.tensors()))
    assert kept["backbone.network.features.0.weight"].dtype == np.float16
    (tmp_path / "weights.safetensors").unlink()
    again = build_method(name, shape)
    again.restore(kept)
    expected = method.score(planes)
    assert np.abs(again.score(planes) - expected).max() <= 0.05 * np.ptp(expected)


@pytest.mark.parametrize("name", ["padim", "patchcore"])
def test_a_random_backbone_is_kept_as_its_seed(name):
    """The arrays hold no kernel of it; a fingerprint that does not come out again is refused."""
    method = build_method(name, {"size": 32, "backbone_seed": 9})
    method.fit(material(), Run())
    kept = method.tensors()
    assert int(kept["backbone.seed"]) == 9
    assert not any(key.startswith("backbone.network") for key in kept)
    other = {**kept, "backbone.seed": np.array(8)}
    with pytest.raises(ConfigError, match="seed"):
        build_method(name, {"size": 32}).restore(other)
    with pytest.raises(ConfigError, match="do not fit"):
        build_method(name, {"size": 64}).restore({**kept, "mean": kept.get("mean", kept["level"])[:1]})


def test_a_wrong_hash_stops_the_fit(tmp_path):
    """No method is fitted on weights that are not those of the settings."""
    settings = {**weights_file(tmp_path), "backbone_sha256": "0" * 64, "backbone": "squeezenet1-0"}
    with pytest.raises(ConfigError, match="SHA-256"):
        build_method("padim", {"size": 32, **settings}).fit(material(), Run())


def patchcore() -> Method:
    method = build_method("patchcore", {"size": 32, "layers": [1], "bank": 60})
    method.fit(material(), Run())
    return method


def test_patchcore_tells_the_nearest_healthy_patch():
    """It names a training plane and a place in it; for a lesion the suspect place is near it and farther away."""
    method = patchcore()
    assert isinstance(method, Patchcore)
    healthy = material().healthy
    origins = method.network.origins.numpy()
    assert len(origins) == len(method.network.bank) == 60
    assert origins[:, 0].max() < len(healthy)
    planes, truth = labelled()
    found = method.nearest(planes)
    assert np.array_equal(found.origin[:, 0], origins[found.entry, 0])
    assert ((found.origin[:, 1:] >= 0) & (found.origin[:, 1:] < planes.size)).all()
    for i in np.flatnonzero(planes.labels):
        centre = np.argwhere(truth[i]).mean(axis=0)
        assert np.linalg.norm(found.place[i] - centre) < 10
    healthy_distance = found.distance[planes.labels == 0].mean()
    assert found.distance[planes.labels == 1].mean() > 1.5 * healthy_distance


def test_patchcore_keeps_patches_it_really_saw():
    """Every bank entry is the feature of the plane and place that its origin names."""
    method = patchcore()
    assert isinstance(method, Patchcore)
    healthy = material().healthy
    plane, row, column = method.network.origins[7].tolist()
    with torch.no_grad():
        features = method.network(torch.from_numpy(healthy.images[plane])[None, None])
    assert torch.allclose(features[0, :, row, column], method.network.bank[7], atol=1e-4)


def test_the_score_of_patchcore_is_weighed_as_the_paper_says():
    """Eq. 7 on a bank of three patches, by hand."""
    method = Patchcore(PatchcoreSettings(size=32, layers=(1,), neighbours=2))
    method.network.hold(torch.tensor([[0.0], [1.0], [9.0]]), torch.zeros(3, 3, dtype=torch.int32))
    plane = torch.tensor([[-2.0], [0.5]])
    distances, entries = torch.tensor([2.0, 0.5]), torch.tensor([0, 0])
    expected = (1 - np.exp(2) / (np.exp(2) + np.exp(3))) * 2
    assert float(method._weighed(plane, distances, entries)) == pytest.approx(expected, rel=1e-5)


def test_a_coreset_covers_what_it_leaves_out():
    """Two thousand crowded points and eight lonely ones: all nine places are covered."""
    noise = torch.Generator().manual_seed(0)
    crowd = 0.1 * torch.randn(2000, 3, generator=noise)
    lonely = 10 * torch.randn(8, 3, generator=noise) + 20
    rows = torch.cat([crowd, lonely])
    chosen = coreset(rows, 12, noise)
    assert len(set(chosen.tolist())) == 12
    assert torch.cdist(rows, rows[chosen]).min(dim=1).values.max() < 1
    assert coreset(rows[:5], 9, noise).tolist() == [0, 1, 2, 3, 4]


def test_padim_is_the_mahalanobis_distance():
    """Its distances are those worked out with numpy's covariance of the same features."""
    method = Padim(PadimSettings(size=32, layers=(2,), channels=10))
    method.fit(material(), Run())
    healthy, (planes, _) = material().healthy, labelled()
    with torch.no_grad():
        seen = method.network(torch.from_numpy(healthy.images)[:, None]).double().numpy()
        asked = method.network(torch.from_numpy(planes.images)[:, None]).double().numpy()
        found = method.network.distances(torch.from_numpy(planes.images)[:, None]).flatten(1).numpy()
    place = 5
    covariance = np.cov(seen[:, place].T) + method.settings.ridge * np.eye(10)
    away = asked[:, place] - seen[:, place].mean(axis=0)
    expected = np.sqrt(np.einsum("nd,de,ne->n", away, np.linalg.inv(covariance), away))
    assert np.allclose(found[:, place], expected, rtol=1e-2)


def test_the_teacher_stays_as_it_was():
    """Training the student changes no parameter and no statistic of the backbone."""
    method = build_method("reverse-distillation", {"size": 32, "steps": 3, "batch": 4, "layers": [1]})
    assert isinstance(method, ReverseDistillation)
    method.fit(material(), Run())
    fresh = FrozenBackbone("resnet18", (1,), 1)
    fresh.fill_random(0)
    own = method.backbone.state_dict()
    assert all(torch.equal(value, own[key]) for key, value in fresh.state_dict().items())


def test_the_one_class_encoder_has_no_bias():
    """With a bias it could map everything to the centre (Ruff et al., proposition 2)."""
    assert not [name for name, _ in OneClassEncoder(32, 4, 8).named_parameters() if "bias" in name]


def test_stages_are_brought_to_one_scale():
    """No stage of the grid outweighs the others."""
    settings = PadimSettings(size=32)
    grid = FeatureGrid(settings)
    grid.backbone.fill(settings)
    pool = torch.from_numpy(material().healthy.images)[:16, None]
    with torch.no_grad():
        grid.learn_level(pool)
        features = grid(pool)
    shares = [float(part.std()) for part in features.split(grid.backbone.channels, dim=1)]
    assert max(shares) < 3 * min(shares)


def test_maps_are_smoothed_without_loss_and_scored_inside_the_organ():
    """The Gaussian keeps the sum in the middle; outside the organ nothing counts; an empty organ scores 0."""
    maps = torch.zeros(1, 1, 21, 21)
    maps[0, 0, 10, 10] = 1.0
    soft = blurred(maps, 1.5)
    assert float(soft.sum()) == pytest.approx(1.0, abs=1e-4)
    assert float(soft.max()) == pytest.approx(1 / (2 * np.pi * 1.5**2), rel=0.05)
    masks = torch.zeros_like(maps)
    assert float(masked_max(soft, masks)) == 0.0
    masks[0, 0, 0, 0] = 1.0
    assert on_grid(masks, 3, 3).flatten().tolist() == [1.0] + [0.0] * 8
