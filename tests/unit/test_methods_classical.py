"""The classical methods find the phantom's lesions, and their features mean what they are called."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from dicomnode.detectors.methods.catalogue import build_method
from dicomnode.detectors.methods.classical.features import FEATURE_NAMES, handcrafted
from dicomnode.detectors.methods.classical.scaling import FARTHEST, healthy_scale
from dicomnode.detectors.methods.classical.windows import shrunk
from dicomnode.detectors.methods.contract import Material, Planes, Run, apart
from dicomnode.errors import ConfigError
from tests.method_phantoms import labelled, material

ALL = ("z-score", "box-plot", "pca-residual", "oc-svm", "gmm", "k-means", "lof")


@pytest.mark.parametrize("name", ALL)
def test_a_classical_method_finds_lesions_and_their_place(name):
    """AUROC of planes at least 0.95, of pixels at least 0.9, after seconds on 128 healthy planes."""
    planes, truth = labelled()
    method = build_method(name, {"size": 32})
    method.fit(material(), Run())
    judged = method.judge(planes)
    assert roc_auc_score(planes.labels, judged.scores) >= 0.95
    assert roc_auc_score(truth.ravel(), judged.maps.ravel()) >= 0.9


@pytest.mark.parametrize("name", ALL)
def test_a_classical_method_judges_planes_of_another_size(name):
    """Planes of twice the method's side are averaged down, maps are brought back."""
    planes, _ = labelled()
    method = build_method(name, {"size": 16})
    method.fit(material(), Run())
    judged = method.judge(planes)
    assert judged.maps.shape == planes.images.shape
    assert roc_auc_score(planes.labels, judged.scores) >= 0.8


@pytest.mark.parametrize("name", ALL)
def test_too_few_healthy_planes_and_unfitted_methods_are_refused(name):
    """Four planes are no material, and a method that learned nothing does not answer."""
    few = material().healthy.chosen(range(4))
    with pytest.raises(ConfigError, match="healthy planes"):
        build_method(name, {"size": 32}).fit(Material(few), Run())
    with pytest.raises(ConfigError, match="not fitted"):
        build_method(name, {"size": 32}).judge(few)


@pytest.mark.parametrize("name", ALL)
def test_arrays_of_another_grid_are_refused(name):
    """What was learned at 32 pixels is not taken up at 16."""
    method = build_method(name, {"size": 32})
    method.fit(material(), Run())
    with pytest.raises(ConfigError, match="do not fit"):
        build_method(name, {"size": 16}).restore(method.tensors())


def row(image: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    values = handcrafted(apart(image[None].astype(np.float32), mask[None]))[0]
    return dict(zip(FEATURE_NAMES, values.tolist(), strict=True))


def disc(size: int = 64, radius: float = 20) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.mgrid[:size, :size]
    return np.hypot(rows - size / 2 + 0.5, columns - size / 2 + 0.5) < radius, columns


def test_intensity_features_are_those_of_the_organ():
    """Mean and deviation of a two-valued organ; what lies outside does not matter."""
    mask, columns = disc()
    image = np.where(columns % 2 == 0, 0.2, 0.6)
    found = row(image, mask)
    assert found["mean"] == pytest.approx(0.4, abs=1e-3)
    assert found["sd"] == pytest.approx(0.2, abs=1e-3)
    assert found["kurtosis"] == pytest.approx(-2.0, abs=1e-3)
    inside = [name for name in FEATURE_NAMES if not name.startswith("bright")]
    outside = row(np.where(mask, image, 0.9), mask)
    assert [found[name] for name in inside] == pytest.approx([outside[name] for name in inside], abs=1e-5)


def test_texture_features_tell_stripes_from_noise_and_their_scale():
    """Fine stripes: all energy at the finest level, across the stripes; coarse ones: more at coarser levels."""
    mask, columns = disc()
    fine = row(np.where(columns % 2 == 0, 0.3, 0.6), mask)
    coarse = row(np.where(columns % 8 < 4, 0.3, 0.6), mask)
    flat = row(np.full(mask.shape, 0.45), mask)
    assert fine["wavelet_1_vertical"] > 10 * fine["wavelet_1_horizontal"]
    assert coarse["wavelet_3_vertical"] > fine["wavelet_3_vertical"]
    assert fine["glcm_contrast_1"] > coarse["glcm_contrast_1"] > flat["glcm_contrast_1"] == 0
    assert flat["glcm_homogeneity_1"] == pytest.approx(1.0)


def test_texture_does_not_change_with_a_quarter_turn():
    """All directions are counted together."""
    planes, _ = labelled()
    image, mask = planes.images[0], planes.masks[0]
    straight, turned = row(image, mask), row(np.rot90(image), np.rot90(mask))
    names = [name for name in FEATURE_NAMES if name.startswith("glcm")]
    assert [straight[name] for name in names] == pytest.approx([turned[name] for name in names], rel=1e-4)


def test_shape_features_tell_a_disc_from_an_ellipse_and_a_dented_organ():
    """Eccentricity, solidity and curvature follow the outline; area is a part of the plane."""
    mask, _ = disc()
    flat = np.full(mask.shape, 0.5)
    rows, columns = np.mgrid[:64, :64]
    ellipse = ((rows - 31.5) / 28) ** 2 + ((columns - 31.5) / 12) ** 2 < 1
    dented = mask & ~(np.hypot(rows - 31.5, columns - 55) < 16)
    round_, long, dent = row(flat, mask), row(flat, ellipse), row(flat, dented)
    assert round_["organ_area"] == pytest.approx(mask.mean())
    assert round_["organ_eccentricity"] < 0.1 < 0.85 < long["organ_eccentricity"]
    assert dent["organ_solidity"] < 0.95 < round_["organ_solidity"]
    assert round_["organ_curvature"] < min(long["organ_curvature"], dent["organ_curvature"])


def test_the_largest_bright_region_is_described():
    """Its share of the organ and its distance from the centre; an even organ has none."""
    mask, _ = disc()
    rows, columns = np.mgrid[:64, :64]
    image = np.where(np.hypot(rows - 32, columns - 42) < 6, 0.9, 0.4)
    found, none = row(image, mask), row(np.full(mask.shape, 0.4), mask)
    assert found["bright_largest_area"] == pytest.approx((6.5 / 20) ** 2, rel=0.2)
    assert found["bright_offset"] == pytest.approx(10.5 / 20, rel=0.1)
    assert all(none[name] == 0 for name in none if name.startswith("bright"))


def test_odd_organs_have_finite_features():
    """Empty, one-pixel-wide and full organs, and a constant image: finite numbers, no warning."""
    empty, line, full = np.zeros((3, 32, 32), bool)
    line[16], full[:] = True, True
    images = np.full((3, 32, 32), 0.5, np.float32)
    rows = handcrafted(apart(images, np.stack([empty, line, full])))
    assert rows.shape == (3, len(FEATURE_NAMES))
    assert np.isfinite(rows).all()
    assert not rows[0].any()
    assert handcrafted(apart(images[:0], np.zeros((0, 32, 32), bool))).shape == (0, len(FEATURE_NAMES))


def test_a_feature_that_never_varied_has_a_unit_and_a_limit():
    """A region that no healthy plane had counts, but cannot drown everything else."""
    scale = healthy_scale(np.array([[0.0, 1.0], [0.0, 3.0]], np.float32))
    assert scale.standard(np.array([[0.1, 3.0], [9.0, 2.0]], np.float32)).tolist() == [
        [pytest.approx(2.0), pytest.approx(1.0)],
        [FARTHEST, 0.0],
    ]


def test_shrinking_keeps_stacks_and_labels():
    """Only the grid changes."""
    planes, _ = labelled(depth=4)
    small = shrunk(planes, 16)
    assert isinstance(small, Planes)
    assert (small.size, small.stacks, small.labels is planes.labels) == (16, planes.stacks, True)
