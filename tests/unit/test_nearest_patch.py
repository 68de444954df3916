"""Every finding comes with the healthy tissue of its own series that is most like it, and the reports say so."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dicomnode.detectors.contract import Finding, NearestHealthy, Plane, PlaneResult
from dicomnode.detectors.methods.catalogue import catalogue
from dicomnode.detectors.nearest_patch import MOST_PATCHES, Searched, patch_side, with_nearest
from dicomnode.detectors.preprocess import Prepared
from dicomnode.detectors.regions import region_of
from dicomnode.detectors.resample import Box
from dicomnode.dicom.references import InstanceReference
from dicomnode.report import build_results
from dicomnode.report.page_content import result_content
from dicomnode.report.selfcheck import Evidence, checked
from tests.report_fixtures import context, findings, source, texts

SOURCE = InstanceReference("2.25.1", "2.25.2", "1.2.840.10008.5.1.4.1.1.2", "2.25.3")
SIZE = 64


def series(count: int, lesions: tuple[int, ...], *, everywhere: bool = False):
    """Findings, what was searched and the results of ``count`` noisy planes, twice as fine as the network grid."""
    draw = np.random.default_rng(3)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    organ = np.hypot(rows - 31.5, columns - 31.5) < 29
    spot = np.hypot(rows - 26, columns - 42) < 5
    prepared, results, regions, heats = [], [], [], []
    for index in range(count):
        image = 0.4 + 0.1 * np.cos((columns - 31.5) / 6) + draw.normal(0, 0.02, (SIZE, SIZE))
        heat = np.full((SIZE, SIZE), 0.97 if everywhere else 0.2, np.float32)
        if index in lesions:
            image = image + 0.4 * spot
            heat[spot] = 0.99
        prepared.append(Prepared((image * organ).astype(np.float32), organ, Box(0, 0, 2 * SIZE, 2 * SIZE)))
        fine = heat.repeat(2, 0).repeat(2, 1)
        results.append(PlaneResult(0.9, fine))
        heats.append(heat)
        if index in lesions:
            plane = Plane(fine, SOURCE)
            regions.append(region_of(index, plane, fine, fine > 0.98))
    found = (Finding("x-1", tuple(regions), 0.99),)
    return found, Searched(tuple(range(count)), prepared, np.stack(heats), 0.9), results


def test_the_nearest_healthy_patch_is_healthy_and_of_the_same_place():
    """It lies on a plane without the lesion or beside it, and a lesion is farther off than healthy tissue is."""
    found, searched, results = series(9, (4, 5))
    nearest = with_nearest(found, searched, results)[0].nearest
    assert nearest is not None
    assert nearest.finding_plane in (4, 5)
    left, top, right, bottom = nearest.finding_box
    assert left <= 84 <= right
    assert top <= 52 <= bottom
    assert right - left == 2 * patch_side(SIZE)
    inside = (slice(*(int(v) // 2 for v in nearest.box[1::2])), slice(*(int(v) // 2 for v in nearest.box[::2])))
    assert searched.heats[nearest.plane][inside].max() < 0.9
    assert nearest.distance > 2 * nearest.usual > 0


def test_a_finding_that_looks_healthy_is_as_near_as_healthy_patches_are():
    """The yardstick means something: heat on ordinary tissue gives an ordinary distance."""
    found, searched, results = series(9, (4,))
    plain = [
        replace(plane, image=searched.planes[3].image) if i == 4 else plane for i, plane in enumerate(searched.planes)
    ]
    nearest = with_nearest(found, replace(searched, planes=plain), results)[0].nearest
    assert nearest is not None
    assert nearest.distance < 1.5 * nearest.usual


def test_the_answer_is_the_same_every_time_and_bounded():
    """Equal input, equal answer; a long series is sampled."""
    found, searched, results = series(60, (30,))
    first, second = (with_nearest(found, searched, results)[0].nearest for _ in range(2))
    assert first is not None
    assert first == second
    assert first.compared <= MOST_PATCHES


def test_a_single_plane_is_compared_with_itself_elsewhere():
    """A radiograph has no other plane; its healthy patches do not overlap the finding."""
    found, searched, results = series(1, (0,))
    nearest = with_nearest(found, searched, results)[0].nearest
    assert nearest is not None
    gaps = np.abs(np.subtract(nearest.box[:2], nearest.finding_box[:2]))
    assert gaps.max() >= 2 * patch_side(SIZE)


def test_without_healthy_tissue_there_is_no_answer():
    """A series that is hot everywhere has nothing to compare with; nothing is invented."""
    found, searched, results = series(3, (1,), everywhere=True)
    assert with_nearest(found, searched, results)[0].nearest is None


def test_every_method_says_what_its_map_shows():
    """A few words for reports, for each method of the catalogue."""
    for name, entry in catalogue().items():
        assert 4 < len(entry.map_shows) < 60, name


@pytest.fixture
def explained():
    volume, headers = source("CT", 12)
    result = findings(volume, ((1, 2), (9,)))
    nearest = NearestHealthy(1, (16.0, 16.0, 32.0, 32.0), 7, (20.0, 40.0, 36.0, 56.0), 2.25, 0.41, 480)
    found = (replace(result.findings[0], nearest=nearest), *result.findings[1:])
    parameters = {**result.parameters, "map shows": "dae: residual map"}
    return volume, headers, replace(result, findings=found, parameters=parameters)


def test_the_structured_reports_tell_it_and_pass_the_self_check(explained):
    """One text per finding that has it, and every object stays clean."""
    volume, headers, result = explained
    kinds = frozenset({"sr", "sr-volume", "seg", "page", "pdf"})
    evidence = Evidence([plane.source for plane in volume.planes], headers, context())
    made = tuple(checked(build_results(volume, headers, result, context(), kinds), evidence))
    said = [text for one in made if one.dataset.Modality == "SR" for text in texts(one.dataset, "NEAREST_HEALTHY")]
    assert said
    assert all("image 8 of 12 around column 28, row 48" in text for text in said)
    assert all("2.25" in text and "0.41 (median)" in text for text in said)
    for one in made:
        if one.dataset.Modality == "SR":
            assert "map shows=dae: residual map" in texts(one.dataset, "111002")


def test_the_page_says_what_the_colours_show(explained):
    """In words, on the page and in the PDF."""
    volume, headers, result = explained
    assert dict(result_content(volume, headers, result, context()).statements)["What the colours show"] == (
        "dae: residual map."
    )
