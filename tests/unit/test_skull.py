"""The inside of the skull: whole, with gaps, at the vertex, at the base, and where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from dicomnode.detectors.preprocess import Prepared, Rejected, prepare_head_ct
from dicomnode.detectors.skull import inside_skull, largest

SHAPE = (256, 256)


def disc(centre, radius):
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return np.hypot(rows - centre[0], columns - centre[1]) <= radius


def window(skin=95, outer=88, inner=80, gap=0, centre=(128, 128)):
    """Share of the 80 HU window and the head: skin, skull with a gap of ``gap`` pixels in front, brain."""
    image = np.zeros(SHAPE, np.float32)
    head = disc(centre, skin)
    image[head] = 0.5
    bone = disc(centre, outer) & ~disc(centre, inner)
    bone[: centre[0], centre[1] - gap // 2 : centre[1] + (gap + 1) // 2] = False
    image[bone] = 1.0
    image[disc(centre, inner)] = 0.4
    return image, head, disc(centre, inner)


def overlap(a, b):
    return (a & b).sum() / (a | b).sum()


@pytest.mark.parametrize("gap", [0, 5, 15, 35])
def test_the_brain_is_found_whatever_the_gap_in_the_skull(gap):
    """Orbits and the cribriform plate open the ring of bone; the brain behind it is still looked at."""
    image, head, brain = window(gap=gap)
    assert overlap(inside_skull(image, head), brain) > 0.93


def test_a_skull_open_over_most_of_a_side_still_gives_its_inside():
    """The widest soft part stands in where no closing helps, as long as bone lines most of its rim."""
    image, head, brain = window(gap=90, skin=90)
    assert overlap(inside_skull(image, head), brain) > 0.85


def test_the_skull_is_never_inside_and_dense_blood_always_is():
    """Blood as bright as bone in the window is an island in the brain, not a hole in it."""
    image, head, _ = window(gap=15)
    blood, skull = disc((90, 128), 6), image >= 0.92
    image[blood] = 1.0
    inside = inside_skull(image, head)
    assert not (inside & skull).any()
    assert inside[blood].all()


def test_a_small_vertex_is_found():
    """Near the vertex the brain is a small disc within thick bone."""
    image, head, brain = window(skin=40, outer=36, inner=18)
    assert overlap(inside_skull(image, head), brain) > 0.9


def test_the_base_keeps_the_small_inside_of_much_bone():
    """Where bone fills the head, a small inside is no reason to close gaps to the face."""
    image, head, _ = window(skin=60, outer=58, inner=0)
    hole = disc((150, 128), 16)
    image[hole] = 0.4
    assert overlap(inside_skull(image, head), hole) > 0.9


def test_a_head_without_bone_has_no_inside():
    """Soft tissue alone is not a brain."""
    head = disc((128, 128), 80)
    assert not inside_skull(head * np.float32(0.5), head).any()
    assert not inside_skull(np.zeros(SHAPE, np.float32), np.zeros(SHAPE, bool)).any()


def test_where_the_head_lies_on_the_plane_does_not_matter():
    """The answer moves with the head, up to the border."""
    image, head, _ = window(skin=60, outer=56, inner=50, gap=15)
    here = inside_skull(image, head)
    moved = inside_skull(np.roll(image, (-67, 60), (0, 1)), np.roll(head, (-67, 60), (0, 1)))
    assert np.array_equal(np.roll(here, (-67, 60), (0, 1)), moved)


def test_the_largest_part_is_kept_alone():
    """Of two parts the greater; one part as it is; none as none."""
    two = disc((60, 60), 20) | disc((180, 180), 30)
    assert np.array_equal(largest(two), disc((180, 180), 30))
    assert np.array_equal(largest(disc((60, 60), 20)), disc((60, 60), 20))
    assert not largest(np.zeros(SHAPE, bool)).any()


def test_the_share_of_the_brain_tells_the_vertex_from_the_middle():
    """The calibration compares planes that show as much brain: the share is measured on the head."""
    shares = []
    for kwargs in ({}, {"skin": 40, "outer": 36, "inner": 18}):
        image, _, _ = window(**kwargs)
        prepared = prepare_head_ct(np.where(image > 0, image * 80, -1000), 64)
        assert isinstance(prepared, Prepared)
        shares.append(prepared.organ_share)
    assert shares == pytest.approx([(80 / 95) ** 2, (18 / 40) ** 2], abs=0.06)


def test_a_plane_that_shows_almost_no_brain_is_left_out():
    """A pea-sized hole in bone is no brain."""
    image, _, _ = window(skin=40, outer=38, inner=6)
    assert isinstance(prepare_head_ct(np.where(image > 0, image * 80, -1000), 64), Rejected)
