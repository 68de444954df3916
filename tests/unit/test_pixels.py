"""What a detector sees of stored pixels: Modality LUT, padding, polarity, bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset

from dicomnode.detect.pixels import (
    LookupTable,
    Rescale,
    apply_lut,
    expressible_range,
    inverted_window,
    linear_rescale,
    modality_lut,
    padding_mask,
    to_grey,
)
from dicomnode.detect.pixels_codec import PixelFormat, pixel_format, significant_bits
from dicomnode.detect.volume import Limits, NotAnalysable
from tests.unit.volume_fixtures import item, load, picture, put, radiograph, set_pixels, slice_at

FORM = PixelFormat(8, 10, 1, 16, 12, 11, False)


def linear_window(values: np.ndarray, centre: float, width: float) -> np.ndarray:
    """PS3.3 C.11.2.1.2.1, output 0..1."""
    return np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)


@pytest.mark.parametrize(
    ("allocated", "stored", "signed"),
    [(8, 8, False), (16, 12, False), (16, 12, True), (16, 16, False), (16, 16, True), (16, 10, True), (32, 20, True)],
)
def test_stored_values_of_every_width_and_sign_come_out_exact(
    tmp_path: Path, allocated: int, stored: int, signed: bool
) -> None:
    low, high = (-(1 << (stored - 1)), 1 << (stored - 1)) if signed else (0, 1 << stored)
    array = picture(3, low=low, high=high)
    ds = radiograph()
    set_pixels(ds, array, stored=stored, allocated=allocated, signed=signed)
    plane = load(tmp_path, [ds]).volume.planes[0]
    assert np.array_equal(plane.pixels, array)
    assert plane.pixels.dtype == np.float32
    assert (plane.stored_min, plane.stored_max) == (low, high - 1)


def test_rescale_gives_hounsfield_units_and_their_expressible_range(tmp_path: Path) -> None:
    ds = slice_at(0, 1, RescaleSlope=0.5, RescaleIntercept=-1000)
    array = picture(5, low=0, high=4096)
    set_pixels(ds, array, stored=12)
    plane = load(tmp_path, [ds]).volume.planes[0]
    assert np.array_equal(plane.pixels, array * 0.5 - 1000)
    assert (plane.stored_min, plane.stored_max) == (-1000, 4095 * 0.5 - 1000)


def test_a_negative_slope_keeps_the_range_in_order() -> None:
    assert expressible_range(FORM, Rescale(-2, 10)) == (10 - 2 * 4095, 10)


def test_a_slope_of_zero_is_refused() -> None:
    with pytest.raises(NotAnalysable, match="Rescale Slope of zero"):
        linear_rescale(item(RescaleSlope=0, RescaleIntercept=5))


@pytest.mark.parametrize("as_bytes", [True, False])
def test_modality_lut_sequence_maps_and_clamps_to_its_ends(tmp_path: Path, as_bytes: bool) -> None:
    table = [100, 400, 900, 1600]
    lut = item(ModalityLUTType="US", LUTDescriptor=[4, 2, 16])
    lut.add_new("LUTData", *(("OW", np.asarray(table, "<u2").tobytes()) if as_bytes else ("US", table)))
    ds = radiograph(ModalityLUTSequence=[lut])
    set_pixels(ds, np.arange(80).reshape(8, 10) % 8, stored=12)
    plane = load(tmp_path, [ds]).volume.planes[0]
    assert plane.pixels[0, :8].tolist() == [100, 100, 100, 400, 900, 1600, 1600, 1600]
    assert (plane.stored_min, plane.stored_max) == (100, 1600)


def test_a_signed_lookup_table_may_begin_below_zero() -> None:
    lut = LookupTable(-2, (5, 6, 7, 8))
    assert apply_lut(np.array([-32768, -2, -1, 1, 32767], np.int16), lut).tolist() == [5, 5, 6, 8, 8]


def test_a_lookup_table_shorter_than_its_descriptor_is_refused() -> None:
    header = item(ModalityLUTSequence=[item(LUTDescriptor=[9, 0, 16], LUTData=[1, 2, 3])])
    with pytest.raises(NotAnalysable, match="another length"):
        modality_lut(header, FORM)


def test_monochrome1_is_inverted_over_the_expressible_range(tmp_path: Path) -> None:
    array = picture(7, high=4096)
    ds = radiograph(PhotometricInterpretation="MONOCHROME1", WindowCenter=1000, WindowWidth=500)
    set_pixels(ds, array, stored=12)
    plane = load(tmp_path, [ds]).volume.planes[0]
    assert np.array_equal(plane.pixels, 4095 - array)
    assert (plane.stored_min, plane.stored_max) == (0, 4095)
    shown = linear_window(plane.pixels, *(plane.window or (0, 0)))
    assert np.allclose(shown, 1 - linear_window(array, 1000, 500))


def test_exact_window_functions_invert_without_the_half() -> None:
    assert inverted_window((100, 50), (0, 255), linear=False) == (155, 50)


def test_ct_keeps_its_hounsfield_units_whatever_the_display_polarity(tmp_path: Path) -> None:
    ds = slice_at(0, 1, PhotometricInterpretation="MONOCHROME1", WindowCenter=40, WindowWidth=80)
    plain = load(tmp_path, [put(slice_at(0, 1), WindowCenter=40, WindowWidth=80)]).volume.planes[0]
    plane = load(tmp_path, [ds]).volume.planes[0]
    assert np.array_equal(plane.pixels, plain.pixels)
    assert plane.window == plain.window == (40, 80)


@pytest.mark.parametrize("padding", [-2000, 63536])
def test_ct_padding_becomes_air_even_when_its_vr_is_wrong(tmp_path: Path, padding: int) -> None:
    array = picture(9, low=0, high=3000)
    array[0] = -2000
    ds = slice_at(0, 1)
    set_pixels(ds, array, signed=True)
    ds.add_new("PixelPaddingValue", "US" if padding > 0 else "SS", padding)
    pixels = load(tmp_path, [ds]).volume.planes[0].pixels
    assert (pixels[0] == max(-1000.0, (array[1:] - 1024).min())).all()
    assert np.array_equal(pixels[1:], array[1:] - 1024)


def test_ct_fill_below_minus_1024_without_a_tag_becomes_air(tmp_path: Path) -> None:
    array = np.full((8, 10), 24)
    array[2, 3], array[4, 4] = -2000, 1000
    ds = slice_at(0, 1)
    set_pixels(ds, array, signed=True)
    pixels = load(tmp_path, [ds]).volume.planes[0].pixels
    assert pixels[2, 3] == -1000
    assert pixels[4, 4] == -24


def test_nominal_ct_without_air_pads_with_its_own_minimum() -> None:
    header = item(Modality="CT", PixelPaddingValue=0)
    stored = np.array([[0, 20], [30, 40]], np.uint16)
    grey = to_grey(header, PixelFormat(2, 2, 1, 16, 16, 15, False), Rescale(), (stored, stored))
    assert grey.pixels.tolist() == [[20, 20], [30, 40]]


def test_bright_padding_of_an_inverted_radiograph_becomes_background(tmp_path: Path) -> None:
    array = picture(2, low=10, high=4000)
    array[:, 0] = 0
    ds = radiograph(PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=0)
    set_pixels(ds, array, stored=12)
    pixels = load(tmp_path, [ds]).volume.planes[0].pixels
    assert (pixels[:, 0] == (4095 - array[:, 1:]).min()).all()


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("intercept", [0.0, -1024.0, 0.5, 8_000_001.0])
@pytest.mark.parametrize("slope", [1.0, 2.0, -1.0, 0.3, 127.0, 4095.0])
@pytest.mark.parametrize("modality", ["CT", "DX"])
def test_the_quick_rescale_gives_the_same_pixels(modality: str, slope: float, intercept: float, signed: bool) -> None:
    """Issue part 4: where whole numbers are computed in float32, not one bit differs from float64."""
    stored = picture(5, (64, 64), low=0, high=1 << 16).astype(np.uint16)
    stored = stored.view(np.int16) if signed else stored
    header = item(Modality=modality, PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=int(stored[3, 4]))
    form = PixelFormat(64, 64, 1, 16, 16, 15, signed)
    exact = stored.astype(np.float64) * slope + intercept
    padding = stored == stored[3, 4]
    if modality == "CT":
        padding |= exact < -1024
        floor = -1000.0
    else:
        ends = expressible_range(form, Rescale(slope, intercept))
        exact, floor = sum(ends) - exact, ends[0]
    exact[padding] = max(exact[~padding].min(), floor) if not padding.all() else floor
    grey = to_grey(header, form, Rescale(slope, intercept), (stored, stored))
    assert grey.pixels.dtype == np.float32
    assert grey.pixels.tobytes() == exact.astype(np.float32).tobytes()


def test_padding_range_limit_bounds_the_padding_from_either_side() -> None:
    header = item(PixelPaddingValue=30, PixelPaddingRangeLimit=10)
    stored = np.array([[9, 10, 20, 30, 31]], np.uint16)
    assert padding_mask(header, FORM, stored, stored).tolist() == [[False, True, True, True, False]]


def test_padding_that_the_stored_bits_cannot_hold_is_found_in_the_whole_words() -> None:
    words = np.array([[0xF830, 0x0830]], np.uint16)
    mask = padding_mask(item(PixelPaddingValue=0xF830), FORM, significant_bits(words, FORM), words)
    assert mask.tolist() == [[True, False]]


@pytest.mark.parametrize("signed", [False, True])
def test_overlay_bits_and_garbage_above_the_stored_bits_are_cleared(tmp_path: Path, signed: bool) -> None:
    low, high = (-2048, 2048) if signed else (0, 4096)
    array = picture(4, low=low, high=high)
    ds = radiograph()
    set_pixels(ds, (array & 0xFFF) | (picture(5, high=16) << 12), stored=12)
    ds.PixelRepresentation = int(signed)
    assert np.array_equal(load(tmp_path, [ds]).volume.planes[0].pixels, array)


def test_stored_bits_at_the_top_of_the_word_are_found_by_high_bit(tmp_path: Path) -> None:
    array = picture(4, high=4096)
    ds = radiograph()
    set_pixels(ds, array << 4 | 0xF, stored=12)
    ds.HighBit = 15
    assert np.array_equal(load(tmp_path, [ds]).volume.planes[0].pixels, array)


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"Rows": 0}, "Rows and Columns"),
        ({"Columns": None}, "Rows and Columns"),
        ({"BitsAllocated": 12}, "Bits Allocated"),
        ({"BitsStored": 17}, "Bits Stored"),
        ({"PixelRepresentation": 7}, "Pixel Representation"),
        ({"NumberOfFrames": "0"}, "Number of Frames"),
        ({"NumberOfFrames": "2000000000"}, "Number of Frames"),
        ({"Rows": 65535, "Columns": 65535}, "bytes of pixels"),
    ],
)
def test_nonsense_in_the_image_pixel_module_is_refused(elements: dict[str, object], reason: str) -> None:
    with pytest.raises(NotAnalysable, match=reason):
        pixel_format(put(radiograph(), **elements), Limits())


def test_the_smallest_pixel_format_needs_no_high_bit() -> None:
    header = put(Dataset(), Rows=1, Columns=1, BitsAllocated=8, BitsStored=8, PixelRepresentation=0)
    assert pixel_format(header, Limits()) == PixelFormat(1, 1, 1, 8, 8, 7, False)
