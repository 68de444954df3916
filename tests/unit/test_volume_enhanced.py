"""Multi-frame Instances with functional groups (PS3.3 C.7.6.16)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.unit.volume_fixtures import enhanced_mr, item, load, refusal


def test_frames_are_ordered_rescaled_and_windowed_by_their_own_groups(tmp_path: Path) -> None:
    ds = enhanced_mr([8, 0, 4])
    loaded = load(tmp_path, [ds])
    planes = loaded.volume.planes
    assert [plane.frame for plane in planes] == [2, 3, 1]
    assert [plane.position for plane in planes] == [(0, 0, 0), (0, 0, 4), (0, 0, 8)]
    assert [plane.window for plane in planes] == [(101, 50), (102, 50), (100, 50)]
    assert np.array_equal(planes[0].pixels, ds.pixel_array[1] * 2.0 + 1)
    assert planes[0].stored_max == 65535 * 2 + 1
    assert planes[0].spacing == (0.5, 0.75)
    assert loaded.volume.slice_spacing == 4


def test_all_frames_share_one_header(tmp_path: Path) -> None:
    headers = load(tmp_path, [enhanced_mr([0, 4])]).headers
    assert headers[0] is headers[1]
    assert "PixelData" not in headers[0]


def test_the_first_echo_of_a_multi_echo_instance_is_taken(tmp_path: Path) -> None:
    loaded = load(tmp_path, [enhanced_mr([0, 0, 4, 4, 8, 8], echoes=[80, 9, 80, 9, 80, 9])])
    assert [plane.frame for plane in loaded.volume.planes] == [2, 4, 6]
    assert "told apart by EchoTime" in loaded.volume.notes[0]


def test_a_stack_may_lie_in_several_instances(tmp_path: Path) -> None:
    second = enhanced_mr([8, 12])
    second.SOPInstanceUID = "1.2.3.4"
    loaded = load(tmp_path, [second, enhanced_mr([0, 4])])
    assert [plane.position[2] for plane in loaded.volume.planes if plane.position] == [0, 4, 8, 12]


def test_localiser_frames_are_left_out(tmp_path: Path) -> None:
    ds = enhanced_mr([0, 4, 8])
    ds.PerFrameFunctionalGroupsSequence[2].MRImageFrameTypeSequence = [
        item(FrameType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    ]
    loaded = load(tmp_path, [ds])
    assert [plane.frame for plane in loaded.volume.planes] == [1, 2]
    assert loaded.volume.notes == ("left out: 1 localiser images",)


def test_frames_without_position_or_groups_are_refused(tmp_path: Path) -> None:
    ds = enhanced_mr([0, 4, 8])
    del ds.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence
    assert refusal(tmp_path, [ds]) == "1 of 3 images have no Image Position (Patient)"
    del ds.PerFrameFunctionalGroupsSequence
    assert refusal(tmp_path, [ds]) == "a multi-frame image has 3 frames and 0 per-frame functional groups"
