"""Diffusion: into noise and back by the equations of the papers, and what it finds on made-up organs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dicomnode.detectors.methods.catalogue import build_method, method_entry
from dicomnode.detectors.methods.contract import Run
from dicomnode.detectors.methods.diffusion.schedule import blend, denoise, draw_noise, signal_shares, way_back
from dicomnode.errors import ConfigError
from tests.method_phantoms import labelled, material

SMALL: dict[str, object] = {"size": 32, "width": 16, "batch": 8, "steps": 120, "learning_rate": 3e-3, "back": 5}


@pytest.mark.parametrize(("name", "settings", "least"), [("ddpm", {"noise": "octaves"}, 0.8)])
def test_a_diffusion_trained_on_healthy_planes_finds_and_shows_lesions(name, settings, least):
    """Scores part lesions from healthy planes, and the map is larger in lesions than elsewhere in the organ."""
    torch.set_num_threads(1)
    method = build_method(name, {**SMALL, **settings})
    method.fit(material(), Run(seed=1))
    planes, truth = labelled()
    judged = method.judge(planes)
    abnormal, normal = judged.scores[planes.labels == 1][:, None], judged.scores[planes.labels == 0][None]
    assert np.mean(abnormal > normal) >= least
    assert judged.maps[truth].mean() > judged.maps[planes.masks & ~truth].mean()
    assert np.array_equal(method.judge(planes).scores, judged.scores)


def test_a_denoiser_that_knows_the_noise_gives_back_the_plane():
    """DDIM without chance is exact when the noise is foretold exactly."""
    plane = 2 * torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0)) - 1
    noise = draw_noise((1, 1, 16, 16), torch.Generator().manual_seed(1), "gaussian")
    steps = way_back(300, 4)
    noisy = blend(plane, noise, signal_shares(plane.device)[steps[0]])
    back = denoise(noisy, steps, lambda planes, _: noise.expand_as(planes))
    assert torch.allclose(back, plane, atol=1e-4)


def test_the_shares_of_signal_are_those_of_the_paper():
    """Nearly all signal at the first step, nearly none at the last (beta from 1e-4 to 0.02)."""
    shares = signal_shares(torch.device("cpu"))
    assert float(shares[0]) == pytest.approx(1 - 1e-4)
    assert float(shares[-1]) == pytest.approx(4.04e-5, rel=0.01)
    assert (shares.diff() < 0).all()


@pytest.mark.parametrize(
    ("start", "count", "steps"), [(250, 5, [250, 200, 150, 100, 50]), (2, 5, [2, 1, 0]), (9, 1, [9])]
)
def test_the_way_back_has_the_steps_asked_for(start, count, steps):
    """Even steps down; no step twice."""
    assert way_back(start, count) == steps


def test_octaves_are_noise_of_variance_one_with_coarse_parts():
    """Neighbouring pixels of it are alike, those of Gaussian noise are not."""
    alike = {}
    for kind in ("gaussian", "octaves"):
        noise = draw_noise((4, 1, 64, 64), torch.Generator().manual_seed(0), kind)[:, 0]
        assert float(noise.std()) == pytest.approx(1.0, abs=0.05)
        alike[kind] = float((noise[:, :, 1:] * noise[:, :, :-1]).mean())
    assert abs(alike["gaussian"]) < 0.05
    assert alike["octaves"] > 0.3


def test_more_samples_are_other_noises():
    """The mean of several reconstructions is not that of one, and is the same each time."""
    planes, _ = labelled()
    some = planes.chosen(range(3))
    maps = []
    for samples in (1, 3, 3):
        torch.manual_seed(0)
        method = build_method("ddpm", {**SMALL, "samples": samples, "back": 2})
        method.to("cpu")
        maps.append(method.map(some))
    assert np.array_equal(maps[1], maps[2])
    assert not np.allclose(maps[0], maps[1])


def test_diffusion_is_not_run_unasked():
    """It costs tens of network runs per plane."""
    assert method_entry("ddpm").opt_in


@pytest.mark.parametrize("settings", [{"size": 20}, {"width": 6}, {"smooth": 4}, {"noise": "simplex"}])
def test_settings_that_do_not_fit_are_told(settings):
    """A size or width the network cannot divide, a filter without a middle, an unknown noise."""
    with pytest.raises(ConfigError, match="ddpm"):
        build_method("ddpm", settings)
