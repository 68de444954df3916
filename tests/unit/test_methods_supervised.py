"""The supervised family on phantoms: taught with synthetic lesions, judged on others."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dicomnode.detectors.methods.catalogue import build_method, method_entry
from dicomnode.detectors.methods.contract import Augmentation, Material, Run
from dicomnode.detectors.methods.supervised.lesions import BlobRule, paste_blobs, with_blobs
from dicomnode.detectors.methods.supervised.teaching import draw_examples, examples
from dicomnode.errors import ConfigError
from dicomnode.train.statistics import auroc
from tests.method_phantoms import labelled, material, planes

FLOORS = {
    "svm": 0.95,
    "knn": 0.95,
    "naive-bayes": 0.95,
    "random-forest": 0.95,
    "bagging": 0.95,
    "decision-tree": 0.9,
    "perceptron": 0.95,
    "sparse-coding": 0.9,
    "voting": 0.95,
}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.mark.parametrize("name", sorted(FLOORS))
def test_a_head_on_handcrafted_features_reaches_its_auroc_and_its_map_shows_the_lesion(name):
    """Trained with synthetic lesions only; the floor is the promise of each head."""
    judged, truth = labelled()
    method = build_method(name, {"size": 32, "trees": 50})
    method.fit(material(), Run(seed=0))
    answer = method.judge(judged)
    assert auroc(judged.labels == 1, answer.scores) >= FLOORS[name]
    assert answer.maps[truth].mean() > 3 * answer.maps[judged.masks & ~truth].mean()


def test_labelled_abnormal_planes_are_used_when_there_are_some():
    """Dark lesions that look like nothing synthetic are found once they are labelled."""
    healthy, _ = planes(0, 128)
    sick, truth = planes(3, 64, lesions=1.0)
    dark = sick.images - truth * 0.75
    abnormal = type(sick)(np.clip(dark, 0, 1).astype(np.float32), sick.masks, sick.stacks, np.ones(64, np.int8))
    taught = examples(Material(healthy, abnormal=abnormal), 0)
    assert len(taught) == 192
    assert taught.labels is not None
    assert taught.labels.sum() == 64
    assert np.array_equal(taught.images[128:], abnormal.images)


def test_a_decision_tree_prints_its_rules_in_the_units_of_the_features():
    """A reader can follow it without the model: feature names and thresholds."""
    method = build_method("decision-tree", {"size": 32, "depth": 2})
    method.fit(material(), Run(seed=0))
    rules = method.rules()
    assert "class: 1" in rules
    assert "<=" in rules
    assert build_method("svm", {"size": 32}).rules() == ""


def test_synthetic_lesions_lie_in_the_organ_and_change_it_there_only():
    """What the outline says is what was changed."""
    healthy, _ = planes(0, 32)
    images = torch.from_numpy(healthy.images)[:, None]
    organs = torch.from_numpy(healthy.masks).float()[:, None]
    changed, truth = paste_blobs(images, organs, BlobRule(), torch.Generator().manual_seed(0))
    assert (truth.flatten(1).sum(1) > 0).float().mean() > 0.9
    assert float((truth * (1 - organs)).sum()) == 0
    moved = (changed - images).abs()
    assert float(moved[truth > 0].mean()) > 10 * float(moved[truth == 0].mean())
    again = with_blobs(healthy, 5)
    assert np.array_equal(again.images, with_blobs(healthy, 5).images)
    assert not np.array_equal(again.images, with_blobs(healthy, 6).images)


def test_a_plane_without_an_organ_is_left_as_it_is():
    """No lesion is put on a background."""
    images = torch.full((2, 1, 16, 16), 0.5)
    changed, truth = paste_blobs(images, torch.zeros_like(images), BlobRule(), torch.Generator().manual_seed(0))
    assert torch.equal(changed, images)
    assert float(truth.sum()) == 0


def test_real_abnormal_planes_have_no_outline_and_the_share_of_synthetic_ones_is_kept():
    """Unknown outlines are nan, so that no loss takes them for healthy."""
    healthy, _ = planes(0, 16)
    sick, _ = planes(1, 16, lesions=1.0)
    for share, known in ((0.0, 0.0), (1.0, 1.0)):
        draw = draw_examples(Material(healthy, abnormal=sick), 32, 8, Augmentation(), BlobRule(), synthetic=share)
        drawn = draw(torch.Generator().manual_seed(0))
        assert drawn.truth is not None
        assert float(torch.isfinite(drawn.truth).float().mean()) == known


@pytest.mark.parametrize("name", ["svm", "densenet121"])
def test_too_little_to_learn_from_is_told(name):
    """One healthy plane teaches nothing."""
    few, _ = planes(0, 1)
    with pytest.raises(ConfigError, match="healthy planes"):
        build_method(name, {"size": 32}).fit(Material(few), Run(steps=1))


def test_densenet_separates_lesions():
    """Fifty steps are enough for phantoms."""
    judged, _ = labelled()
    method = build_method("densenet121", {"size": 32, "batch": 8, "steps": 50})
    method.fit(material(), Run(seed=0))
    assert auroc(judged.labels == 1, method.judge(judged).scores) >= 0.85


def test_the_class_activation_of_densenet_is_grad_cam():
    """The map without a gradient is what Grad-CAM gives with one (Selvaraju et al., ICCV 2017, appendix A)."""
    torch.manual_seed(0)
    method = build_method("densenet121", {"size": 64})
    method.network.eval()
    images = torch.rand(2, 1, 64, 64)
    features = torch.relu(method.network.features(images)).detach().requires_grad_(True)
    logits = method.network.class_layers.out(features.mean(dim=(2, 3)))[:, 0]
    gradient = torch.autograd.grad(logits.sum(), features)[0]
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    expected = torch.relu((weights * features).sum(1, keepdim=True)) * features[0, 0].numel()
    grown = torch.nn.functional.interpolate(expected, size=(64, 64), mode="bilinear", align_corners=False)
    scores, maps = method.judge_batch(images, torch.ones_like(images))
    assert torch.allclose(maps, grown.detach(), atol=1e-4)
    assert torch.allclose(scores, logits, atol=1e-5)


def test_frozen_blocks_do_not_move():
    """Partial freezing (methods.md 004-10): the first blocks keep their start values, the rest learns."""
    method = build_method("densenet121", {"size": 32, "batch": 4, "frozen_blocks": 2})
    method.fit(material(), Run(seed=0, steps=2))
    torch.manual_seed(0)
    start = method.make().state_dict()
    learned = method.network.state_dict()
    assert torch.equal(learned["features.conv0.weight"], start["features.conv0.weight"])
    assert torch.equal(
        learned["features.denseblock2.denselayer1.layers.conv1.weight"],
        start["features.denseblock2.denselayer1.layers.conv1.weight"],
    )
    assert not torch.equal(learned["class_layers.out.weight"], start["class_layers.out.weight"])


def test_a_unet_taught_with_synthetic_lesions_finds_others():
    """Segmentation without one labelled picture: score and place."""
    judged, truth = labelled()
    method = build_method("lesion-unet", {"size": 32, "width": 8, "steps": 150, "learning_rate": 4e-3, "batch": 16})
    method.fit(material(), Run(seed=0))
    answer = method.judge(judged)
    assert auroc(judged.labels == 1, answer.scores) >= 0.9
    assert answer.maps[truth].mean() > 3 * answer.maps[judged.masks & ~truth].mean()


def test_every_supervised_method_has_a_floor_or_a_test_of_its_own():
    """A method without a stated AUROC is not tested."""
    for name in FLOORS:
        assert method_entry(name).family.value == "supervised"


@pytest.mark.parametrize("kind", ["haemorrhage", "flair", "blobs"])
def test_painted_lesions_are_where_the_outline_says_and_half_of_the_pictures_have_none(kind):
    """Training pairs for the U-Net: repeatable, inside the organ, visible, with healthy ones among them."""
    from dicomnode.detectors.methods.supervised.lesion_unet import lesion_maker

    healthy, _ = planes(0, 32)
    maker = lesion_maker(kind, healthy)
    pairs = [maker.make(np.random.default_rng(seed)) for seed in range(40)]
    painted = [truth.any() for _, truth in pairs]
    assert 0.2 < np.mean(painted) < 0.8
    again, outline = maker.make(np.random.default_rng(3))
    assert np.array_equal(again, pairs[3][0])
    assert np.array_equal(outline, pairs[3][1])
    for image, truth in pairs:
        assert image.shape == truth.shape == (32, 32)
        assert np.isfinite(image).all()
        assert 0 <= image.min() <= image.max() <= 1
        assert set(np.unique(truth)) <= {0.0, 1.0}


def test_generated_planes_come_to_look_like_the_real_ones_and_join_the_first_stage():
    """Real + synthetic training (methods.md 001-2, 001-6): a GAN on the labelled planes, with its likeness stated."""
    from dicomnode.detectors.methods.supervised.generated import PlaneMaker, likeness

    healthy, _ = planes(0, 64)
    sick, _ = planes(3, 64, lesions=1.0)
    method = build_method("densenet121", {"size": 32, "batch": 4, "generator_steps": 120})
    method.fit(Material(healthy, abnormal=sick), Run(seed=0, steps=2))
    assert method.likeness is not None
    raw = PlaneMaker(32).make(64, 0)
    untrained = likeness(sick, type(sick)(raw, sick.masks, sick.stacks))
    assert method.likeness["silhouette"] < untrained["silhouette"]
    assert method.likeness["calinski_harabasz"] < untrained["calinski_harabasz"]
