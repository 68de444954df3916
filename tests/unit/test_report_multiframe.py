"""All overlay pictures in one Instance: every frame is there, and geometry is claimed only where every frame has it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from dicomnode.detectors.contract import DetectionResult, Volume
from dicomnode.report import multiframe as module
from dicomnode.report import to_bytes
from dicomnode.report.capture import captures
from dicomnode.report.montage import LONG_SERIES, montage
from dicomnode.report.multiframe import multiframe_captures
from dicomnode.report.part10 import add_file_meta
from tests.report_fixtures import context, findings, header, multiframe, no_findings, plane_of, source

PAGES, GROUPS = Tag("PageNumberVector"), Tag("PerFrameFunctionalGroupsSequence")


def built(volume: Volume, headers: list[Dataset], result: DetectionResult | None = None, **changes) -> list[Dataset]:
    return list(multiframe_captures(volume, headers, result or no_findings(volume), context(**changes)))


def frames(dataset: Dataset) -> np.ndarray:
    shape = (int(dataset.NumberOfFrames), dataset.Rows, dataset.Columns, 3)
    return np.frombuffer(dataset.PixelData, np.uint8)[: np.prod(shape)].reshape(shape)


def test_multiframe_has_the_pixels_and_words_of_the_single_pictures():
    volume, headers = source("CT", 3)
    result = findings(volume)
    (one,) = built(volume, headers, result)
    singles = list(captures(volume, headers, result, context()))
    assert one.SOPClassUID == "1.2.840.10008.5.1.4.1.1.7.4"
    for frame, single in zip(frames(one), singles, strict=True):
        assert frame.tobytes() == single.PixelData[: frame.size]
    same = (
        "Modality",
        "ConversionType",
        "ImageType",
        "BurnedInAnnotation",
        "PatientOrientation",
        "LossyImageCompression",
    )
    for keyword in (*same, "PhotometricInterpretation", "PlanarConfiguration", "BitsStored", "Manufacturer"):
        assert one[keyword].value == singles[0][keyword].value, keyword
    assert one.SeriesInstanceUID != singles[0].SeriesInstanceUID
    assert "(RESEARCH)" in one.SeriesDescription


def test_multiframe_on_the_unchanged_grid_places_every_frame_in_the_patient():
    volume, headers = source("CT", 3, (512, 512))
    (one,) = built(volume, headers)
    assert one.FrameIncrementPointer == GROUPS
    shared = one.SharedFunctionalGroupsSequence[0]
    assert list(shared.PixelMeasuresSequence[0].PixelSpacing) == [0.5, 0.5]
    assert shared.PixelMeasuresSequence[0].SliceThickness == 5
    assert list(shared.PlaneOrientationSequence[0].ImageOrientationPatient) == [1, 0, 0, 0, 1, 0]
    each = one.PerFrameFunctionalGroupsSequence
    assert [float(frame.PlanePositionSequence[0].ImagePositionPatient[2]) for frame in each] == [0, 5, 10]
    assert {keyword for frame in each for keyword in frame.dir()} == {"PlanePositionSequence"}
    assert set(shared.dir()) == {"PixelMeasuresSequence", "PlaneOrientationSequence"}
    assert one.FrameOfReferenceUID == "1.2.3.4.6"
    assert "PixelSpacing" not in one
    assert "PageNumberVector" not in one
    assert {item.SpatialLocationsPreserved for item in one.SourceImageSequence} == {"YES"}


def test_multiframe_spacing_that_changes_from_frame_to_frame_is_said_per_frame():
    volume, headers = source("CT", 2, (512, 512))
    planes = (volume.planes[0], replace(volume.planes[1], spacing=(0.7, 0.7)))
    (one,) = built(replace(volume, planes=planes), headers)
    spacings = [list(frame.PixelMeasuresSequence[0].PixelSpacing) for frame in one.PerFrameFunctionalGroupsSequence]
    assert spacings == [[0.5, 0.5], [0.7, 0.7]]
    assert "PixelMeasuresSequence" not in one.SharedFunctionalGroupsSequence[0]


@pytest.mark.parametrize(
    "made",
    [source("CT", 3, (64, 64)), source("CT", 3, (512, 512), FrameOfReferenceUID=None), source("DX", 2, (512, 512))],
)
def test_multiframe_without_place_in_the_patient_counts_pages(made):
    (one,) = built(*made)
    assert one.FrameIncrementPointer == PAGES
    assert list(one.PageNumberVector) == list(range(1, one.NumberOfFrames + 1))
    for keyword in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence", "FrameOfReferenceUID"):
        assert keyword not in one


def test_multiframe_never_makes_pixel_spacing_from_imager_pixel_spacing():
    (one,) = built(*source("DX", 2, (512, 512)))
    assert "PixelSpacing" not in one
    assert one.get("PixelSpacing") is None


def test_multiframe_of_one_frame_points_at_nothing():
    (one,) = built(*source("DX", 1))
    assert one.NumberOfFrames == 1
    assert "FrameIncrementPointer" not in one
    assert "PageNumberVector" not in one


def test_multiframe_of_a_long_series_begins_with_the_montage_and_claims_no_place():
    volume, headers = source("CT", LONG_SERIES + 1, (512, 512))
    result = findings(volume, ((3, 4),))
    (one,) = built(volume, headers, result)
    assert one.NumberOfFrames == LONG_SERIES + 2
    assert one.FrameIncrementPointer == PAGES
    assert "PerFrameFunctionalGroupsSequence" not in one
    assert "montage" in one.ImageComments
    pixels = frames(one)
    single = next(captures(*source("CT", 1, (512, 512)), no_findings(source("CT", 1, (512, 512))[0]), context()))
    assert pixels.shape[1:3] == (single.Rows, single.Columns)
    pictures = list(module.shots(volume, headers, result, context()))
    assert (pixels[0] == montage(volume, headers, result, context(), like=pictures[0].picture.sheet)).all()
    assert (pixels[4] == pictures[3].picture.pixels).all()
    assert not one.PatientOrientation
    assert {item.SpatialLocationsPreserved for item in one.SourceImageSequence} == {"NO"}


def test_multiframe_of_a_short_series_has_no_montage():
    (one,) = built(*source("CT", LONG_SERIES, (512, 512)))
    assert one.NumberOfFrames == LONG_SERIES


def test_multiframe_names_every_source_once_with_its_frames():
    volume, headers = source("CT", 3)
    (one,) = built(volume, headers)
    assert [item.ReferencedSOPInstanceUID for item in one.SourceImageSequence] == [
        plane.source.SOPInstanceUID for plane in volume.planes
    ]
    (framed,) = built(*multiframe(3))
    assert [list(item.ReferencedFrameNumber) for item in framed.SourceImageSequence] == [[1, 2, 3]]
    assert len(framed.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 1


def test_multiframe_pictures_of_another_size_get_their_own_instance_of_one_series():
    volume, headers = source("DX", 2)
    larger = plane_of(headers[1], 1, (600, 500))
    first, second = built(Volume(volume.summary, (volume.planes[0], larger)), headers)
    assert first.SeriesInstanceUID == second.SeriesInstanceUID
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert (first.InstanceNumber, second.InstanceNumber) == (1, 2)
    assert first.Rows < second.Rows
    assert [one.SourceImageSequence[0].ReferencedSOPInstanceUID for one in (first, second)] == [
        plane.source.SOPInstanceUID for plane in volume.planes
    ]


def test_multiframe_size_is_bounded_and_no_frame_is_lost(monkeypatch):
    volume, headers = source("CT", 5)
    size = len(frames(built(volume, headers)[0])[0].tobytes())
    monkeypatch.setattr(module, "MOST_BYTES", 2 * size)
    parts = built(volume, headers)
    assert [one.NumberOfFrames for one in parts] == [2, 2, 1]
    named = [item.ReferencedSOPInstanceUID for one in parts for item in one.SourceImageSequence]
    assert named == [plane.source.SOPInstanceUID for plane in volume.planes]


def test_multiframe_one_lossy_source_makes_all_lossy():
    volume, headers = source("CT", 2)
    headers[1] = header("CT", 1, LossyImageCompression="01", LossyImageCompressionRatio="10")
    assert built(volume, headers)[0].LossyImageCompression == "01"


def test_multiframe_is_the_same_on_a_second_run():
    def run() -> list[bytes]:
        volume, headers = source("CT", LONG_SERIES + 1)
        made = built(volume, headers, findings(volume))
        for one in made:
            add_file_meta(one, context())
        return [to_bytes(one) for one in made]

    assert run() == run()
