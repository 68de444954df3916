"""The spacing test and the anatomical axis, on bare positions."""

from __future__ import annotations

import numpy as np
import pytest

from dicomnode.detect.geometry import (
    Spot,
    along,
    examine_stack,
    is_orientation,
    places,
    same_orientation,
    stacking_axis,
)
from dicomnode.detect.volume import NotAnalysable

HEAD = np.array([0.0, 0.0, 1.0])


def spots(heights: list[float], numbers: list[int] | None = None, thickness: float | None = None) -> list[Spot]:
    given = numbers or [None] * len(heights)
    return [Spot((0.0, 0.0, z), number, thickness) for z, number in zip(heights, given, strict=True)]


@pytest.mark.parametrize(
    ("orientation", "axis"),
    [
        ((1, 0, 0, 0, 1, 0), (0, 0, 1)),
        ((1, 0, 0, 0, -1, 0), (0, 0, 1)),
        ((1, 0, 0, 0, 0, -1), (0, 1, 0)),
        ((0, 1, 0, 0, 0, -1), (1, 0, 0)),
        ((0, -1, 0, 0, 0, -1), (1, 0, 0)),
    ],
)
def test_planes_stack_to_the_head_the_back_and_the_left(
    orientation: tuple[float, ...], axis: tuple[float, ...]
) -> None:
    assert np.allclose(stacking_axis(orientation), axis)  # type: ignore[arg-type]


def test_an_oblique_plane_stacks_along_its_largest_component() -> None:
    cos, sin = np.cos(np.radians(30)), np.sin(np.radians(30))
    assert np.allclose(stacking_axis((1, 0, 0, 0, cos, sin)), (0, -sin, cos))


def test_orthogonal_unit_vectors_are_an_orientation_and_others_are_not() -> None:
    assert is_orientation((1, 0, 0, 0, 0.99999, 0.001))
    assert not is_orientation((1, 0, 0, 1, 0, 0))
    assert not is_orientation((2, 0, 0, 0, 1, 0))
    assert not is_orientation((0, 0, 0, 0, 0, 0))


def test_orientations_two_degrees_apart_differ() -> None:
    tilted = (1.0, 0.0, 0.0, 0.0, float(np.cos(np.radians(2))), float(np.sin(np.radians(2))))
    assert not same_orientation((1, 0, 0, 0, 1, 0), tilted)


def test_planes_within_rounding_lie_at_one_place() -> None:
    distances = along(HEAD, [(0, 0, 5.0), (0, 0, 0.0), (0, 0, 5.001), (9, 9, 0.0)])
    assert places(distances) == ((1, 3), (0, 2))


def test_even_spacing_is_measured_over_the_whole_stack() -> None:
    assert examine_stack(HEAD, spots([0, 0.6, 1.3, 1.9, 2.5])).spacing == pytest.approx(0.625)


@pytest.mark.parametrize("heights", [[0, 5, 15], [0, 10, 15, 20], [0, 5, 10, 20, 25], [0, 5, 10, 15, 20, 40, 45]])
def test_a_missing_slice_is_a_gap(heights: list[float]) -> None:
    with pytest.raises(NotAnalysable, match="slice gap"):
        examine_stack(HEAD, spots(heights))


def test_the_gap_says_how_many_slices_and_where() -> None:
    with pytest.raises(NotAnalysable) as caught:
        examine_stack(HEAD, spots([0, 5, 10, 25, 30]))
    assert caught.value.reason == (
        "slice gap: 2 slices missing between slices 3 and 4 (15.00 mm apart, the others 5.00 mm)"
    )


def test_three_equal_wide_steps_are_a_protocol_with_two_spacings() -> None:
    report = examine_stack(HEAD, spots([0, 5, 10, 15, 20, 30, 40, 50]))
    assert report.spacing is None
    assert report.notes == ("slice spacing varies from 5.00 to 10.00 mm",)


def test_jumping_instance_numbers_make_wide_steps_a_gap_all_the_same() -> None:
    with pytest.raises(NotAnalysable, match="slice gap"):
        examine_stack(HEAD, spots([0, 5, 10, 15, 20, 30, 40, 50], [1, 2, 3, 4, 5, 7, 9, 11]))


def test_consecutive_instance_numbers_excuse_one_wide_step() -> None:
    report = examine_stack(HEAD, spots([0, 5, 10, 20], [10, 9, 8, 7]))
    assert report.spacing is None
    assert report.notes


def test_thick_slices_that_fill_the_wide_step_excuse_it() -> None:
    mixed = spots([0, 5, 10]) + spots([20, 30], thickness=10)
    with pytest.raises(NotAnalysable):
        examine_stack(HEAD, mixed)
    filled = spots([0, 5], thickness=5) + spots([10, 20, 30], thickness=10)
    assert examine_stack(HEAD, filled).spacing is None


def test_two_slices_twice_their_stated_spacing_apart_are_a_gap() -> None:
    pair = [Spot((0, 0, 0), between=5.0), Spot((0, 0, 10), between=5.0)]
    with pytest.raises(NotAnalysable, match="slice gap"):
        examine_stack(HEAD, pair)


def test_a_thinned_stack_is_noted() -> None:
    report = examine_stack(HEAD, [Spot((0, 0, 10.0 * i), between=5.0) for i in range(4)])
    assert report.spacing == 10
    assert "slices may be missing" in report.notes[0]


def test_uneven_steps_leave_no_spacing_and_a_note() -> None:
    report = examine_stack(HEAD, spots([0, 5, 11, 15, 21]))
    assert report.spacing is None
    assert report.notes == ("slice spacing varies from 4.00 to 6.00 mm",)


def test_a_gantry_tilt_is_measured_and_the_spacing_taken_along_the_normal() -> None:
    tilt = np.radians(20)
    axis = np.array([0.0, -np.sin(tilt), np.cos(tilt)])
    report = examine_stack(axis, spots([0.0, 5.0, 10.0]))
    assert report.spacing == pytest.approx(5 * np.cos(tilt))
    assert report.notes == ("gantry tilt of 20.0 degrees: slices are analysed as acquired",)


def test_planes_that_wander_sideways_have_no_spacing() -> None:
    report = examine_stack(HEAD, [Spot((0, 0, 0)), Spot((7, 0, 5)), Spot((0, 0, 10))])
    assert report.spacing is None
    assert "sideways" in report.notes[0]


def test_a_single_slice_is_said_to_be_one() -> None:
    assert examine_stack(HEAD, spots([3.0])).notes == ("single slice",)
