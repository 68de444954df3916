"""The adversarial methods: their shared losses, what is particular to each, and that each finds lesions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from dicomnode.detectors.methods.adversarial.brainomaly import Brainomaly, BrainomalyClamped, BrainomalySettings
from dicomnode.detectors.methods.adversarial.critics import judged_fake, judged_real
from dicomnode.detectors.methods.adversarial.f_anogan import FAnogan, FAnoganSettings
from dicomnode.detectors.methods.adversarial.generators import CodeToPlane, PlaneToCode
from dicomnode.detectors.methods.adversarial.madgan import both_ways
from dicomnode.detectors.methods.adversarial.wasserstein import critic_loss, gradient_penalty
from dicomnode.detectors.methods.catalogue import build_method, method_entry
from dicomnode.detectors.methods.contract import Planes, Run
from dicomnode.errors import ConfigError
from dicomnode.train.statistics import auroc
from tests.method_phantoms import labelled, material

TRANSLATION = {"width": 8, "blocks": 1, "critic_width": 16, "critic_layers": 2, "steps": 200, "select_every": 50}
CODED = {"width": 8, "code": 8, "steps": 100, "learning_rate": 2e-3}


def noise() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("slope", [0.25, 1.0, 3.0])
def test_the_gradient_penalty_of_a_linear_critic_is_known(slope):
    """D(x) = w·x has the gradient w everywhere: the penalty is (‖w‖₂ - 1)², not (‖w‖² - 1)²."""
    direction = torch.randn(1, 1, 8, 8, generator=noise())
    direction = slope * direction / direction.norm()
    real, fake = torch.rand(4, 1, 8, 8), torch.rand(4, 1, 8, 8)
    penalty = gradient_penalty(lambda x: (x * direction).sum((1, 2, 3)), real, fake, noise())
    assert float(penalty) == pytest.approx((slope - 1) ** 2, abs=1e-4)


def test_the_penalty_looks_between_real_and_fake_and_teaches_the_critic():
    """At D(x) = a x²/2 the gradient is a x̂; x̂ lies between both, and the penalty has a gradient in a."""
    seen: list[Tensor] = []
    a = torch.tensor(2.0, requires_grad=True)

    def critic(x: Tensor) -> Tensor:
        seen.append(x)
        return a * x.square().sum((1, 2, 3)) / 2

    real, fake = torch.full((64, 1, 1, 1), 1.0), torch.full((60, 1, 1, 1), 3.0)
    penalty = gradient_penalty(critic, real, fake, noise())
    between = seen[0].detach().flatten()
    assert len(between) == 60
    assert 1.0 <= float(between.min()) < 1.3 < 2.7 < float(between.max()) <= 3.0
    assert float(penalty.detach()) == pytest.approx(float((2 * between - 1).square().mean()), rel=1e-4)
    penalty.backward()
    assert a.grad is not None
    assert float(a.grad) == pytest.approx(float((2 * (2 * between - 1) * between).mean()), rel=1e-4)


def test_the_critic_loss_is_fake_less_real_and_the_weighed_penalty():
    """L_D = E D(fake) - E D(real) + λ penalty."""
    real, fake = torch.full((4, 1, 2, 2), 0.75), torch.full((4, 1, 2, 2), 0.25)
    loss = critic_loss(lambda x: 3 * x.mean((1, 2, 3)), real, fake, 10.0, noise())
    assert float(loss) == pytest.approx(-1.5 + 10 * (3 / 2 - 1) ** 2, rel=1e-4)


def test_cross_entropies_fall_when_the_discriminator_is_right():
    """-log σ(l) for real and -log(1 - σ(l)) for made."""
    logits = torch.tensor([2.0])
    assert float(judged_real(logits)) == pytest.approx(-np.log(1 / (1 + np.exp(-2))), rel=1e-5)
    assert float(judged_fake(logits)) == pytest.approx(-np.log(1 - 1 / (1 + np.exp(-2))), rel=1e-5)


def test_an_additive_map_of_zero_keeps_a_plane_only_when_it_is_clamped():
    """tanh(x) is not x (0.12 of the range at black); clamp(x + tanh 0) is."""
    x = torch.tensor([-1.0, 0.0, 0.9])
    nothing = torch.zeros(3)
    own = BrainomalySettings(size=32, width=4, blocks=0, critic_width=4)
    assert torch.equal(BrainomalyClamped(own).changed(x, nothing), x)
    moved = (Brainomaly(own).changed(x, nothing) - x).abs() / 2
    assert float(moved[0]) == pytest.approx(0.119, abs=1e-3)


@pytest.mark.parametrize("spatial", [None, 2])
def test_codes_and_planes_fit_each_other(spatial):
    """An encoder's code is what the generator of the same settings takes; another size is refused."""
    code = PlaneToCode(32, 5, 4, spatial=spatial)(torch.rand(2, 1, 32, 32))
    assert code.shape == ((2, 5) if spatial is None else (2, 5, 2, 2))
    plane = CodeToPlane(32, 5, 4, spatial=spatial)(code).detach()
    assert plane.shape == (2, 1, 32, 32)
    assert float(plane.min()) >= 0
    assert float(plane.max()) <= 1
    with pytest.raises(ConfigError, match="power of 2"):
        build_method("ganomaly", {"size": 40})


def test_the_encoder_of_f_anogan_learns_after_the_generator_and_alone():
    """In the second phase neither generator nor critic moves; in the first the encoder does not."""
    told = {"size": 32, "batch": 8, "width": 4, "code": 4, "n_critic": 1}
    states: list[dict[str, Tensor]] = []

    class Watched(FAnogan):
        def _encoder_loss(self, drawn):
            states.append({key: value.clone() for key, value in self.network.state_dict().items()})
            return super()._encoder_loss(drawn)

    method = Watched(FAnoganSettings.model_validate({**told, "steps": 10, "first": 0.5}))
    method.fit(material(), Run())
    torch.manual_seed(0)
    start = method.make().state_dict()
    after = method.network.state_dict()
    assert len(states) == 5
    assert all(torch.equal(states[0][key], start[key]) for key in start if key.startswith("encoder"))
    frozen = [key for key in after if not key.startswith("encoder")]
    assert all(torch.equal(after[key], states[0][key]) for key in frozen)
    assert not torch.equal(after["encoder.layers.0.weight"], states[0]["encoder.layers.0.weight"])
    assert not torch.equal(states[0]["generator.enter.weight"], start["generator.enter.weight"])


def test_runs_of_a_series_reach_every_plane_and_leak_none():
    """Both orders; at the ends the end plane is repeated; the first three never hold one of the last three."""
    runs = both_ways([(4, 5, 6, 7), (8, 9)]).tolist()
    assert [4, 4, 4, 5, 6, 7] in runs
    assert [4, 5, 6, 7, 7, 7] in runs
    assert [7, 7, 7, 6, 5, 4] in runs
    assert {index for run in runs for index in run[3:]} == {4, 5, 6, 7, 8, 9}
    assert all(not set(run[:3]) & set(run[3:]) for run in runs)
    with pytest.raises(ConfigError, match="at least two"):
        both_ways([(0,), (1,)])


def test_a_plane_without_neighbours_is_refused_by_madgan():
    """A projection cannot be expected from anything."""
    method = build_method("madgan", {"size": 32, "width": 4})
    planes, _ = labelled()
    with pytest.raises(ConfigError, match="at least two"):
        method.judge(planes)


def test_madgan_expects_a_plane_from_its_neighbours_not_from_itself():
    """A change of one plane changes what is expected of the others of its series, and of no other series."""
    method = build_method("madgan", {"size": 32, "width": 4})
    method.to("cpu")
    planes, _ = labelled(depth=4)
    images = planes.images.copy()
    images[1] = 1 - images[1]
    other = method.expected(Planes(images, planes.masks, planes.stacks))
    same = (other == method.expected(planes)).flatten(1).all(1).tolist()
    assert same == [False, True, False, False] + [True] * (len(planes) - 4)


CASES = {
    "brainomaly": (TRANSLATION, 0.8),
    "brainomaly-clamped": (TRANSLATION | {"steps": 300}, 0.7),
    "ganomaly": (CODED | {"score": "residual"}, 0.85),
    "alad": (CODED | {"score": "residual"}, 0.8),
    "alocc": (CODED | {"score": "residual", "rebuilding": 20}, 0.8),
    "f-anogan": (CODED | {"steps": 250, "n_critic": 2}, 0.65),
    "anovaegan": (CODED, 0.9),
    "alpha-gan": (CODED, 0.8),
    "madgan": ({"width": 8, "steps": 150, "learning_rate": 2e-3}, 0.8),
}
"""Settings and the least AUROC a method has to reach with them on the phantom.

Another processor rounds otherwise, and a training then goes another way, as with another seed: over eight seeds the
least was 0.89.
"""


@pytest.mark.parametrize("name", CASES)
def test_a_method_finds_lesions_it_never_saw_alone(name):
    """AUROC of planes at least the floor stated beside the settings."""
    told, floor = CASES[name]
    torch.set_num_threads(1)
    depth = 8 if method_entry(name).stacked else 1
    method = build_method(name, {"size": 32, "batch": 8, "learning_rate": 1e-3, **told})
    method.fit(material(depth=depth), Run(seed=0))
    planes, _ = labelled(depth=depth)
    assert planes.labels is not None
    assert auroc(planes.labels == 1, method.score(planes)) >= floor
