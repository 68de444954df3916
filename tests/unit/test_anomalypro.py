"""MedAI AnomalyPro: the equations as put right, the recipe, the choice of the state, and that it finds lesions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dicomnode.detectors.methods.adversarial.anomalypro import (
    AnomalyPro,
    AnomalyProSettings,
    reconstruction,
    translation,
)
from dicomnode.detectors.methods.adversarial.pseudo_auc import auc_from_aucp, aucp
from dicomnode.detectors.methods.catalogue import build_method
from dicomnode.detectors.methods.contract import Run
from dicomnode.errors import ConfigError
from dicomnode.train.statistics import auroc
from tests.method_phantoms import labelled, material

SMALL: dict[str, object] = {
    "size": 32,
    "steps": 300,
    "batch": 8,
    "width": 8,
    "blocks": 1,
    "critic_width": 16,
    "critic_layers": 2,
    "learning_rate": 1e-3,
    "select_every": 50,
}


def small(**others: object) -> AnomalyPro:
    method = build_method("anomalypro", {**SMALL, **others})
    assert isinstance(method, AnomalyPro)
    return method


@pytest.fixture(scope="module")
def trained() -> AnomalyPro:
    torch.set_num_threads(1)
    method = small()
    method.fit(material(), Run(seed=0))
    return method


def filled(value: float) -> Tensor:
    return torch.full((2, 1, 4, 4), value)


@pytest.mark.parametrize(("mask", "translated", "rebuilt"), [(0.0, -0.6, 0.8), (0.5, 0.1, 0.1), (1.0, 0.8, -0.6)])
def test_the_mask_replaces_in_the_translation_and_keeps_in_the_reconstruction(mask, translated, rebuilt):
    """T = M B + (1 - M) x and R = M x + (1 - M) B: with M = 0 a healthy plane is untouched by T."""
    x, healthy = filled(-0.6), filled(0.8)
    assert torch.allclose(translation(x, healthy, filled(mask)), filled(translated))
    assert torch.allclose(reconstruction(x, healthy, filled(mask)), filled(rebuilt))


@pytest.mark.parametrize(
    ("mask", "expected"),
    [(0.0, 0.0), (0.5, 0.25 + 1 / 0.01 - 1 / 0.51), (1.0, 1.0), (0.25, 0.0625 + 1 / 0.26 - 1 / 0.51)],
)
def test_the_focus_loss_asks_for_a_small_decided_mask(mask, expected):
    """λ_small (mean M)² + λ_01 (mean 1 / (|M - 0.5| + 0.01) - 1 / 0.51), both weights 1."""
    assert float(small().focus_loss(filled(mask))) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_the_parts_of_the_focus_loss_have_their_own_weights():
    """λ_small alone leaves (mean M)², λ_01 alone leaves the other part."""
    assert float(small(zero_one=0.0).focus_loss(filled(0.5))) == pytest.approx(0.25)
    assert float(small(small=0.0).focus_loss(filled(0.5))) == pytest.approx(100 - 1 / 0.51, rel=1e-4)


class Answers(nn.Module):
    """A generator that always answers the same b and m."""

    def __init__(self, b: float, m: float) -> None:
        super().__init__()
        self.b, self.m = b, m

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([torch.full_like(images, self.b), torch.full_like(images, self.m)], dim=1)


class Mean(nn.Module):
    """A critic that likes bright planes."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((1, 2, 3))


def test_the_generator_loss_is_the_sum_of_its_four_parts():
    """-E D(T(x_A)) - E D(T(x_B)) + λ_rec mean (1 - M)|x_A - B| + λ_id mean |x_B - B| + λ_f L_f, worked by hand."""
    method = small(reconstruction=2.0, identity=3.0, focus=0.1)
    method.parts["generator"], method.parts["critic"] = Answers(0.3, -0.7), Mean()
    b, m = np.tanh(0.3), 1 / (1 + np.exp(1.4))
    adversarial = -(m * b + (1 - m) * -0.2) - (m * b + (1 - m) * 0.5)
    focus = m**2 + 1 / (abs(m - 0.5) + 0.01) - 1 / 0.51
    expected = adversarial + 2 * (1 - m) * abs(-0.2 - b) + 3 * abs(0.5 - b) + 0.1 * focus
    assert float(method.generator_loss(filled(-0.2), filled(0.5))) == pytest.approx(expected, rel=1e-4)


def test_score_and_map_are_half_the_difference_of_plane_and_translation():
    """In parts of the grey range 0..1; the score counts inside the organ only."""
    method = small()
    method.parts["generator"] = Answers(0.3, -0.7)
    images = torch.rand(2, 1, 32, 32)
    masks = torch.zeros_like(images)
    masks[..., 8:20, 8:20] = 1
    scores, maps = method.judge_batch(images, masks)
    x = 2 * images - 1
    expected = (
        x - translation(x, torch.full_like(x, np.tanh(0.3)), torch.full_like(x, 1 / (1 + np.exp(1.4))))
    ).abs() / 2
    assert torch.allclose(maps, expected, atol=1e-6)
    assert torch.allclose(scores, expected[..., 8:20, 8:20].mean((1, 2, 3)), atol=1e-6)
    whole, _ = method.judge_batch(images, torch.ones_like(images))
    assert torch.allclose(whole, expected.mean((1, 2, 3)), atol=1e-6)


def convolutions(network: nn.Module) -> list[int]:
    """Channels out of every convolution, in order."""
    kinds = nn.Conv2d | nn.ConvTranspose2d
    return [layer.out_channels for layer in network.modules() if isinstance(layer, kinds)]


def test_the_defaults_are_the_recipe_of_healthygan():
    """Weights, optimiser figures, and the shapes of both networks at 256 pixels."""
    own = AnomalyProSettings()
    assert (own.penalty, own.reconstruction, own.identity, own.focus, own.small, own.zero_one) == (10, 1, 1, 0.1, 1, 1)
    assert (own.size, own.batch, own.n_critic, own.steps, own.learning_rate) == (256, 16, 2, 400_000, 1e-4)
    assert (own.width, own.blocks, own.critic_width, own.critic_layers, own.channels) == (64, 6, 64, 6, 1)
    method = AnomalyPro(AnomalyProSettings(width=2, critic_width=1))
    plane = torch.rand(1, 1, 256, 256)
    assert method.parts["generator"](plane).shape == (1, 2, 256, 256)
    assert method.parts["critic"](plane).shape == (1, 1, 4, 4)
    assert convolutions(method.parts["critic"]) == [1, 2, 4, 8, 16, 32, 1]
    assert convolutions(method.parts["generator"]) == [2, 4, *[8] * 13, 4, 2, 2]
    norms = [layer for layer in method.parts["generator"].modules() if isinstance(layer, nn.InstanceNorm2d)]
    assert len(norms) == 17
    assert all(layer.affine and not layer.track_running_stats for layer in norms)
    colour = AnomalyPro(AnomalyProSettings(channels=3, width=2, critic_width=1))
    assert convolutions(colour.parts["generator"])[-1] == 4
    players = method.players()
    assert [(one.name, one.every, one.betas, one.clip, one.cycle) for one in players] == [
        ("critic", 1, (0.5, 0.999), None, False),
        ("generator", 2, (0.5, 0.999), None, False),
    ]


def test_a_channel_repeated_three_times_gives_one_map():
    """The 3 + 1 channels of the recipe can be asked for."""
    method = small(channels=3, steps=2)
    method.fit(material(), Run(seed=0))
    planes, _ = labelled()
    assert method.judge(planes).maps.shape == planes.images.shape


def test_without_a_mixed_set_it_says_so():
    """Healthy planes alone do not teach a translation."""
    with pytest.raises(ConfigError, match="mixed"):
        small().fit(replace(material(), mixed=None), Run())


def test_the_critic_moves_each_step_and_the_generator_each_second():
    """n_critic = 2."""
    moves = {"critic": 0, "generator": 0}

    class Counted(AnomalyPro):
        def generator_loss(self, mixed: Tensor, healthy: Tensor) -> Tensor:
            moves["generator"] += 1
            return super().generator_loss(mixed, healthy)

        def _critic_loss(self, drawn):
            moves["critic"] += 1
            return super()._critic_loss(drawn)

    Counted(AnomalyProSettings.model_validate({**SMALL, "steps": 6})).fit(material(), Run())
    assert moves == {"critic": 6, "generator": 3}


def test_it_finds_lesions_it_was_never_shown_as_such(trained):
    """AUROC of planes at least 0.85 after 300 steps (0.97 to 1.00 over three seeds)."""
    planes, truths = labelled()
    judged = trained.judge(planes)
    assert planes.labels is not None
    assert auroc(planes.labels == 1, judged.scores) >= 0.85
    assert auroc(truths[planes.masks], judged.maps[planes.masks]) >= 0.65


def test_the_state_with_the_best_aucp_is_the_one_that_is_kept(trained):
    """The looks differ, and the method that remains has the best figure of them."""
    learned = material()
    figures = [figure for _, figure in trained.history]
    assert learned.mixed is not None
    assert [step for step, _ in trained.history] == [50, 100, 150, 200, 250, 300]
    assert len(set(figures)) > 1
    assert aucp(trained.score(learned.healthy), trained.score(learned.mixed)) == pytest.approx(max(figures), abs=1e-6)


def test_only_the_generator_is_kept(trained):
    """The critic is for training only: it is neither in the file nor in memory after ``restore``."""
    kept = trained.tensors()
    assert {key.split(".")[0] for key in kept} == {"generator"}
    again = small()
    again.restore(kept)
    assert list(again.parts) == ["generator"]
    planes, _ = labelled()
    assert np.allclose(again.score(planes), trained.score(planes), atol=2e-3)
    again.fit(material(), Run(steps=2))
    assert "critic" in again.parts


def test_aucp_counts_pairs_and_ties_half():
    """Of 2 x 3 pairs: 4 in order, 1 tie."""
    assert aucp(np.array([0.1, 0.5]), np.array([0.05, 0.5, 0.9])) == pytest.approx((0 + 1.5 + 2) / 6)
    assert aucp(np.array([0.1, 0.2]), np.array([0.3])) == 1.0


def test_auc_follows_from_aucp_and_the_healthy_share():
    """AUCp = (1 - ρ) AUC + ρ / 2, checked on scores whose true AUC is known."""
    draw = np.random.default_rng(0)
    healthy, unseen, ill = draw.normal(0, 1, 20000), draw.normal(0, 1, 10000), draw.normal(1.5, 1, 10000)
    pseudo = aucp(healthy, np.concatenate([unseen, ill]))
    assert auc_from_aucp(pseudo, 0.5) == pytest.approx(aucp(unseen, ill), abs=0.02)
    assert auc_from_aucp(0.734, 0.5) == pytest.approx(0.968)
    with pytest.raises(ValueError, match="share"):
        auc_from_aucp(0.7, 1.0)
