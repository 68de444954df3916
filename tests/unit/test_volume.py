"""From files to a Volume: order, geometry gate, and the reasons for a refusal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, uid
from pydicom.data import get_testdata_file

from dicomnode.detect.volume import Limits, NotAnalysable
from dicomnode.errors import Permanent, Transient
from tests.unit.volume_fixtures import (
    image,
    load,
    load_files,
    picture,
    put,
    radiograph,
    refusal,
    set_pixels,
    slice_at,
    source,
    stack,
    write,
)

CORONAL = [1, 0, 0, 0, 0, -1]


def heights(loaded: object) -> list[float]:
    return [plane.position[2] for plane in loaded.volume.planes]  # type: ignore[attr-defined]


def copy_of(ds: Dataset, suffix: str, **elements: object) -> Dataset:
    return put(
        put(Dataset(), **{e.keyword: e.value for e in ds}), SOPInstanceUID=ds.SOPInstanceUID[:50] + suffix, **elements
    )


def test_a_ct_stack_comes_feet_to_head_with_everything_a_plane_has(tmp_path: Path) -> None:
    slices = [slice_at(-5.0 * i, i + 1, WindowCenter=[40, 600], WindowWidth=[80, 2800]) for i in range(4)]
    loaded = load(tmp_path, slices)
    assert heights(loaded) == [-15, -10, -5, 0]
    assert loaded.volume.slice_spacing == 5
    assert loaded.volume.notes == ()
    plane = loaded.volume.planes[0]
    assert plane.spacing == (0.5, 0.75)
    assert plane.position == (-10, -20, -15)
    assert plane.orientation == (1, 0, 0, 0, 1, 0)
    assert plane.window == (40, 80)
    assert plane.frame is None
    assert plane.source.SOPInstanceUID == slices[3].SOPInstanceUID
    assert np.array_equal(plane.pixels, slices[3].pixel_array - 1024.0)


def test_headers_are_parallel_to_the_planes_and_hold_no_pixels(tmp_path: Path) -> None:
    loaded = load(tmp_path, stack(3)[::-1])
    assert [h.SOPInstanceUID for h in loaded.headers] == [p.source.SOPInstanceUID for p in loaded.volume.planes]
    assert not any("PixelData" in header for header in loaded.headers)


def test_an_oblique_stack_is_spaced_along_its_normal(tmp_path: Path) -> None:
    cos, sin = np.cos(np.radians(30)), np.sin(np.radians(30))
    normal = np.array([0, -sin, cos])
    slices = [
        slice_at(0, i + 1, ImageOrientationPatient=[1, 0, 0, 0, cos, sin], ImagePositionPatient=list(4 * i * normal))
        for i in range(5)
    ]
    loaded = load(tmp_path, slices)
    assert loaded.volume.slice_spacing == pytest.approx(4)
    assert loaded.volume.notes == ()


def test_a_tilted_gantry_stack_keeps_its_planes_with_a_note(tmp_path: Path) -> None:
    tilt = [1, 0, 0, 0, float(np.cos(np.radians(18))), float(-np.sin(np.radians(18)))]
    loaded = load(tmp_path, stack(4, ImageOrientationPatient=tilt))
    assert len(loaded.volume.planes) == 4
    assert loaded.volume.slice_spacing == pytest.approx(5 * np.cos(np.radians(18)))
    assert "gantry tilt of 18.0 degrees" in loaded.volume.notes[0]


def test_a_single_slice_is_a_volume(tmp_path: Path) -> None:
    loaded = load(tmp_path, stack(1))
    assert loaded.volume.slice_spacing is None
    assert loaded.volume.notes == ("single slice",)


def test_a_missing_slice_is_refused_with_its_place(tmp_path: Path) -> None:
    assert refusal(tmp_path, stack(8)[:3] + stack(8)[4:]).startswith(
        "slice gap: 1 slice missing between slices 3 and 4"
    )


def test_localisers_are_left_out(tmp_path: Path) -> None:
    scouts = [
        slice_at(0, 90 + i, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], ImageOrientationPatient=CORONAL)
        for i in range(2)
    ]
    loaded = load(tmp_path, stack(4) + scouts)
    assert len(loaded.volume.planes) == 4
    assert loaded.volume.notes == ("left out: 2 localiser images",)
    assert refusal(tmp_path, scouts) == "the series holds only localiser images"


def test_one_stray_image_is_left_out_and_an_even_mixture_is_refused(tmp_path: Path) -> None:
    def across(n: int) -> list[Dataset]:
        return [slice_at(0, 50 + i, ImageOrientationPatient=CORONAL, ImagePositionPatient=[0, i, 0]) for i in range(n)]

    loaded = load(tmp_path, stack(6) + across(1))
    assert loaded.volume.notes == ("left out: 1 stray images (mixed orientations)",)
    assert refusal(tmp_path, stack(4) + across(4)) == "mixed orientations: 2 groups (4, 4 images)"


def test_mixed_pixel_spacing_and_size_are_refused(tmp_path: Path) -> None:
    wide = [slice_at(5.0 * i, i + 1, PixelSpacing=[0.9, 0.9]) for i in range(3, 6)]
    assert refusal(tmp_path, stack(3) + wide).startswith("mixed image sizes or pixel spacings: 2 groups")
    for ds in wide:
        put(ds, PixelSpacing=[0.5, 0.75])
        set_pixels(ds, picture(1, (8, 12)))
    assert refusal(tmp_path, stack(3) + wide).startswith("mixed image sizes or pixel spacings: 2 groups")


def test_an_image_sent_twice_is_kept_once(tmp_path: Path) -> None:
    slices = stack(4)
    loaded = load(tmp_path, [*slices, copy_of(slices[2], ".99")])
    assert len(loaded.volume.planes) == 4
    assert loaded.volume.notes == ("left out: 1 images that were sent twice",)


def test_the_same_instance_listed_twice_is_one_image(tmp_path: Path) -> None:
    sources = [write(ds, tmp_path) for ds in stack(3)]
    assert len(load_files([*sources, sources[1]]).volume.planes) == 3


def test_different_images_at_one_place_that_nothing_tells_apart_are_refused(tmp_path: Path) -> None:
    twice = stack(3) + [slice_at(5.0 * i, 20 + i) for i in range(3)]
    assert refusal(tmp_path, twice).startswith("up to 2 images lie at the same place (6 images, 3 places)")


@pytest.mark.parametrize(
    ("keyword", "first", "second"),
    [
        ("EchoTime", 12.0, 80.0),
        ("TemporalPositionIdentifier", 1, 2),
        ("DiffusionBValue", 0.0, 1000.0),
        ("AcquisitionNumber", 2, 10),
        ("TriggerTime", 0.0, 400.0),
        ("ImageType", ["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"]),
        ("ImageType", ["ORIGINAL", "PRIMARY", "M"], ["DERIVED", "PRIMARY", "ADC"]),
        ("SequenceName", "ep_b0", "ep_b1000"),
    ],
)
def test_of_two_sets_at_the_same_places_the_first_is_taken(
    tmp_path: Path, keyword: str, first: object, second: object
) -> None:
    late = [slice_at(4.0 * i, i + 1, uid.MRImageStorage, **{keyword: second}) for i in range(3)]
    early = [slice_at(4.0 * i, i + 20, uid.MRImageStorage, **{keyword: first}) for i in range(3)]
    loaded = load(tmp_path, late + early)
    assert [h.InstanceNumber for h in loaded.headers] == [20, 21, 22]
    assert loaded.volume.notes == (
        f"several images at each place, told apart by {keyword}: the first complete set is analysed, 3 left out",
    )


def test_two_tags_together_tell_echoes_of_several_time_points_apart(tmp_path: Path) -> None:
    series = [
        slice_at(
            4.0 * i, 1 + i + 10 * t + 100 * e, uid.MRImageStorage, EchoTime=10.0 + e, TemporalPositionIdentifier=t + 1
        )
        for i in range(3)
        for t in range(2)
        for e in range(2)
    ]
    loaded = load(tmp_path, series)
    assert [h.InstanceNumber for h in loaded.headers] == [1, 2, 3]
    assert "EchoTime and TemporalPositionIdentifier" in loaded.volume.notes[0]


def test_b0_is_taken_of_a_diffusion_series_with_many_directions(tmp_path: Path) -> None:
    b0 = [slice_at(4.0 * i, 100 + i, uid.MRImageStorage, DiffusionBValue=0.0) for i in range(3)]
    weighted = [
        slice_at(4.0 * i, 10 * d + i, uid.MRImageStorage, DiffusionBValue=1000.0) for i in range(3) for d in range(3)
    ]
    assert [h.InstanceNumber for h in load(tmp_path, weighted + b0).headers] == [100, 101, 102]


def test_overlapping_acquisitions_of_which_none_covers_all_are_refused(tmp_path: Path) -> None:
    lower = stack(4, AcquisitionNumber=1)
    upper = [slice_at(5.0 * i, 20 + i, AcquisitionNumber=2) for i in range(3, 7)]
    assert "no tag tells complete sets apart" in refusal(tmp_path, lower + upper)


@pytest.mark.parametrize(
    ("keyword", "value", "reason"),
    [
        ("ImagePositionPatient", None, "1 of 4 images have no Image Position (Patient)"),
        ("ImageOrientationPatient", None, "1 of 4 images have no valid Image Orientation (Patient)"),
        ("ImageOrientationPatient", [1, 0, 0, 1, 0, 0], "1 of 4 images have no valid Image Orientation (Patient)"),
        ("PixelSpacing", [0, 0], "1 of 4 images have no valid Pixel Spacing"),
    ],
)
def test_missing_or_impossible_geometry_is_refused(tmp_path: Path, keyword: str, value: object, reason: str) -> None:
    slices = stack(4)
    setattr(slices[1], keyword, value)
    assert refusal(tmp_path, slices) == reason


def test_ct_without_rescale_or_in_other_units_is_refused(tmp_path: Path) -> None:
    bare = stack(2)
    for ds in bare:
        del ds.RescaleSlope
    assert "not Hounsfield units" in refusal(tmp_path, bare)
    assert "not Hounsfield units" in refusal(tmp_path, stack(2, RescaleType="Z_EFF"))


def test_radiographs_of_different_sizes_are_planes_in_instance_order(tmp_path: Path) -> None:
    lateral, frontal = radiograph(2), radiograph(1, ImagerPixelSpacing=[0.14, 0.14])
    set_pixels(lateral, picture(1, (12, 6)))
    loaded = load(tmp_path, [lateral, frontal])
    assert [plane.shape for plane in loaded.volume.planes] == [(8, 10), (12, 6)]
    assert loaded.volume.slice_spacing is None
    assert loaded.volume.planes[0].position is None


def test_imager_pixel_spacing_is_not_taken_for_pixel_spacing(tmp_path: Path) -> None:
    detector_plane = load(tmp_path, [radiograph(ImagerPixelSpacing=[0.14, 0.14])]).volume.planes[0]
    calibrated = load(tmp_path, [radiograph(ImagerPixelSpacing=[0.14, 0.14], PixelSpacing=[0.1, 0.2])]).volume.planes[0]
    assert detector_plane.spacing is None
    assert calibrated.spacing == (0.1, 0.2)


def test_a_digitised_radiograph_in_a_secondary_capture_is_a_projection(tmp_path: Path) -> None:
    loaded = load(tmp_path, [image(uid.SecondaryCaptureImageStorage, "CR")])
    assert len(loaded.volume.planes) == 1


def test_an_image_for_processing_is_refused_and_left_out_beside_its_twin(tmp_path: Path) -> None:
    raw = image(uid.DigitalXRayImageStorageForProcessing, "DX", 5, PresentationIntentType="FOR PROCESSING")
    assert "FOR PROCESSING" in refusal(tmp_path, [raw])
    loaded = load(tmp_path, [raw, radiograph(1)])
    assert len(loaded.volume.planes) == 1
    assert "FOR PROCESSING" in loaded.volume.notes[0]


def test_colour_screenshots_are_left_out_and_alone_refused(tmp_path: Path) -> None:
    shot = slice_at(0, 9, PhotometricInterpretation="RGB", SamplesPerPixel=3, PlanarConfiguration=0)
    shot.PixelData = shot.PixelData * 3
    assert refusal(tmp_path, [shot]) == "the series holds only colour images (screenshots or colour maps)"
    assert len(load(tmp_path, [*stack(3), shot]).volume.planes) == 3
    for photometric in ("PALETTE COLOR", "YBR_FULL_422"):
        assert "colour images" in refusal(tmp_path, [slice_at(0, 9, PhotometricInterpretation=photometric)])


@pytest.mark.parametrize(
    ("sop_class", "words"),
    [
        (uid.ComprehensiveSRStorage, "Comprehensive SR Storage"),
        (uid.GrayscaleSoftcopyPresentationStateStorage, "Presentation State"),
        (uid.KeyObjectSelectionDocumentStorage, "Key Object Selection"),
        (uid.SegmentationStorage, "Segmentation Storage"),
        (uid.EncapsulatedPDFStorage, "Encapsulated PDF"),
        (uid.NuclearMedicineImageStorage, "without slice geometry"),
        (uid.XRayAngiographicImageStorage, "without slice geometry"),
        (uid.UltrasoundImageStorage, "Ultrasound"),
        ("1.2.3.4", "unknown kind of object"),
    ],
)
def test_objects_that_are_no_images_are_named(tmp_path: Path, sop_class: str, words: str) -> None:
    assert words in refusal(tmp_path, [image(sop_class, "CT")])


def test_a_report_in_an_image_series_is_left_out(tmp_path: Path) -> None:
    loaded = load(tmp_path, [*stack(3), image(uid.ComprehensiveSRStorage, "SR", 77)])
    assert "1 objects that are no CT" in loaded.volume.notes[0]


def test_ct_screenshots_without_geometry_and_mosaics_are_refused(tmp_path: Path) -> None:
    assert "secondary captures" in refusal(tmp_path, [image(uid.SecondaryCaptureImageStorage, "CT")])
    mosaic = slice_at(0, 1, uid.MRImageStorage, ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"])
    assert "mosaic" in refusal(tmp_path, [mosaic])


def test_a_cine_of_the_old_multi_frame_kind_is_refused(tmp_path: Path) -> None:
    cine = radiograph(NumberOfFrames=3)
    set_pixels(cine, picture(1, (3, 8, 10)))
    assert "holds 3 frames without a geometry of their own" in refusal(tmp_path, [cine])


def test_projections_and_slices_in_one_series_are_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, [*stack(2), radiograph(9)]) == "the series mixes projections and slices"


def test_an_empty_series_is_refused() -> None:
    with pytest.raises(NotAnalysable, match="no instances"):
        load_files([])


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(max_file_bytes=600), "a file is larger than 600 bytes"),
        (Limits(max_instance_bytes=159), "an image holds more than 159 bytes of pixels"),
        (Limits(max_series_bytes=4 * 80 * 3 - 1), "the series needs more than 959 bytes of memory"),
        (Limits(max_planes=2), "the series has more than 2 images"),
    ],
)
def test_each_limit_refuses_what_is_one_too_large(tmp_path: Path, limits: Limits, reason: str) -> None:
    assert refusal(tmp_path, stack(3), limits) == reason


def test_a_deflated_file_that_inflates_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    ds = slice_at(0, 1)
    set_pixels(ds, np.zeros((1000, 1000), int))
    write(ds, tmp_path)
    ds.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    assert "a deflated file holds more than 100000 bytes" in refusal(tmp_path, [ds], Limits(max_file_bytes=100_000))
    assert load(tmp_path, [ds]).volume.planes[0].shape == (1000, 1000)


def test_a_file_that_is_not_dicom_is_refused_and_one_that_is_gone_is_transient(tmp_path: Path) -> None:
    ds = slice_at(0, 1)
    path = tmp_path / "some.dcm"
    path.write_bytes(b"not a Part 10 file" * 20)
    with pytest.raises(NotAnalysable, match="not readable DICOM"):
        load_files([source(ds, path)])
    path.unlink()
    with pytest.raises(Transient):
        load_files([source(ds, path)])


@pytest.mark.parametrize("cut", [150, 400, 700])
def test_a_truncated_file_ends_in_a_reason(tmp_path: Path, cut: int) -> None:
    written = write(slice_at(0, 1), tmp_path)
    written.path.write_bytes(written.path.read_bytes()[:cut])
    with pytest.raises(NotAnalysable):
        load_files([written])


def test_an_element_of_an_impossible_length_ends_in_a_reason(tmp_path: Path) -> None:
    written = write(slice_at(0, 1), tmp_path)
    rows = b"\x28\x00\x10\x00US\x02\x00\x08\x00"
    content = written.path.read_bytes()
    assert content.count(rows) == 1
    written.path.write_bytes(content.replace(rows, b"\x28\x00\x10\x00US\x03\x00\x08\x00\x00"))
    with pytest.raises(NotAnalysable, match="Rows and Columns"):
        load_files([written])


def test_a_reason_is_permanent_and_holds_no_patient_data(tmp_path: Path) -> None:
    with pytest.raises(Permanent) as caught:
        load(tmp_path, stack(4)[::2] + stack(4)[3:])
    assert "TEST" not in str(caught.value)
    assert str(caught.value) == caught.value.reason  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "name", ["test-SR.dcm", "rtdose.dcm", "liver_1frame.dcm", "examples_palette.dcm", "MR_truncated.dcm", "rtplan.dcm"]
)
def test_bundled_files_that_cannot_be_analysed_end_in_a_reason(name: str) -> None:
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str)
    ds = Dataset()
    ds.SOPClassUID = {"MR_truncated.dcm": uid.MRImageStorage}.get(name, uid.RTPlanStorage)
    ds.SOPInstanceUID = "1.2.3"
    with pytest.raises(NotAnalysable):
        load_files([source(ds, Path(path))])
