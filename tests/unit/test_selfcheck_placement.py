"""The self-check stops what lies elsewhere than its source image, and what contradicts its own figures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from pydicom.dataset import Dataset

from tests.selfcheck_cases import coded, faults_of, good, item_at, put, spoil

OUTLINE = "GraphicAnnotationSequence[-1].GraphicObjectSequence[0].GraphicData"
PER_FRAME = "PerFrameFunctionalGroupsSequence[0]"
POSITION = f"{PER_FRAME}.PlanePositionSequence[0].ImagePositionPatient"
ORIENTATION = "SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient"
CORNER = "DisplayedAreaSelectionSequence[0].DisplayedAreaBottomRightHandCorner"
SOURCE_FRAME = f"{PER_FRAME}.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber"
FAR = [0.0, 0.0, 5000.0, 0.0, 5000.0, 5000.0, 0.0, 5000.0, 0.0, 0.0]
TURNED = ["-1", "0", "0", "0", "-1", "0"]


@pytest.mark.parametrize(
    ("document", "path", "value", "what"),
    [
        ("sc", "ImagePositionPatient", ["9", "9", "9"], "CT"),
        ("sc", "ImageOrientationPatient", TURNED, "CT"),
        ("sc", "PatientOrientation", ["R", "P"], "CT"),
        ("sc", "PatientOrientation", ["R", "F"], "DX"),
        ("seg", POSITION, ["9", "9", "9"], "CT"),
        ("pm", POSITION, ["9", "9", "9"], "CT"),
        ("seg", ORIENTATION, TURNED, "CT"),
        ("seg", SOURCE_FRAME, 99, "frames"),
        ("gsps", OUTLINE, FAR, "CT"),
        ("gsps", CORNER, [10, 10], "CT"),
        ("ko", "Manufacturer", "SCANNER CO", "CT"),
    ],
)
def test_selfcheck_catches_what_lies_elsewhere_than_its_source(document, path, value, what):
    item, evidence = good(document, what)
    assert faults_of(item, evidence) == []
    spoil(item.dataset, path, value)
    assert any(
        path.rpartition(".")[2].partition("[")[0] in fault or "Area" in fault for fault in faults_of(item, evidence)
    )


def test_selfcheck_lets_frames_lie_elsewhere_than_a_multi_frame_header_says_of_the_whole():
    item, evidence = good("seg", "frames")
    for header in evidence.headers:
        put(header, "ImagePositionPatient", ["0", "0", "99"])
    assert faults_of(item, evidence) == []


def test_selfcheck_catches_a_segmentation_of_another_matrix():
    item, evidence = good("seg")
    rows, columns = item.dataset.Rows, item.dataset.Columns
    item.dataset.Rows, item.dataset.Columns = rows // 2, columns * 2
    assert any("matrix" in fault for fault in faults_of(item, evidence))


def test_selfcheck_catches_a_region_outside_of_its_image():
    item, evidence = good("sr-regions")
    group = item_at(item.dataset, "126010", "125007")
    for one in (item_at(group, "111030"), item_at(group, "ANOMALY_HEAT", "121112")):
        put(one, "GraphicData", FAR)
    assert sum("outside of its image" in fault for fault in faults_of(item, evidence)) == 2


@pytest.mark.parametrize("worse", [lambda heat: heat * 200, lambda heat: heat * np.nan, lambda heat: heat - 1])
def test_selfcheck_catches_heat_outside_of_0_to_1(worse: Callable[[np.ndarray], np.ndarray]):
    item, evidence = good("pm")
    heat = np.frombuffer(item.dataset.FloatPixelData, "<f4")
    item.dataset.FloatPixelData = worse(heat).astype("<f4").tobytes()
    assert any(fault.startswith("FloatPixelData") for fault in faults_of(item, evidence))


@pytest.mark.parametrize(("value", "text"), [(1.7, "not between 0 and 1"), (0.1, "contradicts the score")])
def test_selfcheck_catches_an_outcome_that_its_score_does_not_bear_out(value, text):
    item, evidence = good("sr")
    _set(item_at(item.dataset, "126010", "125007", "ANOMALY_SCORE"), value)
    assert any(text in fault for fault in faults_of(item, evidence))


def test_selfcheck_catches_sizes_that_are_none():
    item, evidence = good("sr-volume")
    size = item_at(item.dataset, "126010", "125007", "118565006")
    spoil(size, "MeasuredValueSequence[0].MeasurementUnitsCodeSequence", [coded("mm", "UCUM")])
    assert any("a size is" in fault for fault in faults_of(item, evidence))
    item, evidence = good("sr-volume")
    _set(item_at(item.dataset, "126010", "125007", "118565006"), -5.0)
    assert any("a size is" in fault for fault in faults_of(item, evidence))


def _set(number: Dataset, value: float) -> None:
    measured = number.MeasuredValueSequence[0]
    measured.NumericValue, measured.FloatingPointValue = str(value), value
