"""The Secondary Capture says what it is, where it comes from, and never more geometry than it has."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pydicom.dataset import Dataset

from dicomnode.detectors.contract import DetectionResult, Volume
from dicomnode.report import ReportContext, build_results
from dicomnode.report.capture import instance_numbers
from dicomnode.report.geometry import decimal, patient_orientation
from tests.report_fixtures import context, findings, header, multiframe, no_findings, plane_of, source


def pictures(volume: Volume, headers: list[Dataset], result: DetectionResult | None = None) -> list[Dataset]:
    built = build_results(volume, headers, result or no_findings(volume), context(), frozenset({"sc"}))
    return [one.dataset for one in built]


def test_report_picture_is_plain_rgb_of_the_secondary_capture_class():
    one = pictures(*source(n=1))[0]
    assert one.SOPClassUID == "1.2.840.10008.5.1.4.1.1.7"
    assert (one.Modality, one.ConversionType, list(one.ImageType)) == ("OT", "WSD", ["DERIVED", "SECONDARY"])
    assert (one.SamplesPerPixel, one.PhotometricInterpretation, one.PlanarConfiguration) == (3, "RGB", 0)
    assert (one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation) == (8, 8, 7, 0)
    assert len(one.PixelData) == one.Rows * one.Columns * 3 + (one.Rows * one.Columns) % 2
    assert one.BurnedInAnnotation == "YES"
    for keyword in ("RescaleSlope", "WindowCenter", "PresentationLUTShape", "ReferencedStudySequence"):
        assert keyword not in one


def test_report_picture_names_its_source_image_and_series():
    volume, headers = source(n=2)
    for one, plane in zip(pictures(volume, headers), volume.planes, strict=True):
        image = one.SourceImageSequence[0]
        assert image.ReferencedSOPInstanceUID == plane.source.SOPInstanceUID
        assert image.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
        assert "ReferencedFrameNumber" not in image
        assert one.ReferencedSeriesSequence[0].SeriesInstanceUID == plane.source.SeriesInstanceUID


def test_report_picture_of_a_frame_names_the_frame():
    numbers = [one.SourceImageSequence[0].ReferencedFrameNumber for one in pictures(*multiframe())]
    assert numbers == [1, 2, 3]


def test_report_unchanged_grid_keeps_its_geometry():
    volume, headers = source("CT", 1, (512, 512))
    one = pictures(volume, headers)[0]
    assert one.SourceImageSequence[0].SpatialLocationsPreserved == "YES"
    assert list(one.PixelSpacing) == [0.5, 0.5]
    assert list(one.ImagePositionPatient) == [-16, -16, 0]
    assert one.FrameOfReferenceUID == "1.2.3.4.6"
    assert one.SliceThickness == 5


def test_report_enlarged_picture_claims_no_geometry():
    one = pictures(*source("CT", 1, (64, 64)))[0]
    assert one.SourceImageSequence[0].SpatialLocationsPreserved == "NO"
    assert [code.CodeValue for code in one.DerivationCodeSequence] == ["113076", "113085"]
    for keyword in ("PixelSpacing", "ImagePositionPatient", "FrameOfReferenceUID", "SliceThickness"):
        assert keyword not in one


def test_report_never_makes_pixel_spacing_from_imager_pixel_spacing():
    volume, headers = source("DX", 1, (512, 512))
    assert "PixelSpacing" not in pictures(volume, headers)[0]


def test_report_pixel_spacing_calibration_travels_with_the_spacing():
    volume, headers = source(
        "CT", 1, (512, 512), PixelSpacingCalibrationType="GEOMETRY", PixelSpacingCalibrationDescription="table"
    )
    one = pictures(volume, headers)[0]
    assert (one.PixelSpacingCalibrationType, one.PixelSpacingCalibrationDescription) == ("GEOMETRY", "table")


def test_report_pixels_that_are_not_square_get_an_aspect_ratio():
    volume, headers = source("DX", 1, ImagerPixelSpacing=["0.2", "0.25"])
    assert list(pictures(volume, headers)[0].PixelAspectRatio) == [4, 5]
    assert "PixelAspectRatio" not in pictures(*source("DX", 1))[0]


def test_report_lossy_source_stays_lossy_with_its_history():
    volume, headers = source(
        "CT",
        1,
        LossyImageCompression="01",
        LossyImageCompressionRatio=["10", "3"],
        LossyImageCompressionMethod=["ISO_10918_1", "ISO_15444_1"],
    )
    one = pictures(volume, headers)[0]
    assert one.LossyImageCompression == "01"
    assert list(one.LossyImageCompressionRatio) == [10, 3]
    assert list(one.LossyImageCompressionMethod) == ["ISO_10918_1", "ISO_15444_1"]
    assert pictures(*source("CT", 1))[0].LossyImageCompression == "00"


def test_report_pictures_sort_like_their_sources():
    assert [one.InstanceNumber for one in pictures(*source(n=3))] == [11, 12, 13]
    assert [one.InstanceNumber for one in pictures(*source(n=2, InstanceNumber=4))] == [1, 2]
    assert [one.InstanceNumber for one in pictures(*multiframe())] == [1, 2, 3]


@pytest.mark.parametrize(("part", "expected"), [("HEAD", "YES"), ("CHEST", "NO"), ("", "YES")])
def test_report_recognisable_features_follow_the_body_part(part, expected):
    assert pictures(*source("CT", 1, BodyPartExamined=part))[0].RecognizableVisualFeatures == expected


def test_report_patient_orientation_is_copied_derived_or_empty():
    assert patient_orientation(plane_of(header("DX"), 0, (8, 8)), header("DX")) == ["L", "F"]
    assert patient_orientation(plane_of(header("CT"), 0, (8, 8)), header("CT")) == ["L", "P"]
    assert patient_orientation(plane_of(header("DX"), 0, (8, 8)), header("DX", PatientOrientation=None)) == []


def test_report_two_radiographs_of_different_size_make_one_series():
    volume, headers = source("DX", 2)
    larger = plane_of(headers[1], 1, (600, 500))
    built = pictures(Volume(volume.summary, (volume.planes[0], larger)), headers, None)
    assert len({one.SeriesInstanceUID for one in built}) == 1
    assert built[0].Rows < built[1].Rows


@pytest.mark.parametrize("value", [0.1 + 0.2, -123.456789012345678, 1e-7 / 3, 12345678901234567.0, -1 / 3e-5])
def test_report_decimal_strings_fit_16_characters(value):
    assert len(decimal(value)) <= 16
    assert float(decimal(value)) == pytest.approx(value, rel=1e-8)


def test_report_pixel_data_is_the_drawn_picture():
    volume, headers = source("CT", 1)
    one = pictures(volume, headers, findings(volume, ((0,),)))[0]
    pixels = np.frombuffer(one.PixelData, np.uint8)[: one.Rows * one.Columns * 3].reshape(one.Rows, one.Columns, 3)
    image = pixels[:512, :512].astype(int)
    inside = image[200, 200]
    assert inside.max() - inside.min() > 20
    assert (np.ptp(image[:100, :100], axis=2) == 0).all()


@pytest.mark.parametrize("thickness", [None, ""])
def test_report_capture_with_geometry_has_an_empty_slice_thickness_where_the_source_has_none(thickness):
    """Slice Thickness is Type 2 beside Image Position (PS3.3 C.7.6.2)."""
    volume, headers = source("CT", 1, (512, 512), SliceThickness=thickness)
    (one,) = build_results(volume, headers, no_findings(volume), context(), frozenset({"sc"}))
    assert "ImagePositionPatient" in one.dataset
    assert one.dataset.SliceThickness is None


def test_report_a_very_long_series_has_pictures_of_what_was_found_and_the_montage() -> None:
    """Issue part 4: every finding of a very long Series has its picture, the montage the rest."""
    volume, headers = source(n=20)
    limited = replace(context(), picture_all_up_to=12)
    every = _built(volume, headers, findings(volume), context())
    some = _built(volume, headers, findings(volume), limited)
    marked = {region.plane for finding in findings(volume).findings for region in finding.regions}
    numbers = [instance_numbers(volume, headers)[plane] for plane in sorted(marked)]
    assert [one.InstanceNumber for one in some[1:]] == numbers
    assert f"{len(marked)} of 20 images have a picture of their own" in some[0].ImageComments
    assert "picture of their own" not in every[0].ImageComments
    same = {one.SOPInstanceUID: one for one in every[1:]}
    assert all(same[one.SOPInstanceUID] == one for one in some[1:])


def test_report_a_very_long_series_without_findings_shows_its_most_suspicious_image() -> None:
    """No outcome leaves without a picture of what was looked at."""
    volume, headers = source(n=20)
    result = no_findings(volume)
    planes = tuple(replace(one, score=0.4 if n == 7 else 0.1) for n, one in enumerate(result.planes))
    built = _built(volume, headers, replace(result, planes=planes), replace(context(), picture_all_up_to=12))
    assert [one.InstanceNumber for one in built[1:]] == [instance_numbers(volume, headers)[7]]
    assert len(_built(volume, headers, result, replace(context(), picture_all_up_to=20))) == 21


def _built(volume: Volume, headers: list[Dataset], result: DetectionResult, about: ReportContext) -> list[Dataset]:
    return [one.dataset for one in build_results(volume, headers, result, about, frozenset({"sc"}))]
