"""What headers prove about a Series, and what they do not."""

import pytest

from dicomnode.assemble.evidence import Shape, weigh
from dicomnode.dicom.sop_classes import (
    COMPREHENSIVE_3D_SR,
    COMPUTED_RADIOGRAPHY,
    CT_IMAGE,
    ENHANCED_MR_IMAGE,
    MR_IMAGE,
)


def ct(number, z=None, **values):
    header = {
        "Modality": ("CT",),
        "SOPClassUID": (CT_IMAGE,),
        "ImageOrientationPatient": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    }
    if number is not None:
        header["InstanceNumber"] = (number,)
    header["ImagePositionPatient"] = (0.0, 0.0, float(number if z is None else z))
    return header | {keyword: (value,) for keyword, value in values.items()}


def test_numbers_without_gap_and_even_positions_are_whole():
    evidence = weigh([ct(number, 5.0 * number) for number in range(1, 21)])
    assert (evidence.shape, evidence.reason) == (Shape.WHOLE, "InstanceNumber 1 to 20 without gap")


def test_numbers_may_start_at_zero():
    assert weigh([ct(number) for number in range(10)]).shape is Shape.WHOLE


def test_a_missing_slice_in_the_middle_is_a_gap_that_names_the_position():
    evidence = weigh([ct(number, 5.0 * number) for number in range(1, 21) if number != 7])
    assert evidence.shape is Shape.GAP
    assert "10.0 mm" in evidence.reason


def test_a_missing_number_is_named_where_positions_are_absent():
    headers = [ct(number) for number in (1, 2, 3, 6, 7, 9)]
    for header in headers:
        del header["ImagePositionPatient"]
    evidence = weigh(headers)
    assert (evidence.shape, evidence.reason) == (Shape.GAP, "InstanceNumber 4-5, 8 missing")


@pytest.mark.parametrize(
    "numbers",
    [(25, 26, 27), (1, 1, 2, 2), (2, 4, 6, 8), (None, 1, 2), (1001, 2001, 3001)],
    ids=["starts later", "repeated", "every other", "absent", "codes"],
)
def test_numbers_that_do_not_count_from_one_say_nothing(numbers):
    headers = [ct(number, z=index) for index, number in enumerate(numbers)]
    assert weigh(headers).shape is Shape.UNKNOWN


def test_uneven_thickness_is_no_gap_where_the_thicker_slices_lie():
    thin = [ct(number, 2.5 * number, SliceThickness=2.5) for number in range(1, 9)]
    thick = [ct(8 + step, 20.0 + 5.0 * step, SliceThickness=5.0) for step in range(1, 5)]
    assert weigh(thin + thick).shape is Shape.WHOLE


def test_a_gap_within_the_thick_part_of_uneven_slices_is_found():
    thin = [ct(number, 2.5 * number, SliceThickness=2.5) for number in range(1, 9)]
    thick = [ct(8 + step, 20.0 + 5.0 * step, SliceThickness=5.0) for step in (1, 2, 5, 6)]
    assert weigh(thin + thick).shape is Shape.GAP


def test_a_localiser_of_several_orientations_is_not_tested_for_gaps():
    headers = [ct(number, z) for number, z in ((1, 0), (2, 50), (3, 300))]
    headers[1]["ImageOrientationPatient"] = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
    assert weigh(headers).shape is Shape.WHOLE


def test_repeated_positions_of_echoes_are_no_gap():
    headers = [ct(2 * z + echo, z, Modality="MR", SOPClassUID=MR_IMAGE) for z in range(8) for echo in (1, 2)]
    assert weigh(headers).shape is Shape.WHOLE


def test_one_slice_of_ct_says_nothing_but_one_radiograph_is_whole():
    assert weigh([ct(1)]).shape is Shape.UNKNOWN
    assert weigh([ct(1, Modality="CR", SOPClassUID=COMPUTED_RADIOGRAPHY)]).shape is Shape.WHOLE


def test_a_multi_frame_instance_is_whole():
    assert weigh([ct(1, Modality="MR", SOPClassUID=ENHANCED_MR_IMAGE, NumberOfFrames=60)]).shape is Shape.WHOLE


def test_a_report_is_no_stack_even_with_the_modality_of_one():
    evidence = weigh([ct(7, Modality="MR", SOPClassUID=COMPREHENSIVE_3D_SR)])
    assert (evidence.shape, evidence.is_stack) == (Shape.WHOLE, False)


def test_ct_without_modality_is_still_a_stack():
    header = ct(1)
    del header["Modality"]
    assert weigh([header]).is_stack


def test_a_series_of_conflicts_only_has_no_evidence():
    assert weigh([]).shape is Shape.UNKNOWN


def test_images_in_acquisition_is_evidence_when_reached_and_only_then():
    headers = [ct(number, AcquisitionNumber=1, ImagesInAcquisition=5) for number in range(1, 6)]
    full, partial = weigh(headers), weigh(headers[:4])
    assert full.declared.startswith("ImagesInAcquisition")
    assert full.declared_alone
    assert not partial.declared


def test_every_acquisition_of_several_has_to_reach_its_count():
    headers = [
        ct(3 * acquisition + number, AcquisitionNumber=acquisition, ImagesInAcquisition=3)
        for acquisition in (1, 2)
        for number in range(3)
    ]
    assert weigh(headers).declared
    assert not weigh(headers).declared_alone
    assert not weigh(headers[:-1]).declared


def test_images_in_acquisition_of_one_is_no_evidence():
    assert not weigh([ct(1, ImagesInAcquisition=1)]).declared


def test_number_of_slices_is_evidence_when_reached():
    headers = [ct(number, Modality="PT", NumberOfSlices=4) for number in range(1, 5)]
    assert weigh(headers).declared.startswith("NumberOfSlices")
    assert not weigh(headers[:3]).declared


def test_missing_temporal_positions_are_a_gap():
    headers = [
        ct(10 * phase + z, z, NumberOfTemporalPositions=4, TemporalPositionIdentifier=phase)
        for phase in (1, 2, 3, 4)
        for z in range(10)
    ]
    assert weigh(headers).declared == "all 4 temporal positions with equal counts"
    partial = weigh(headers[:30])
    assert (partial.shape, partial.reason) == (Shape.GAP, "3 of 4 temporal positions")
    assert weigh(headers[:10]).shape is not Shape.GAP
