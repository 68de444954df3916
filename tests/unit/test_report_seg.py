"""The Segmentation holds exactly the findings' pixels, on the source's grid, under the SR's tracking identifiers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from highdicom.seg import Segmentation
from pydicom.dataset import Dataset

from dicomnode.detectors.contract import DetectionResult, Finding, Region, Volume
from dicomnode.report import ResultUIDs, build_results, to_bytes
from tests.report_fixtures import SERIES, content, context, findings, header, multiframe, no_findings, plane_of, source


def segmentations(
    volume: Volume, headers: list[Dataset], result: DetectionResult, **changes: object
) -> tuple[Dataset, ...]:
    built = build_results(volume, headers, result, context(**changes), frozenset({"seg"}))
    return tuple(one.dataset for one in built)


def frames(seg: Dataset) -> dict[tuple[int, str, int], np.ndarray]:
    """Pixels of each frame under (segment number, source Instance, source frame or 0), unpacked without the builder."""
    bits = np.unpackbits(np.frombuffer(seg.PixelData, np.uint8), bitorder="little")
    size = seg.Rows * seg.Columns
    found = {}
    for place, group in enumerate(seg.PerFrameFunctionalGroupsSequence):
        image = group.DerivationImageSequence[0].SourceImageSequence[0]
        number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        key = (number, image.ReferencedSOPInstanceUID, int(image.get("ReferencedFrameNumber", 0)))
        found[key] = bits[place * size : (place + 1) * size].reshape(seg.Rows, seg.Columns).astype(bool)
    return found


def expected(volume: Volume, result: DetectionResult) -> dict[tuple[int, str, int], np.ndarray]:
    wanted: dict[tuple[int, str, int], np.ndarray] = {}
    for number, finding in enumerate(result.findings, start=1):
        for region in finding.regions:
            plane = volume.planes[region.plane]
            key = (number, plane.source.SOPInstanceUID, plane.frame or 0)
            wanted[key] = wanted.get(key, False) | region.mask
    return wanted


def assert_same(found: dict, wanted: dict) -> None:
    assert found.keys() == wanted.keys()
    for key, mask in wanted.items():
        assert np.array_equal(found[key], mask), key


def odd(volume: Volume) -> DetectionResult:
    """Two findings that share a plane and pixels, one with two regions on it: every pixel counts."""
    result = findings(volume, ((0, 1), (1,)))
    rows, columns = volume.planes[1].shape
    mask = np.zeros((rows, columns), bool)
    mask[rows // 2 - 2 : rows - 1, columns - 7 : columns] = True
    mask[rows // 3, columns // 3] = True
    extra = Region(1, mask, np.zeros((5, 2), np.float32), (0, 0, 1, 1), 0.91, None)
    second = result.findings[1]
    return replace(result, findings=(result.findings[0], replace(second, regions=(*second.regions, extra))))


def test_report_seg_frames_are_the_masks_bit_by_bit_also_in_highdicom():
    volume, headers = source("CT", 3, (37, 53))
    result = odd(volume)
    (seg,) = segmentations(volume, headers, result)
    assert_same(frames(seg), expected(volume, result))
    read = Segmentation.from_dataset(seg)
    uids = [plane.source.SOPInstanceUID for plane in volume.planes]
    pixels = read.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True)
    for (number, uid, _), mask in expected(volume, result).items():
        assert np.array_equal(pixels[uids.index(uid), :, :, number - 1].astype(bool), mask)
    assert pixels.sum() == sum(int(mask.sum()) for mask in expected(volume, result).values())
    assert seg.SegmentsOverlap == "YES"


def test_report_seg_is_sparse_binary_and_on_the_geometry_of_its_source():
    volume, headers = source("CT", 3)
    (seg,) = segmentations(volume, headers, findings(volume, ((1, 2),)))
    assert (seg.SegmentationType, seg.BitsAllocated, seg.NumberOfFrames, seg.SegmentsOverlap) == ("BINARY", 1, 2, "NO")
    shared = seg.SharedFunctionalGroupsSequence[0]
    assert [float(value) for value in shared.PixelMeasuresSequence[0].PixelSpacing] == [0.5, 0.5]
    assert shared.PlaneOrientationSequence[0].ImageOrientationPatient == [1, 0, 0, 0, 1, 0]
    heights = [one.PlanePositionSequence[0].ImagePositionPatient[2] for one in seg.PerFrameFunctionalGroupsSequence]
    assert heights == [5.0, 10.0]
    assert seg.FrameOfReferenceUID == headers[0].FrameOfReferenceUID
    (series,) = seg.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == SERIES.SeriesInstanceUID
    referenced = [item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence]
    assert referenced == [volume.planes[index].source.SOPInstanceUID for index in (1, 2)]


def test_report_seg_and_sr_track_the_same_findings():
    volume, headers = source("CT", 3)
    result = findings(volume, ((0, 1), (2,)))
    built = build_results(volume, headers, result, context(), frozenset({"seg", "sr", "sr-volume"}))
    kinds = {one.dataset.SeriesNumber: one.dataset for one in built}
    seg, regions, volumes = kinds[9005], kinds[9003], kinds[9004]
    pairs = [(str(segment.TrackingID), str(segment.TrackingUID)) for segment in seg.SegmentSequence]
    for document in (regions, volumes):
        names = [item.TextValue for name, item in content(document) if name == "112039"]
        uids = [item.UID for name, item in content(document) if name == "112040"]
        assert list(zip(names, uids, strict=True)) == pairs
    assert len(set(pairs)) == 2


def test_report_seg_segments_say_who_made_them_and_what_they_are():
    volume, headers = source("CT", 3)
    (seg,) = segmentations(volume, headers, findings(volume, ((0,), (1,))))
    first, second = seg.SegmentSequence
    assert (first.SegmentNumber, second.SegmentNumber) == (1, 2)
    assert first.SegmentLabel == "AI anomaly 1: 0.97 (RESEARCH)"
    assert first.SegmentAlgorithmType == "AUTOMATIC"
    algorithm = first.SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("ct-head", "1.0.0")
    assert f"weights SHA-256={context().model.sha256}" in algorithm.AlgorithmParameters
    assert first.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "49755003"
    assert first.AnatomicRegionSequence[0].CodeMeaning == "Head"
    assert list(first.RecommendedDisplayCIELabValue) != list(second.RecommendedDisplayCIELabValue)
    assert seg.SeriesDescription.endswith("(RESEARCH)")
    assert seg.ContributingEquipmentSequence[0].DeviceUID


def test_report_seg_needs_findings():
    volume, headers = source("CT", 3)
    assert segmentations(volume, headers, no_findings(volume)) == ()


def test_report_seg_bytes_are_the_same_on_a_second_call():
    volume, headers = source("CT", 3)
    result = findings(volume)
    once, again = (segmentations(volume, headers, result)[0] for _ in range(2))
    assert to_bytes(once) == to_bytes(again)
    assert once.SOPInstanceUID == ResultUIDs.of(SERIES, context()).instance("seg")
    stamped = {str(once[keyword].value) for keyword in ("InstanceCreationDate", "ContentDate", "SeriesDate")}
    assert stamped == {"20261121"}


def test_report_seg_of_a_multi_frame_source_refers_to_its_frames():
    volume, headers = multiframe(4)
    result = findings(volume, ((1, 2),))
    (seg,) = segmentations(volume, headers, result)
    assert_same(frames(seg), expected(volume, result))
    assert {key[2] for key in frames(seg)} == {2, 3}
    assert len(seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 1


def test_report_seg_takes_slice_thickness_from_the_groups_of_a_multi_frame_source():
    volume, headers = multiframe(2)
    measures, groups = Dataset(), Dataset()
    measures.SliceThickness = "3.5"
    groups.PixelMeasuresSequence = [measures]
    headers[0].SharedFunctionalGroupsSequence = [groups]
    (seg,) = segmentations(volume, headers, findings(volume, ((0, 1),)))
    measured = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert (measured.SliceThickness, measured.SpacingBetweenSlices) == (3.5, 5.0)


def test_report_seg_of_a_radiograph_ties_pixels_to_the_image_and_invents_no_patient_geometry():
    volume, headers = source("DX", 1)
    result = findings(volume, ((0,),))
    (seg,) = segmentations(volume, headers, result)
    assert_same(frames(seg), expected(volume, result))
    assert "FrameOfReferenceUID" not in seg
    assert list(seg.PatientOrientation) == ["L", "F"]
    (group,) = seg.PerFrameFunctionalGroupsSequence
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert "PixelSpacing" not in measures
    assert list(measures.ImagerPixelSpacing) == [0.2, 0.2]
    assert "PlanePositionSequence" not in group
    assert "not of the patient" in group.FrameContentSequence[0].FrameComments
    assert group.DerivationImageSequence[0].SourceImageSequence[0].SpatialLocationsPreserved == "YES"


def test_report_seg_of_radiographs_is_one_object_and_series_per_image():
    """Images of one Series may differ in size; segment numbers start at 1 in each object."""
    headers = [header("DX", 0), header("DX", 1), header("DX", 2)]
    shapes = ((64, 64), (48, 80), (64, 64))
    planes = tuple(plane_of(own, index, shape) for index, (own, shape) in enumerate(zip(headers, shapes, strict=True)))
    volume = replace(source("DX", 3)[0], planes=planes)
    result = findings(volume, ((1,), (2,), (1, 2)))
    built = segmentations(volume, headers, result)
    assert [(seg.Rows, seg.Columns) for seg in built] == [(48, 80), (64, 64)]
    assert [[segment.SegmentNumber for segment in seg.SegmentSequence] for seg in built] == [[1, 2], [1, 2]]
    assert built[0].SegmentSequence[1].TrackingUID == built[1].SegmentSequence[1].TrackingUID
    assert len({seg.SeriesInstanceUID for seg in built}) == len({seg.SOPInstanceUID for seg in built}) == 2
    wanted = expected(volume, result)
    for seg, index, held in ((built[0], 1, (1, 3)), (built[1], 2, (2, 3))):
        uid = planes[index].source.SOPInstanceUID
        assert_same(frames(seg), {(place, uid, 0): wanted[held[place - 1], uid, 0] for place in (1, 2)})


def test_report_seg_without_spacing_between_slices_states_none():
    volume, headers = source("CT", 3)
    (seg,) = segmentations(replace(volume, slice_spacing=None), headers, findings(volume, ((0, 2),)))
    assert "SpacingBetweenSlices" not in seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]


@pytest.mark.parametrize("charset", [("ISO_IR 100", "Müller^Jörg"), (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎")])
def test_report_seg_carries_names_of_every_character_set(charset):
    volume, headers = source("CT", 2, SpecificCharacterSet=charset[0], PatientName=charset[1])
    (seg,) = segmentations(volume, headers, findings(volume, ((0,),)))
    assert seg.SpecificCharacterSet == "ISO_IR 192"
    assert str(seg.PatientName) == charset[1]
    assert charset[1].encode() in to_bytes(seg)


def test_report_seg_stays_lossy_and_keeps_sparse_headers_sparse():
    empty = dict.fromkeys(["PatientBirthDate", "StudyID", "AccessionNumber", "BodyPartExamined"])
    volume, headers = source("CT", 2, LossyImageCompression="01", LossyImageCompressionRatio="10", **empty)
    (seg,) = segmentations(volume, headers, findings(volume, ((0,),)))
    assert (seg.LossyImageCompression, seg.LossyImageCompressionRatio) == ("01", 10)
    assert seg.PatientBirthDate is None or seg.PatientBirthDate == ""
    assert "AnatomicRegionSequence" not in seg.SegmentSequence[0]


def test_report_seg_frames_run_along_the_normal_of_the_planes():
    """Sagittal images are ordered right to left; their normal points the other way, and frames follow the normal."""
    volume, headers = source("CT", 3)
    sagittal = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
    planes = tuple(
        replace(plane, orientation=sagittal, position=(5.0 * index, 0.0, 0.0))
        for index, plane in enumerate(volume.planes)
    )
    turned = replace(volume, planes=planes)
    result = findings(turned, ((0, 1, 2),))
    (seg,) = segmentations(turned, headers, result)
    across = [one.PlanePositionSequence[0].ImagePositionPatient[0] for one in seg.PerFrameFunctionalGroupsSequence]
    assert across == [10.0, 5.0, 0.0]
    assert_same(frames(seg), expected(turned, result))


def test_report_seg_findings_on_the_same_plane_have_frames_of_their_own():
    volume, headers = source("CT", 2)
    one = findings(volume, ((0,),))
    twin = Finding("finding-2", one.findings[0].regions, 0.5)
    (seg,) = segmentations(volume, headers, replace(one, findings=(*one.findings, twin)))
    assert [key[0] for key in frames(seg)] == [1, 2]
