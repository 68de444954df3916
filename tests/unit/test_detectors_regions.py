"""Regions sit where the heat is, in the coordinates that DICOM viewers draw."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.measure import grid_points_in_poly

from dicomnode.detectors.contract import Plane, Region
from dicomnode.detectors.regions import (
    MAX_FINDINGS,
    MAX_REGIONS_PER_PLANE,
    RegionRule,
    hottest_region,
    link_findings,
    outline,
    plane_regions,
)
from dicomnode.dicom.references import InstanceReference

SOURCE = InstanceReference("2.25.1", "2.25.2", "1.2.840.10008.5.1.4.1.1.7", "2.25.3")


def plane(shape=(40, 50), spacing=(0.5, 2.0)):
    return Plane(np.zeros(shape, np.float32), SOURCE, spacing=spacing)


def heat_with(*boxes, shape=(40, 50), value=0.95):
    heat = np.zeros(shape, np.float32)
    for r0, r1, c0, c1 in boxes:
        heat[r0:r1, c0:c1] = value
    return heat


@pytest.mark.parametrize("mask", [
    heat_with((5, 15, 10, 30)) > 0,
    np.hypot(*(np.mgrid[:40, :50] - np.array([20, 25])[:, None, None])) < 12,
    heat_with((0, 40, 0, 50)) > 0,
    heat_with((7, 8, 9, 10)) > 0,
    heat_with((5, 10, 5, 10), (10, 15, 10, 15)) > 0,
])  # fmt: skip
def test_the_outline_is_closed_inside_the_image_and_holds_the_pixel_centres_of_the_mask(mask):
    """SCOORD: the centre of pixel (row r, column c) is at (c + 0.5, r + 0.5)."""
    contour = outline(mask)
    assert (contour[0] == contour[-1]).all()
    assert contour.min() >= 0
    assert (contour <= (50, 40)).all()
    vertices = contour[:, ::-1] - 0.5
    grown = grid_points_in_poly(mask.shape, vertices)
    assert (grown & mask).sum() >= 0.8 * mask.sum() - 1
    assert (grown & ~mask).sum() <= 0.1 * mask.sum() + 1


def test_box_and_area_are_those_of_the_mask():
    """Columns first; area in mm² from (row, column) spacing."""
    (region,) = plane_regions(3, plane(), heat_with((5, 15, 10, 30)), RegionRule(0.9, 4))
    assert region.box == (10.0, 5.0, 30.0, 15.0)
    assert region.area_mm2 == pytest.approx(10 * 20 * 1.0)
    assert region.plane == 3
    assert region.score == pytest.approx(0.95)


def test_small_and_cool_spots_are_no_regions_and_at_most_five_are_kept():
    """Noise does not become findings."""
    spots = [(r, r + 4, c, c + 4) for r in (2, 12, 22, 32) for c in (2, 12, 22, 32)]
    regions = plane_regions(0, plane(), heat_with(*spots), RegionRule(0.9, 4))
    assert len(regions) == MAX_REGIONS_PER_PLANE
    assert plane_regions(0, plane(), heat_with((0, 2, 0, 2)), RegionRule(0.9, 5)) == []
    assert plane_regions(0, plane(), heat_with((0, 20, 0, 20), value=0.89), RegionRule(0.9, 5)) == []


def test_the_hottest_region_holds_the_peak_even_below_the_threshold():
    """A series with findings always shows one place."""
    rows, columns = np.mgrid[:40, :50]
    heat = (0.7 * np.exp(-((rows - 30) ** 2 + (columns - 8) ** 2) / 50)).astype(np.float32)
    region = hottest_region(0, plane(), heat, 20)
    assert region.mask[30, 8]
    assert 20 <= region.mask.sum() < 200


def region(index, *box) -> Region:
    (found,) = plane_regions(index, plane(), heat_with(box), RegionRule(0.9, 1))
    return found


def test_overlapping_regions_on_neighbouring_planes_are_one_finding():
    """A lesion that runs through three slices is reported once."""
    regions = [region(0, 5, 15, 5, 15), region(1, 8, 18, 8, 18), region(2, 12, 20, 12, 20), region(1, 30, 35, 40, 45)]
    findings = link_findings(regions, "x", stacked=True)
    assert [finding.tracking_id for finding in findings] == ["x-1", "x-2"]
    assert [len(finding.regions) for finding in findings] == [3, 1]


def test_planes_that_are_no_stack_are_not_linked_and_findings_are_limited():
    """Two radiographs are two findings; a list stays readable."""
    pair = [region(0, 5, 15, 5, 15), region(1, 5, 15, 5, 15)]
    assert len(link_findings(pair, "x", stacked=False)) == 2
    assert len(link_findings([region(2 * i, 5, 15, 5, 15) for i in range(30)], "x", stacked=True)) == MAX_FINDINGS
