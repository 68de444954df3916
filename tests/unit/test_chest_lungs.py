"""The lungs are found on a chest picture, whatever its size and bit depth, and the input is cut around them."""

from __future__ import annotations

import numpy as np
import pytest

from dicomnode.demo.phantoms_dx import make_dx_chest
from dicomnode.detectors.chest import FIELD_GRID, lung_fields
from dicomnode.detectors.preprocess import PREPARATIONS, Prepared, Rejected, prepare_chest_lungs
from dicomnode.detectors.resample import paste


def chest(size: int = 256, *, shift: int = 0, one_sided: bool = False) -> np.ndarray:
    """A trunk of tissue with two dark lungs and a bright spine, 0..200."""
    y, x = np.mgrid[:size, :size] / size
    image = np.where(np.abs(x - 0.5) < 0.46, 120.0, 4.0)
    for side in (-1,) if one_sided else (-1, 1):
        lung = ((x - 0.5 - side * 0.2 - shift / size) / 0.13) ** 2 + ((y - 0.42) / 0.26) ** 2 < 1
        image[lung] = 40.0
    image[np.abs(x - 0.5) < 0.05] = 180.0
    ribs = 12 * np.sin(40 * y + 5 * x)
    return (image + np.where(image > 4, ribs, 0)).astype(np.float32)


def test_both_lungs_are_found_and_the_box_holds_them():
    """The mask covers the dark ellipses, the box leaves a margin around them and little else."""
    image = chest(FIELD_GRID) / 200
    found = lung_fields(image)
    y, x = np.mgrid[:FIELD_GRID, :FIELD_GRID] / FIELD_GRID
    truth = np.any([((x - 0.5 - s * 0.2) / 0.13) ** 2 + ((y - 0.42) / 0.26) ** 2 < 1 for s in (-1, 1)], axis=0)
    assert found.sides == (True, True)
    assert (found.mask & truth).sum() / (found.mask | truth).sum() > 0.75
    rows, columns = np.nonzero(truth)
    assert found.box.row0 <= rows.min() + 2
    assert found.box.row1 >= rows.max() - 2
    assert found.box.column0 <= columns.min() + 2
    assert found.box.column1 >= columns.max() - 2
    assert found.box.height < 0.85 * FIELD_GRID


def test_a_lung_that_is_white_is_looked_at_all_the_same():
    """The side that is not found mirrors the other: a consolidated lung stays in the picture."""
    found = lung_fields(chest(FIELD_GRID, one_sided=True) / 200)
    assert found.sides == (True, False)
    assert found.box.column1 > 0.72 * FIELD_GRID


@pytest.mark.parametrize(("factor", "offset"), [(16.0, 0.0), (257.0, 1000.0)])
def test_bit_depth_does_not_matter(factor, offset):
    """8, 12 and 16 bit versions of one picture give one input."""
    a, b = prepare_chest_lungs(chest(), 64), prepare_chest_lungs(chest() * factor + offset, 64)
    assert isinstance(a, Prepared)
    assert isinstance(b, Prepared)
    assert a.image == pytest.approx(b.image, abs=1e-3)
    assert a.box == b.box


def test_size_does_not_matter():
    """A picture of 1500 pixels gives nearly the input of the same one at 256, and its box in its own pixels."""
    small, large = prepare_chest_lungs(chest(256), 64), prepare_chest_lungs(chest(1500), 64)
    assert isinstance(small, Prepared)
    assert isinstance(large, Prepared)
    assert np.abs(small.image - large.image).mean() < 0.03
    assert large.box.row1 / 1500 == pytest.approx(small.box.row1 / 256, abs=0.03)


def test_the_demo_phantom_is_prepared_and_its_opacity_lies_inside():
    """The planted consolidation is in the box, although its lung is not aerated there."""
    study = make_dx_chest(5)
    truth = study.truth[study.datasets[0].SOPInstanceUID]
    prepared = prepare_chest_lungs(study.datasets[0].pixel_array.astype(np.float32), 256)
    assert isinstance(prepared, Prepared)
    covered = paste(prepared.mask.astype(np.float32), prepared.box, truth.shape) > 0.5
    assert covered[truth].mean() > 0.99


@pytest.mark.parametrize("image", [np.zeros((64, 64), np.float32), np.ones((8, 300), np.float32)])
def test_what_is_no_picture_is_rejected(image):
    """A reason, no exception."""
    answer = prepare_chest_lungs(image, 64)
    assert isinstance(answer, Rejected)
    assert answer.reason


def test_noise_without_lungs_still_gives_an_input():
    """The preparation rejects little: without lungs it looks at the usual place."""
    answer = PREPARATIONS["chest-lungs"](np.random.default_rng(0).uniform(90, 110, (300, 280)).astype(np.float32), 64)
    assert isinstance(answer, Prepared)
    assert answer.image.shape == (64, 64)
    assert np.isfinite(answer.image).all()
