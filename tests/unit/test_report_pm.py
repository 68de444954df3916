"""The Parametric Map holds the heat as it is, and never shows an image that was not analysed as heat 0."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from highdicom.pm import ParametricMap
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicomnode.detectors.contract import DetectionResult, Volume
from dicomnode.report import ResultUIDs, build_results, to_bytes
from dicomnode.report.parametric_map import NOT_ANALYSED
from tests.report_fixtures import SERIES, context, findings, header, multiframe, no_findings, plane_of, source


def maps(volume: Volume, headers: list[Dataset], result: DetectionResult, **changes: object) -> tuple[Dataset, ...]:
    built = build_results(volume, headers, result, context(**changes), frozenset({"pm"}))
    return tuple(one.dataset for one in built)


def heat(dataset: Dataset) -> np.ndarray:
    return np.frombuffer(dataset.FloatPixelData, "<f4").reshape(dataset.NumberOfFrames, dataset.Rows, dataset.Columns)


def noisy(volume: Volume, **left_out: str) -> DetectionResult:
    """Heat of every value on every plane; ``left_out``: "p1" and the like to a reason."""
    chance = np.random.default_rng(5)
    result = no_findings(volume)
    planes = tuple(
        replace(own, heat=chance.random(own.heat.shape, np.float32), left_out=left_out.get(f"p{index}", ""))
        for index, own in enumerate(result.planes)
    )
    return replace(result, planes=planes)


def test_report_pm_pixels_are_the_heat_bit_by_bit_also_for_other_readers():
    volume, headers = source("CT", 3, (37, 53))
    result = noisy(volume)
    (dataset,) = maps(volume, headers, result)
    wanted = np.stack([own.heat for own in result.planes])
    assert np.array_equal(heat(dataset), wanted)
    assert np.array_equal(dcmread(BytesIO(to_bytes(dataset))).pixel_array, wanted)
    assert ParametricMap.from_dataset(dataset).number_of_frames == 3


@pytest.mark.parametrize("found", [True, False])
def test_report_pm_exists_with_and_without_findings_and_says_what_its_values_mean(found):
    volume, headers = source("CT", 3)
    (dataset,) = maps(volume, headers, findings(volume) if found else no_findings(volume))
    shared = dataset.SharedFunctionalGroupsSequence[0]
    window = shared.FrameVOILUTSequence[0]
    assert (window.WindowCenter, window.WindowWidth, window.VOILUTFunction) == (0.5, 1, "LINEAR_EXACT")
    mapping = shared.RealWorldValueMappingSequence[0]
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1, 0)
    first, last = "DoubleFloatRealWorldValueFirstValueMapped", "DoubleFloatRealWorldValueLastValueMapped"
    assert (mapping[first].value, mapping[last].value) == (0.0, 1.0)
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "{score}"
    assert mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0].CodeValue == "ANOMALY_HEAT"
    assert dataset.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == "99DICOMNODE"
    assert dataset.ContentQualification == "RESEARCH"
    assert dataset.SeriesDescription.endswith("(RESEARCH)")


def test_report_pm_lies_on_the_geometry_of_its_source_and_names_each_image():
    volume, headers = source("CT", 3)
    (dataset,) = maps(volume, headers, no_findings(volume))
    assert dataset.FrameOfReferenceUID == headers[0].FrameOfReferenceUID
    measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert (list(measures.PixelSpacing), measures.SpacingBetweenSlices) == ([0.5, 0.5], 5.0)
    for group, plane in zip(dataset.PerFrameFunctionalGroupsSequence, volume.planes, strict=True):
        assert tuple(group.PlanePositionSequence[0].ImagePositionPatient) == plane.position
        image = group.DerivationImageSequence[0].SourceImageSequence[0]
        assert image.ReferencedSOPInstanceUID == plane.source.SOPInstanceUID


def test_report_pm_shows_images_that_were_not_analysed_as_padding_and_says_why():
    """Not as heat 0, which would read as normal; the frame stays, since viewers put frames on slices by number."""
    volume, headers = source("CT", 3)
    result = noisy(volume, p1="motion")
    (dataset,) = maps(volume, headers, result)
    pixels = heat(dataset)
    assert dataset.FloatPixelPaddingValue == NOT_ANALYSED
    assert (pixels[1] == NOT_ANALYSED).all()
    assert not 0.0 <= NOT_ANALYSED <= 1.0
    assert np.array_equal(pixels[[0, 2]], np.stack([result.planes[0].heat, result.planes[2].heat]))
    comments = [
        group.FrameContentSequence[0].get("FrameComments") for group in dataset.PerFrameFunctionalGroupsSequence
    ]
    assert comments == [None, "NOT ANALYSED: motion", None]


def test_report_pm_needs_an_analysed_image():
    volume, headers = source("CT", 2)
    assert maps(volume, headers, noisy(volume, p0="motion", p1="motion")) == ()


def test_report_pm_pixels_without_a_number_are_padding_and_others_stay_in_0_to_1():
    volume, headers = source("CT", 1)
    result = noisy(volume)
    result.planes[0].heat[0, :4] = (np.nan, np.inf, -np.inf, 1.5)
    (dataset,) = maps(volume, headers, result)
    assert heat(dataset)[0, 0, :4].tolist() == [NOT_ANALYSED, 1.0, 0.0, 1.0]
    assert dataset.FloatPixelPaddingValue == NOT_ANALYSED


def test_report_pm_without_padding_declares_none():
    volume, headers = source("CT", 2)
    (dataset,) = maps(volume, headers, noisy(volume))
    assert "FloatPixelPaddingValue" not in dataset


def test_report_pm_of_a_multi_frame_source_refers_to_its_frames():
    volume, headers = multiframe(3)
    (dataset,) = maps(volume, headers, noisy(volume))
    numbers = [
        group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        for group in dataset.PerFrameFunctionalGroupsSequence
    ]
    assert numbers == [1, 2, 3]
    assert len(dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 1


def test_report_pm_of_a_radiograph_has_a_frame_of_reference_of_its_own():
    """The module is mandatory; a UID of the source's would claim a geometry that the source does not state."""
    volume, headers = source("DX", 1)
    (dataset,) = maps(volume, headers, noisy(volume))
    assert dataset.FrameOfReferenceUID.startswith("2.25.")
    shared, (group,) = dataset.SharedFunctionalGroupsSequence[0], dataset.PerFrameFunctionalGroupsSequence
    assert "PixelSpacing" not in shared.PixelMeasuresSequence[0]
    assert "not of the patient" in group.FrameContentSequence[0].FrameComments
    assert list(dataset.PatientOrientation) == ["L", "F"]


def test_report_pm_of_radiographs_is_one_object_and_series_per_image():
    headers = [header("CR", 0), header("CR", 1)]
    planes = (plane_of(headers[0], 0, (64, 48)), plane_of(headers[1], 1, (80, 64)))
    volume = replace(source("CR", 2)[0], planes=planes)
    result = noisy(volume)
    built = maps(volume, headers, result)
    assert [heat(one).shape for one in built] == [(1, 64, 48), (1, 80, 64)]
    for one, own, plane in zip(built, result.planes, planes, strict=True):
        assert np.array_equal(heat(one)[0], own.heat)
        (referenced,) = one.ReferencedSeriesSequence[0].ReferencedInstanceSequence
        assert referenced.ReferencedSOPInstanceUID == plane.source.SOPInstanceUID
    for keyword in ("SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID", "SeriesDescription"):
        assert built[0][keyword].value != built[1][keyword].value


def test_report_pm_bytes_are_the_same_on_a_second_call():
    volume, headers = source("MR", 2, PatientName="Müller^Jörg", SpecificCharacterSet="ISO_IR 100")
    once, again = (maps(volume, headers, noisy(volume))[0] for _ in range(2))
    assert to_bytes(once) == to_bytes(again)
    assert "Müller^Jörg".encode() in to_bytes(once)
    assert once.SOPInstanceUID == ResultUIDs.of(SERIES, context()).instance("pm")


def test_report_pm_states_the_side_once():
    """Laterality of the Series is forbidden beside Frame Laterality (PS3.3 C.7.3.1)."""
    volume, headers = source("DX", 1, BodyPartExamined="HAND", ImageLaterality="L")
    (dataset,) = maps(volume, headers, noisy(volume))
    anatomy = dataset.SharedFunctionalGroupsSequence[0].FrameAnatomySequence[0]
    assert (anatomy.FrameLaterality, anatomy.AnatomicRegionSequence[0].CodeMeaning) == ("L", "Hand")
    assert "Laterality" not in dataset


def test_report_pm_does_not_change_the_heat_of_the_result():
    volume, headers = source("CT", 1)
    result = noisy(volume)
    result.planes[0].heat[0, 0] = np.nan
    before = result.planes[0].heat.copy()
    maps(volume, headers, result)
    assert np.array_equal(result.planes[0].heat, before, equal_nan=True)
