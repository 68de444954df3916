"""The auto-encoders: what each finds on made-up organs, and the pieces they are made of."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dicomnode.detectors.methods.autoencoders.bayes_ae import BayesianAutoEncoder
from dicomnode.detectors.methods.autoencoders.ceae import holes
from dicomnode.detectors.methods.autoencoders.neighbours import runs_over
from dicomnode.detectors.methods.autoencoders.structural import ssim_map
from dicomnode.detectors.methods.autoencoders.vae import Vae, divergence
from dicomnode.detectors.methods.catalogue import build_method, method_entry
from dicomnode.detectors.methods.contract import Planes, Run
from dicomnode.detectors.methods.residual import top_mean
from dicomnode.errors import ConfigError
from tests.method_phantoms import labelled, material, planes

SMALL: dict[str, object] = {"size": 32, "width": 8, "batch": 8, "steps": 80}
FOUND: list[tuple[str, dict[str, object], float]] = [
    ("ae-u", {}, 0.9),
    ("dae", {"bright_only": True, "smooth": 3}, 0.9),
    ("ae-l1", {}, 0.95),
    ("ae-l2", {}, 0.95),
    ("ae-ssim", {"steps": 200, "window": 7, "learning_rate": 3e-3}, 0.9),
    ("vae", {"steps": 120, "learning_rate": 3e-3}, 0.95),
    ("vae-kl", {"steps": 160, "beta": 0.02}, 0.9),
    ("vae-gradient", {"steps": 120, "beta": 0.02}, 0.9),
    ("vae-gradient", {"score": "elbo", "share": 0.2, "steps": 120, "learning_rate": 3e-3}, 0.9),
    ("bayes-ae", {}, 0.95),
    ("spatial-ae", {"skips": 3}, 0.9),
    ("memae", {}, 0.95),
    ("ceae", {}, 0.9),
    ("ae-3d", {"depth": 4, "batch": 4, "steps": 50, "share": 0.2}, 0.9),
    ("next-slice", {"share": 0.2}, 0.85),
]
"""Method, settings beside ``SMALL``, and the least AUROC on 64 planes, half of them with a lesion.

Another processor rounds otherwise, and a training then goes another way, as with another seed: the settings are such
that eight seeds stay above the floor.
"""


def auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    abnormal, normal = scores[labels == 1][:, None], scores[labels == 0][None]
    return float(np.mean((abnormal > normal) + 0.5 * (abnormal == normal)))


@pytest.mark.parametrize(("name", "settings", "least"), FOUND)
def test_a_method_trained_on_healthy_planes_finds_and_shows_lesions(name, settings, least):
    """Scores part lesions from healthy planes, and the map is larger in lesions than elsewhere in the organ."""
    torch.set_num_threads(1)
    depth = 4 if method_entry(name).stacked else 1
    method = build_method(name, {**SMALL, **settings})
    method.fit(material(depth=depth), Run(seed=1))
    judged_planes, truth = labelled(depth=depth)
    judged = method.judge(judged_planes)
    assert auroc(judged.scores, judged_planes.labels) >= least
    assert judged.maps[truth].mean() > judged.maps[judged_planes.masks & ~truth].mean()


@pytest.mark.parametrize("name", ["ae-3d", "next-slice"])
def test_methods_of_neighbours_answer_in_the_order_of_the_planes(name):
    """Stacks may be named in any order and length; every plane keeps its own answer, on its own grid."""
    method = build_method(name, {**SMALL, "size": 16, "steps": 2, "batch": 2})
    method.fit(material(depth=4), Run(seed=1))
    some, _ = planes(3, 3, depth=5)
    turned = Planes(some.images, some.masks, (some.stacks[2], some.stacks[0], some.stacks[1]))
    assert np.allclose(method.map(turned), method.map(some), atol=1e-5)
    short = some.chosen([0, 1, 7, 8, 9])
    assert method.judge(short).maps.shape == (5, 32, 32)


def test_a_lone_plane_is_refused_by_next_slice_and_judged_by_the_3d_auto_encoder():
    """A plane without neighbours cannot be foretold; a run of it alone can be given back."""
    lone, _ = planes(3, 2)
    with pytest.raises(ConfigError, match="two planes"):
        build_method("next-slice", SMALL).judge(lone)
    with pytest.raises(ConfigError, match="two planes"):
        build_method("next-slice", SMALL).fit(material(), Run())
    volume = build_method("ae-3d", SMALL)
    volume.to("cpu")
    assert np.isfinite(volume.score(lone)).all()


@pytest.mark.parametrize(("length", "starts"), [(8, [0, 2, 4]), (9, [0, 2, 4, 5]), (4, [0]), (5, [0, 1])])
def test_runs_cover_a_stack(length, starts):
    """Half over each other, the last one ends with the stack."""
    assert [run[0] for run in runs_over(range(length), 4)] == starts
    assert {plane for run in runs_over(range(length), 4) for plane in run} == set(range(length))


def test_a_short_stack_is_filled_with_its_last_plane():
    """No run is shorter than the network needs."""
    assert runs_over((5, 6), 4) == [[5, 6, 6, 6]]


def test_the_top_share_counts_only_inside_the_organ():
    """The mean of the greatest values inside; all of them for a share of 1; 0 for an empty organ."""
    values = torch.arange(16.0).view(1, 1, 4, 4).repeat(2, 1, 1, 1)
    masks = torch.zeros_like(values)
    masks[0, 0, :2] = 1
    assert top_mean(values, masks, 0.25).tolist() == [6.5, 0.0]
    assert top_mean(values, masks, 1.0).tolist() == [3.5, 0.0]
    assert top_mean(values, masks, 0.01).tolist() == [7.0, 0.0]


def test_structural_similarity_is_that_of_the_paper():
    """The same as scikit-image's Gaussian SSIM away from the edges, and 1 for equal images."""
    from skimage.metrics import structural_similarity

    one, other = (torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    mine = ssim_map(one, other, 11)[0, 0].numpy()
    _, theirs = structural_similarity(
        one[0, 0].numpy(),
        other[0, 0].numpy(),
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    assert np.abs(mine - theirs)[6:-6, 6:-6].max() < 1e-3
    assert torch.allclose(ssim_map(one, one, 11), torch.ones_like(one), atol=1e-4)


def test_the_divergence_is_that_of_two_normal_distributions():
    """In nats, per plane."""
    chance = torch.Generator().manual_seed(0)
    mean, log_variance = torch.randn(3, 5, generator=chance), torch.randn(3, 5, generator=chance)
    one = torch.distributions.Normal(mean, torch.exp(0.5 * log_variance))
    expected = torch.distributions.kl_divergence(one, torch.distributions.Normal(0.0, 1.0)).sum(1)
    assert torch.allclose(divergence(mean, log_variance), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["vae-kl", "vae-gradient"])
def test_gradient_scores_can_be_differentiated_themselves(name):
    """So that a robustness audit can attack them too."""
    method = build_method(name, SMALL)
    assert isinstance(method, Vae)
    method.to("cpu")
    images = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    scores, _ = method.judge_batch(images, torch.ones(2, 1, 32, 32))
    (slope,) = torch.autograd.grad(scores.sum(), images)
    assert float(slope.abs().max()) > 0


def test_a_dropout_mask_is_known_by_its_number():
    """The same number, the same reconstruction; another number, another one; alone as in company."""
    torch.manual_seed(0)
    network = BayesianAutoEncoder(32, 4, 8, 0.3).eval()
    images = torch.rand(3, 1, 32, 32)
    with torch.inference_mode():
        first, again, other = network(images, 1), network(images, 1), network(images, 2)
        assert torch.equal(first, again)
        assert not torch.allclose(first, other)
        assert torch.allclose(network(images[1:2], 1), first[1:2], atol=1e-6)


def test_the_expected_residual_is_residual_and_variance():
    """(x - mean)² + variance = mean of (x - x̂)² over the masks."""
    images = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    maps = {}
    for score in ("residual", "variance", "expected"):
        torch.manual_seed(3)
        method = build_method("bayes-ae", {**SMALL, "score": score, "dropout": 0.3})
        method.to("cpu")
        with torch.inference_mode():
            maps[score] = method.judge_batch(images, torch.ones_like(images))[1]
    assert float(maps["variance"].min()) >= 0
    assert float(maps["variance"].max()) > 0
    assert torch.allclose(maps["expected"], maps["residual"] + maps["variance"], atol=1e-6)


def test_holes_are_cut_and_most_of_the_plane_stays():
    """Every plane has its own holes; 0 in them, 1 elsewhere."""
    cut = holes(torch.ones(8, 1, 32, 32), 2, 0.3, torch.Generator().manual_seed(0))
    assert set(cut.unique().tolist()) == {0.0, 1.0}
    assert (cut.mean(dim=(1, 2, 3)) > 0.5).all()
    assert not torch.equal(cut[0], cut[1])


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("ae-l2", {"size": 40}),
        ("ae-l2", {"loss": "ssim"}),
        ("ae-ssim", {"window": 8}),
        ("ae-3d", {"depth": 6}),
        ("memae", {"size": 20}),
        ("next-slice", {"smooth": 2}),
    ],
)
def test_settings_that_do_not_fit_are_told(name, settings):
    """A size the network cannot halve, a window without a middle, another method's loss."""
    with pytest.raises(ConfigError, match=name):
        build_method(name, settings)
