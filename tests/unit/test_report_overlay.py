"""The picture colours what the detector means and nothing else, and says how to read it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from dicomnode.detectors.contract import DetectionResult, PlaneResult, Volume
from dicomnode.detectors.regions import RegionRule, link_findings, plane_regions
from dicomnode.report import build_results
from dicomnode.report.colours import CONTOUR, CONTOUR_EDGE, blended, heat_colours
from dicomnode.report.legend import legend_for, position_text
from dicomnode.report.lettering import drawable
from dicomnode.report.overlay import Picture, draw, enlargement
from dicomnode.report.panel import layout, scale_bar
from dicomnode.report.scores import score_texts
from dicomnode.report.window import Window, grey, windows
from tests.report_fixtures import context, findings, header, no_findings, plane_of, source

BRAIN = Window(40.0, 80.0, "HU", "from source")


def picture(volume, headers, result, index: int = 0, **changes: object) -> Picture:
    legend = legend_for(index, volume, headers[index], result, context(**changes), BRAIN)
    return draw(volume.planes[index].pixels, BRAIN, result, index, legend)


def _without_window(volume: Volume) -> Volume:
    return replace(volume, planes=tuple(replace(plane, window=None) for plane in volume.planes))


@pytest.mark.parametrize("shape", [(64, 64), (100, 60), (512, 512), (300, 700)])
def test_report_source_pixels_outside_the_region_are_untouched(shape):
    volume, headers = source("CT", 1, shape)
    drawn = picture(volume, headers, findings(volume, ((0,),)))
    rows, columns = shape
    image = drawn.pixels[: rows * drawn.scale, : columns * drawn.scale]
    expected = grey(volume.planes[0].pixels, BRAIN).repeat(drawn.scale, 0).repeat(drawn.scale, 1)
    outside = np.ones(image.shape[:2], bool)
    margin = 2 * drawn.scale + 6
    top, left, bottom, right = (edge * drawn.scale for edge in (rows // 4, columns // 4, rows // 2, columns // 2))
    outside[max(0, top - margin) : bottom + margin, max(0, left - margin) : right + margin] = False
    assert (image[outside] == expected[outside][:, None]).all()
    assert (np.ptp(image[~outside].astype(int), axis=1) > 0).mean() > 0.5


def test_report_heat_below_the_display_threshold_leaves_the_image_grey():
    volume, headers = source("CT", 1)
    drawn = picture(volume, headers, no_findings(volume), display_threshold=0.5)
    assert (np.ptp(drawn.pixels[:512, :512].astype(int), axis=2) == 0).all()
    coloured = picture(volume, headers, no_findings(volume), display_threshold=0.1)
    assert (np.ptp(coloured.pixels[:512, :512].astype(int), axis=2) > 0).mean() > 0.9


def test_report_image_stays_in_the_corner_and_panels_lie_beside_it():
    volume, headers = source("CT", 1, (512, 512))
    drawn = picture(volume, headers, no_findings(volume))
    assert drawn.scale == 1
    assert drawn.pixels.shape[0] > 512
    assert drawn.pixels.shape[1] > 512


def test_report_banner_is_bottom_centre():
    volume, headers = source("CT", 1, (512, 512))
    footer = picture(volume, headers, no_findings(volume)).pixels[520:].astype(int)
    columns = np.flatnonzero((footer[:, :, 0] > 150).any(axis=0))
    assert abs((columns[0] + columns[-1]) / 2 - footer.shape[1] / 2) < 5
    assert columns[-1] - columns[0] > 250


def test_report_notices_make_the_footer_taller():
    volume, headers = source("CT", 1, (512, 512))
    plain = picture(volume, headers, no_findings(volume)).pixels
    told = picture(volume, headers, no_findings(volume), incomplete=True).pixels
    assert told.shape[0] > plain.shape[0]


@pytest.mark.parametrize(
    ("shape", "factor"),
    [((256, 256), 2), ((320, 320), 2), ((512, 512), 1), ((64, 64), 8), ((3000, 2500), 1), ((511, 9), 2)],
)
def test_report_small_images_grow_by_a_whole_factor(shape, factor):
    assert enlargement(shape) == factor


def test_report_heat_colours_are_told_apart_by_lightness_alone():
    table = heat_colours(np.linspace(0.5, 1.0, 64), 0.5).astype(float)
    lightness = table @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(lightness) > 0).all()
    assert lightness[-1] - lightness[0] > 120


def test_report_window_is_the_linear_function_of_the_standard():
    values = np.array([[-10.0, 0.0, 40.0, 80.0, 200.0]], np.float32)
    assert grey(values, BRAIN).tolist() == [[0, 0, 129, 255, 255]]


def test_report_window_of_the_source_comes_first():
    volume, _ = source("CT", 2)
    assert [(one.centre, one.width, one.origin) for one in windows(volume, "HEAD")] == [(40, 80, "from source")] * 2


@pytest.mark.parametrize(("part", "expected"), [("HEAD", (40, 80)), ("ABDOMEN", (40, 400))])
def test_report_ct_without_window_gets_a_fixed_one(part, expected):
    volume, _ = source("CT", 1)
    assert [(one.centre, one.width) for one in windows(_without_window(volume), part)] == [expected]


def test_report_other_images_without_window_share_the_percentiles_of_the_volume():
    volume, _ = source("MR", 2)
    first, second = windows(_without_window(volume), "BRAIN")
    assert first == second
    assert first.centre == pytest.approx(40.0, abs=0.2)
    assert first.width == pytest.approx(79.2, abs=0.3)


def test_report_window_that_misses_the_image_is_not_used():
    volume, _ = source("CT", 1)
    planes = (replace(volume.planes[0], window=(5000.0, 10.0)),)
    assert windows(Volume(volume.summary, planes), "HEAD")[0].origin == "brain preset"


def test_report_constant_and_non_finite_images_are_drawn():
    pixels = np.full((4, 4), np.nan, np.float32)
    assert (grey(pixels, BRAIN) == 0).all()
    assert grey(np.full((4, 4), 40, np.float32), Window(40.0, 1.0, "", "")).shape == (4, 4)


def test_report_legend_states_outcome_threshold_slice_window_and_model():
    volume, headers = source("CT", 3)
    legend = legend_for(1, volume, headers[1], findings(volume), context(), BRAIN)
    words = " ".join((legend.headline, legend.subline, *(part for row in legend.scores + legend.facts for part in row)))
    for text in ("FINDINGS", "threshold 0.95", "0.98", "0.97", "2/3, z = 5.0 mm", "no. 12", "C 40 W 80 HU"):
        assert text in words
    for text in ("ct-head 1.0.0", "ct-head-aeu", "1.2.0", "ab12cd34"):
        assert text in words
    assert legend.banner == "RESEARCH – NOT FOR CLINICAL USE"
    assert legend.region_heat == 0.9


def test_report_legend_says_no_findings_and_never_normal():
    volume, headers = source("CT", 1)
    legend = legend_for(0, volume, headers[0], no_findings(volume), context(), BRAIN)
    assert (legend.headline, legend.subline) == ("NO FINDINGS", "series, at threshold 0.95")
    assert "normal" not in str(legend).lower()


def test_report_no_identity_is_burned_in():
    volume, headers = source("CT", 1)
    legend = str(legend_for(0, volume, headers[0], findings(volume, ((0,),)), context(), BRAIN))
    for keyword in ("PatientName", "PatientID", "AccessionNumber", "StudyDescription", "PatientBirthDate"):
        assert str(headers[0][keyword].value) not in legend


def test_report_legend_tells_incomplete_and_superseding_results():
    volume, headers = source("CT", 1)
    told = context(incomplete=True, supersedes=(volume.planes[0].source,))
    notices = legend_for(0, volume, headers[0], no_findings(volume), told, BRAIN).notices
    assert any("INCOMPLETE" in one for one in notices)
    assert any("earlier result" in one for one in notices)


def test_report_panel_is_tall_enough_for_flat_images():
    volume, headers = source("CT", 1)
    legend = legend_for(0, volume, headers[0], no_findings(volume), context(), BRAIN)
    assert layout(100, 512, legend).body > 300


@pytest.mark.parametrize(
    ("axis", "orientation", "text"),
    [
        ("z", (1, 0, 0, 0, 1, 0), "z = 5.0 mm"),
        ("y", (1, 0, 0, 0, 0, -1), "y = -16.0 mm"),
        ("x", (0, 1, 0, 0, 0, -1), "x = -16.0 mm"),
    ],
)
def test_report_position_is_given_along_the_axis_nearest_to_the_normal(axis, orientation, text):
    assert position_text(replace(plane_of(header("CT"), 1, (8, 8)), orientation=orientation)) == text


def test_report_text_is_brought_to_the_letters_of_the_font():
    assert drawable("RESEARCH – NOT é") == "RESEARCH - NOT e"


@pytest.mark.parametrize(
    ("score", "threshold", "expected"),
    [
        (0.9731, 0.95, ("0.97", "0.95")),
        (0.9496, 0.95, ("0.9496", "0.9500")),
        (0.9999, 0.995, ("1.000", "0.995")),
        (0.5, 0.9871, ("0.5000", "0.9871")),
        (0.95, 0.95, ("0.95", "0.95")),
    ],
)
def test_report_scores_are_never_rounded_across_the_threshold(score, threshold, expected):
    assert score_texts(score, threshold) == expected


def left_out(volume: Volume, result: DetectionResult, index: int = 0) -> DetectionResult:
    """``result``, but the detector did not look at plane ``index``."""
    planes = list(result.planes)
    planes[index] = replace(planes[index], score=0.0, left_out="no brain on this plane")
    return replace(result, planes=tuple(planes))


def test_report_a_plane_that_was_not_looked_at_never_shows_a_score_or_no_findings():
    volume, headers = source("CT", 2)
    result = left_out(volume, no_findings(volume))
    legend = legend_for(0, volume, headers[0], result, context(), BRAIN)
    assert (legend.headline, legend.subline) == ("NOT ANALYSED", "this image; series: no findings")
    assert dict(legend.scores)["Image score"] == "none"
    assert any("no brain on this plane" in one for one in legend.notices)
    other = legend_for(1, volume, headers[1], result, context(), BRAIN)
    assert other.headline == "NO FINDINGS"
    assert not other.notices


def test_report_pictures_of_one_series_have_one_size():
    volume, headers = source("CT", 2)
    result = left_out(volume, no_findings(volume))
    sizes = {picture(volume, headers, result, index).pixels.shape for index in range(2)}
    assert len(sizes) == 1


def test_report_object_of_a_plane_that_was_not_looked_at_says_so_in_its_comment():
    volume, headers = source("CT", 2)
    first, second = build_results(
        volume, headers, left_out(volume, findings(volume, ((1,),))), context(), frozenset({"sc"})
    )
    assert "not analysed" in first.dataset.ImageComments
    assert "findings" in second.dataset.ImageComments
    assert "not analysed" not in second.dataset.ImageComments


def test_report_picture_shows_the_validation_figure_and_the_warning_of_the_detector():
    volume, headers = source("CT", 1)
    stated = {"validation AUROC": "0.51 (0.34-0.69)", "warning": "no better than a coin"}
    result = replace(no_findings(volume), parameters=stated)
    legend = legend_for(0, volume, headers[0], result, context(), BRAIN)
    assert ("AUROC", "0.51 (0.34-0.69)") in legend.facts
    assert legend.notices == ("no better than a coin",)


@pytest.mark.parametrize("seed", range(6))
def test_report_nothing_but_shown_heat_and_outlines_changes_a_source_pixel(seed):
    """Over random images, heats and regions: wherever no heat is shown and no outline runs, R = G = B = window."""
    rng = np.random.default_rng(seed)
    shape = tuple(int(side) for side in rng.integers(520, 640, 2))
    threshold = float(rng.uniform(0.2, 0.95))
    volume, headers = source("CT", 1, shape)
    pixels = rng.normal(40, 60, shape).astype(np.float32)
    heat = ndimage.gaussian_filter(rng.uniform(0, 1, shape), 3)
    heat = ((heat - heat.min()) / np.ptp(heat)).astype(np.float32)
    plane = replace(volume.planes[0], pixels=pixels)
    regions = plane_regions(0, plane, heat, RegionRule(min(0.98, threshold + 0.02), 4))
    result = replace(
        findings(volume, ((0,),)),
        planes=(PlaneResult(0.9, heat),),
        findings=link_findings(regions, "finding", stacked=False),
    )
    legend = legend_for(0, volume, headers[0], result, context(display_threshold=threshold), BRAIN)
    drawn = draw(pixels, BRAIN, result, 0, legend)
    assert drawn.scale == 1
    image, expected = drawn.pixels[: shape[0], : shape[1]], grey(pixels, BRAIN)
    lines = np.zeros(shape, bool)
    for region in regions:
        lines |= ndimage.binary_dilation(region.mask, iterations=5) & ~ndimage.binary_erosion(region.mask, iterations=5)
    untouched = (heat < threshold) & ~lines
    assert untouched.any()
    assert (image[untouched] == expected[untouched][:, None]).all()
    touched = (heat >= threshold) & (expected < 250)
    assert (np.ptp(image[touched].astype(int), axis=1) > 0).mean() > 0.99


# G. M. Machado, M. M. Oliveira, L. A. F. Fernandes, "A physiologically-based model for simulation of color vision
# deficiency", 2009: severity 1.0, on linear RGB
BLINDNESS = {
    "full colour vision": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def lightness(rgb: np.ndarray, vision: str) -> np.ndarray:
    """CIE L* of 8-bit sRGB colours, shape (n, 3), as seen with ``vision``."""
    share = np.asarray(rgb, float) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.asarray(BLINDNESS[vision]).T, 0, 1)
    luminance = seen @ np.array([0.2126, 0.7152, 0.0722])
    return np.where(luminance > 216 / 24389, 116 * np.cbrt(luminance) - 16, luminance * 24389 / 27)


@pytest.mark.parametrize("vision", BLINDNESS)
@pytest.mark.parametrize("lowest", [0.0, 0.5, 0.7])
def test_report_heat_reads_by_lightness_with_any_colour_vision(vision, lowest):
    heat = np.linspace(lowest, 1.0, 11)
    table = lightness(heat_colours(heat, lowest), vision)
    assert (np.diff(table) > 3).all()
    assert table[-1] - table[0] > 50


@pytest.mark.parametrize("vision", BLINDNESS)
def test_report_heat_blended_into_tissue_reads_by_lightness_with_any_colour_vision(vision):
    heat = np.linspace(0.7, 1.0, 5)
    for tissue in (0, 64, 128):
        base = np.full((5, 3), tissue, np.uint8)
        steps = np.diff(lightness(blended(base, heat, 0.7), vision))
        assert (steps > 1).all(), tissue
        assert steps.sum() > 25, tissue


@pytest.mark.parametrize("vision", BLINDNESS)
def test_report_outline_stands_out_of_any_grey_and_heat_with_any_colour_vision(vision):
    """The line has a light core and a dark edge: one of both differs from whatever lies beside it."""
    core, edge = lightness(np.array([CONTOUR, CONTOUR_EDGE]), vision)
    greys = np.repeat(np.arange(256)[:, None], 3, axis=1)
    backgrounds = np.concatenate([greys, heat_colours(np.linspace(0.7, 1, 64), 0.7)])
    beside = lightness(backgrounds, vision)
    assert np.maximum(abs(beside - core), abs(beside - edge)).min() > 30
    assert core - edge > 60


@pytest.mark.parametrize("lowest", [0.0, 0.5, 0.7, 1.0])
def test_report_scale_has_the_colours_of_the_picture_and_none_where_heat_is_hidden(lowest):
    bar = scale_bar(100, 17, lowest)
    tissue = np.rint(np.linspace(0, 255, 17)).astype(np.uint8)
    hottest = np.repeat(tissue[:, None], 3, axis=1)
    assert (bar[0] == blended(hottest, np.ones(17), lowest)).all()
    grey_rows = (np.ptp(bar.astype(int), axis=2) == 0).all(axis=1)
    assert not grey_rows[0]
    assert grey_rows[-19:].all() == (lowest > 0)
    assert not grey_rows[:78].any() or lowest == 1.0


def test_report_picture_says_what_its_score_means():
    volume, headers = source("CT", 1)
    legend = legend_for(0, volume, headers[0], findings(volume, ((0,),)), context(), BRAIN)
    words = " ".join(legend.meaning)
    for part in ("share of healthy patients below, 0 to 1", "120 healthy patients", "5 % of healthy patients"):
        assert part in words
    assert dict(legend.scores)["Regions here"] == "1 (up to 0.97)"
