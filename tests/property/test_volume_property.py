"""Whatever the order of the files, the Volume is one; whatever slice is lost, it is noticed."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomnode.detect.geometry import Spot, examine_stack, stacking_axis
from dicomnode.detect.volume import NotAnalysable
from tests.unit.volume_fixtures import load_files, refusal, stack, write

UNIT = st.floats(-1, 1).map(lambda x: round(x, 6))


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(6)), st.integers(0, 3))
def test_the_order_of_the_files_never_changes_the_volume(order: list[int], echoes: int) -> None:
    slices = stack(6 - echoes)
    for number, ds in enumerate(stack(echoes), start=50):
        ds.SOPInstanceUID, ds.InstanceNumber = f"{ds.SOPInstanceUID[:50]}.7", number
        slices.append(ds)
    with tempfile.TemporaryDirectory() as folder:
        sources = [write(ds, Path(folder)) for ds in slices]
        first, second = load_files(sources), load_files([sources[i] for i in order])
    assert first.volume.notes == second.volume.notes
    assert first.volume.slice_spacing == second.volume.slice_spacing
    for one, other in zip(first.volume.planes, second.volume.planes, strict=True):
        assert one.source == other.source
        assert np.array_equal(one.pixels, other.pixels)
    assert [h.SOPInstanceUID for h in first.headers] == [h.SOPInstanceUID for h in second.headers]


@settings(max_examples=15, deadline=None)
@given(st.integers(4, 9), st.data(), st.floats(0.5, 10))
def test_dropping_an_interior_slice_of_a_series_is_always_refused(
    count: int, data: st.DataObject, spacing: float
) -> None:
    lost = data.draw(st.integers(1, count - 2))
    slices = stack(count, round(spacing, 3))
    del slices[lost]
    with tempfile.TemporaryDirectory() as folder:
        assert refusal(Path(folder), slices).startswith(
            f"slice gap: 1 slice missing between slices {lost} and {lost + 1}"
        )


@settings(max_examples=200, deadline=None)
@given(
    st.integers(4, 60), st.data(), st.floats(0.3, 12), st.tuples(UNIT, UNIT, UNIT), st.floats(0, 0.05), st.booleans()
)
def test_dropping_interior_slices_of_any_stack_is_noticed_in_spite_of_jitter(
    count: int, data: st.DataObject, spacing: float, turn: tuple[float, float, float], jitter: float, numbered: bool
) -> None:
    lost = data.draw(st.integers(1, count - 2))
    rotation = _rotation(turn)
    axis = stacking_axis(tuple(rotation[:, :2].T.ravel()))  # type: ignore[arg-type]
    seed = data.draw(st.integers(0, 999))
    noise = np.random.default_rng(seed).uniform(-jitter, jitter, count) * spacing
    spots = [
        Spot(tuple((i * spacing + noise[i]) * axis), i if numbered else None)  # type: ignore[arg-type]
        for i in range(count)
        if i != lost
    ]
    with pytest.raises(NotAnalysable, match="slice gap: 1 slice missing"):
        examine_stack(axis, spots)


@settings(max_examples=200, deadline=None)
@given(st.integers(2, 80), st.floats(0.3, 12), st.floats(0, 0.03), st.integers(0, 999))
def test_a_regular_stack_with_rounding_jitter_is_never_refused(
    count: int, spacing: float, jitter: float, seed: int
) -> None:
    noise = np.random.default_rng(seed).uniform(-jitter, jitter, count) * spacing
    spots = [Spot((0.0, 0.0, float(i * spacing + noise[i]))) for i in range(count)]
    assert examine_stack(np.array([0.0, 0.0, 1.0]), spots).spacing == pytest.approx(spacing, rel=0.07)


def _rotation(turn: tuple[float, float, float]) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    return Rotation.from_rotvec(np.array(turn) * 3).as_matrix()
