"""The montage shows a long Series honestly: in order, what is missing is said, and suspicious images come first."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dicomnode.report import colours, to_bytes
from dicomnode.report.capture import captures
from dicomnode.report.legend import legend_for, series_legend
from dicomnode.report.montage import LONG_SERIES, is_long, montage, selected, thumbnails
from dicomnode.report.overlay import draw
from dicomnode.report.part10 import add_file_meta
from dicomnode.report.window import windows
from tests.report_fixtures import context, findings, multiframe, no_findings, source

AMBER = np.array(colours.FINDINGS)


def test_montage_shows_all_images_when_they_fit():
    volume, _ = source("CT", 20)
    assert selected(findings(volume), 24) == tuple(range(20))


def test_montage_of_more_images_has_the_suspicious_ones_and_spans_the_series():
    volume, _ = source("CT", 180)
    result = findings(volume, ((100, 101), (37,)))
    shown = selected(result, 24)
    assert len(shown) <= 24
    assert len(shown) >= 20
    assert {37, 100, 101} <= set(shown)
    assert (shown[0], shown[-1]) == (0, 179)
    assert list(shown) == sorted(set(shown))
    assert max(np.diff(shown)) <= 30


def test_montage_without_findings_still_has_the_greatest_scores():
    volume, _ = source("CT", 100)
    result = no_findings(volume)
    planes = list(result.planes)
    planes[61] = replace(planes[61], score=0.94)
    assert 61 in selected(replace(result, planes=tuple(planes)), 12)


def test_montage_never_takes_an_image_that_was_not_looked_at_for_suspicious():
    volume, _ = source("CT", 100)
    result = no_findings(volume)
    planes = list(result.planes)
    planes[61] = replace(planes[61], score=0.94, left_out="no brain")
    chosen = selected(replace(result, planes=tuple(planes)), 4)
    assert 61 not in chosen


def test_montage_says_how_many_images_it_shows_and_hides():
    volume, headers = source("CT", 40)
    result = findings(volume, (tuple(range(5, 35)),))
    own = windows(volume, "HEAD")
    shown = selected(result, 10)
    legend = series_legend(volume, headers, result, context(), {index: own[index] for index in shown})
    hidden = 30 - len(set(range(5, 35)) & set(shown))
    assert dict(legend.facts)["Shown"] == f"{len(shown)} of 40 images"
    assert legend.notices[0].startswith(f"{len(shown)} of 40 images")
    assert f"{hidden} more with regions are not shown" in legend.notices[0]
    complete = series_legend(volume, headers, result, context(), dict(enumerate(own)))
    assert not complete.notices


def test_montage_legend_states_outcome_scores_window_model_and_sides():
    volume, headers = source("CT", 14)
    own = dict(enumerate(windows(volume, "HEAD")))
    legend = series_legend(volume, headers, findings(volume), context(supersedes=(volume.planes[0].source,)), own)
    facts = dict(legend.scores + legend.facts)
    assert (legend.headline, legend.subline) == ("FINDINGS", "at threshold 0.95")
    assert facts["Series score"] == "0.98"
    assert facts["Framed"] == "2 with regions"
    assert facts["Window"] == "C 40 W 80 HU"
    assert facts["Model"] == "ct-head-aeu"
    assert facts["Edges"] == "left R, top A"
    assert any("earlier result" in notice for notice in legend.notices)
    assert "normal" not in str(legend).lower()


def test_montage_frames_the_images_with_regions_and_no_other():
    volume, headers = source("CT", 13)
    result = findings(volume, ((4,),))
    plain = thumbnails(volume, headers, no_findings(volume), context(), range(13))
    framed = thumbnails(volume, headers, result, context(), range(13))
    amber = (framed == AMBER).all(axis=2)
    assert not (plain == AMBER).all(axis=2).any()
    height, width = framed.shape[0] // 3, framed.shape[1] // 6
    cell = amber[:height, 4 * width : 5 * width]
    assert cell.sum() > 2 * (width + height)
    amber[:height, 4 * width : 5 * width] = False
    assert not amber.any()


def test_montage_of_given_sheet_has_just_its_size():
    volume, headers = source("CT", 40, (512, 512))
    result = findings(volume, (tuple(range(5, 35)),))
    legend = legend_for(0, volume, headers[0], result, context(), windows(volume, "HEAD")[0])
    picture = draw(volume.planes[0].pixels, windows(volume, "HEAD")[0], result, 0, legend)
    assert montage(volume, headers, result, context(), like=picture.sheet).shape == picture.pixels.shape


def test_montage_banner_is_bottom_centre():
    volume, headers = source("CT", 14)
    picture = montage(volume, headers, findings(volume), context()).astype(int)
    yellow = (abs(picture - np.array(colours.BANNER)) < 40).all(axis=2)
    rows, columns = np.nonzero(yellow[-60:])
    assert rows.size > 100
    assert abs((columns.min() + columns.max()) / 2 - picture.shape[1] / 2) < 5


def test_montage_thumbnails_keep_the_proportions_of_the_patient():
    volume, headers = source("MR", 13, (64, 64))
    flat = replace(volume, planes=tuple(replace(plane, spacing=(0.5, 1.0)) for plane in volume.planes))
    square = thumbnails(volume, headers, no_findings(volume), context(), range(13))
    assert thumbnails(flat, headers, no_findings(flat), context(), range(13)).shape[0] < 0.7 * square.shape[0]


def test_montage_leaves_grey_images_grey():
    volume, headers = source("CT", 13)
    picture = thumbnails(volume, headers, no_findings(volume), context(), range(13)).astype(int)
    coloured = np.ptp(picture, axis=2) > 12
    assert not coloured.any()


@pytest.mark.parametrize("call", [{"limit": 0}, {"columns": 0}])
def test_montage_refuses_to_show_nothing(call):
    volume, headers = source("CT", 13)
    with pytest.raises(ValueError, match="at least one image"):
        montage(volume, headers, no_findings(volume), context(), **call)


@pytest.mark.parametrize(
    ("first", "expected"), [(11, [10, *range(11, 24)]), (1, [0, *range(1, 14)]), (0, [0, *range(1, 14)])]
)
def test_montage_comes_before_the_pictures_of_a_long_series(first, expected):
    volume, headers = source("CT", LONG_SERIES + 1)
    for place, own in enumerate(headers):
        own.InstanceNumber = first + place
    made = list(captures(volume, headers, no_findings(volume), context()))
    assert [one.InstanceNumber for one in made] == expected
    assert "montage" in made[0].ImageComments
    assert len({one.SeriesInstanceUID for one in made}) == 1
    assert len({one.SOPInstanceUID for one in made}) == len(made)


def test_montage_object_names_all_sources_and_lies_nowhere_in_the_patient():
    volume, headers = source("CT", LONG_SERIES + 1, (512, 512))
    one = next(captures(volume, headers, no_findings(volume), context()))
    assert len(one.SourceImageSequence) == LONG_SERIES + 1
    assert {item.SpatialLocationsPreserved for item in one.SourceImageSequence} == {"NO"}
    assert not one.PatientOrientation
    for keyword in (
        "ImagePositionPatient",
        "FrameOfReferenceUID",
        "PixelSpacing",
        "PixelAspectRatio",
        "SliceThickness",
    ):
        assert keyword not in one
    framed = next(captures(*multiframe(13), no_findings(multiframe(13)[0]), context()))
    assert [list(item.ReferencedFrameNumber) for item in framed.SourceImageSequence] == [list(range(1, 14))]


def test_montage_changes_no_uid_of_the_pictures_behind_it():
    volume, headers = source("CT", LONG_SERIES + 1)
    short = replace(volume, planes=volume.planes[:LONG_SERIES])
    long_ones = list(captures(volume, headers, no_findings(volume), context()))
    short_ones = list(captures(short, headers[:LONG_SERIES], no_findings(short), context()))
    assert [one.SOPInstanceUID for one in long_ones[1 : LONG_SERIES + 1]] == [one.SOPInstanceUID for one in short_ones]


def test_montage_is_the_same_on_a_second_run():
    def run() -> bytes:
        volume, headers = source("CT", LONG_SERIES + 1)
        one = next(captures(volume, headers, findings(volume), context()))
        add_file_meta(one, context())
        return to_bytes(one)

    assert run() == run()


def test_montage_is_for_series_that_no_screen_shows_at_once():
    assert not is_long(source("CT", LONG_SERIES)[0])
    assert is_long(source("CT", LONG_SERIES + 1)[0])
