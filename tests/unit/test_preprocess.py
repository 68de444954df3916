"""The one preprocessing: the same answer for pictures, scanners, bit depths and fields of view."""

from __future__ import annotations

import numpy as np
import pytest

from dicomnode.detectors.preprocess import (
    Prepared,
    Rejected,
    prepare_brain_flair,
    prepare_head_ct,
    prepare_radiograph,
)
from dicomnode.detectors.resample import Box, axis_weights, crop_resize, paste


def disc(shape, centre, radius):
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return np.hypot(rows - centre[0], columns - centre[1]) <= radius


def head_ct(shape=(256, 256), centre=(120, 128), table=True):
    """HU: air, skin, skull, brain, one ventricle; a table below the head."""
    image = np.full(shape, -1000.0, np.float32)
    image[disc(shape, centre, 90)] = 40
    image[disc(shape, centre, 84)] = 1000
    image[disc(shape, centre, 76)] = 32
    image[disc(shape, centre, 15)] = 8
    if table:
        image[shape[0] - 20 : shape[0] - 14, 20:-20] = 200
    return image + np.random.default_rng(0).normal(0, 2, shape).astype(np.float32)


def flair(shape=(256, 256), centre=(128, 128)):
    image = np.full(shape, 5.0, np.float32)
    image[disc(shape, centre, 90)] = 700
    image[disc(shape, centre, 80)] = 260
    image[disc(shape, centre, 15)] = 60
    return image


def test_resampling_keeps_a_constant_and_its_weights_sum_to_one():
    """No brightness is lost when a plane is reduced or enlarged."""
    for size in (7, 32, 200):
        assert crop_resize(np.full((50, 60), 3.0, np.float32), Box(0, 0, 50, 60), (size, size)) == pytest.approx(3.0)
        assert axis_weights(50, 4.5, 33.2, size).sum(axis=1) == pytest.approx(1.0)


def test_outside_the_image_reads_as_zero():
    """A crop box may reach over the border."""
    part = crop_resize(np.ones((20, 20), np.float32), Box(-20, 0, 20, 20), (40, 20))
    assert part[:19].max() == 0
    assert part[21:].min() == pytest.approx(1.0)


def test_a_map_comes_back_to_the_place_it_was_cut_from():
    """A hot spot on the network grid lies on the same anatomy of the plane."""
    plane = np.zeros((300, 200), np.float32)
    plane[140:160, 60:80] = 1
    box = Box(90.5, 20.25, 210.5, 140.25)
    back = paste(crop_resize(plane, box, (64, 64)), box, plane.shape)
    assert back.shape == plane.shape
    assert back[142:158, 62:78].min() > 0.8
    assert back[:100].max() == 0
    rows, columns = np.nonzero(back > 0.5)
    assert (rows.mean(), columns.mean()) == pytest.approx((149.5, 69.5), abs=0.5)


def test_scanner_values_and_a_windowed_picture_of_them_give_the_same_head():
    """clip(HU, 0, 80) keeps everything that the head CT preparation uses: parity of node and pictures."""
    scanner = head_ct()
    a, b = prepare_head_ct(scanner, 64), prepare_head_ct(np.clip(scanner, 0, 80), 64)
    assert isinstance(a, Prepared)
    assert np.array_equal(a.image, b.image)
    assert np.array_equal(a.mask, b.mask)


def test_the_table_does_not_belong_to_the_head():
    """The crop box surrounds the brain, whatever lies below it."""
    with_table, without = prepare_head_ct(head_ct(), 64), prepare_head_ct(head_ct(table=False), 64)
    assert with_table.box == without.box
    assert with_table.box.row0 == pytest.approx(120 - 76, abs=8)


def test_the_place_and_field_of_view_of_the_head_do_not_matter():
    """A head elsewhere in a larger image looks the same to the network."""
    small = prepare_head_ct(head_ct(table=False), 64)
    large = prepare_head_ct(head_ct(shape=(340, 330), centre=(200, 170), table=False), 64)
    inside = small.mask & large.mask
    assert inside.sum() > 0.9 * small.mask.sum()
    assert np.abs(small.image - large.image)[inside].mean() < 0.03


def test_the_skull_is_outside_the_mask_and_blood_inside_it():
    """Bone never counts as deviation; bright blood does."""
    image = head_ct(table=False)
    image[disc(image.shape, (120, 90), 12)] = 70
    prepared = prepare_head_ct(image, 128)
    assert prepared.image[prepared.mask].max() > 0.85
    ring = paste(prepared.mask.astype(np.float32), prepared.box, image.shape) > 0.5
    assert not (ring & (head_ct(table=False) > 500)).any()
    assert ring[120, 90]


@pytest.mark.parametrize(("factor", "offset"), [(16.0, 0.0), (257.0, 1000.0)])
def test_a_radiograph_looks_the_same_at_any_bit_depth(factor, offset):
    """8-bit, 12-bit and 16-bit versions of one picture give one input."""
    image = np.random.default_rng(1).integers(0, 255, (90, 80)).astype(np.float32)
    a, b = prepare_radiograph(image, 64), prepare_radiograph(image * factor + offset, 64)
    assert a.image == pytest.approx(b.image, abs=1e-4)


def test_black_collimation_borders_are_cut():
    """The chest fills the input whether or not the detector was larger than the field."""
    chest = np.random.default_rng(2).uniform(80, 255, (200, 200)).astype(np.float32)
    framed = np.zeros((260, 240), np.float32)
    framed[30:230, 20:220] = chest
    prepared = prepare_radiograph(framed, 64)
    assert (prepared.box.row0, prepared.box.column0, prepared.box.row1, prepared.box.column1) == (30, 20, 230, 220)


def test_the_gain_of_an_mr_scanner_does_not_matter():
    """MR values have no unit."""
    a, b = prepare_brain_flair(flair(), 64), prepare_brain_flair(flair() * 37.5, 64)
    assert a.image == pytest.approx(b.image, abs=1e-4)
    assert np.median(a.image[a.mask]) == pytest.approx(0.4, abs=0.02)


def test_the_scalp_is_outside_the_mask_of_an_mr():
    """Bright fat is no deviation."""
    image = flair()
    prepared = prepare_brain_flair(image, 128)
    counted = paste(prepared.mask.astype(np.float32), prepared.box, image.shape) > 0.5
    assert not (counted & (image > 500)).any()
    assert counted[100, 128]


@pytest.mark.parametrize("prepare", [prepare_radiograph, prepare_head_ct, prepare_brain_flair])
@pytest.mark.parametrize("image", [np.zeros((64, 64), np.float32), np.full((64, 64), np.inf, np.float32)])
def test_an_empty_image_is_rejected_with_a_reason(prepare, image):
    """No exception, no silent zero."""
    answer = prepare(image, 64)
    assert isinstance(answer, Rejected)
    assert answer.reason


def test_a_plane_without_brain_is_rejected():
    """Slices above the vertex or below the skull base are left out by name."""
    image = np.full((128, 128), -1000.0, np.float32)
    image[disc(image.shape, (64, 64), 40)] = 40
    assert "brain" in prepare_head_ct(image, 64).reason
