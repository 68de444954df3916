"""Compressed pixel data: every family decodes exactly; what cannot be decoded is refused by name."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from pydicom import Dataset, uid
from pydicom.data import get_testdata_file

from dicomnode.detect.pixels_codec import codestream_shape
from tests.unit.volume_fixtures import (
    encapsulated,
    enhanced_mr,
    load,
    load_files,
    picture,
    radiograph,
    refusal,
    set_pixels,
    slice_at,
    source,
    write,
)

Encode = Callable[[np.ndarray], bytes]


def jpeg_12_bit(array: np.ndarray) -> bytes:
    return imagecodecs.jpeg8_encode(array.astype("u2"), bitspersample=12, level=100)


def jpeg_lossless(array: np.ndarray) -> bytes:
    return imagecodecs.jpeg8_encode(array.astype("u2"), bitspersample=12, lossless=True)


LOSSLESS: list[tuple[str, Encode]] = [
    (uid.JPEGLossless, jpeg_lossless),
    (uid.JPEGLosslessSV1, jpeg_lossless),
    (uid.JPEGLSLossless, lambda a: imagecodecs.jpegls_encode(a.astype("u2"))),
    (uid.JPEG2000Lossless, lambda a: imagecodecs.jpeg2k_encode(a.astype("u2"), codecformat="j2k", reversible=True)),
    (uid.HTJ2KLossless, lambda a: imagecodecs.htj2k_encode(a.astype("u2"))),
]


def twelve_bit(seed: int = 6) -> tuple[Dataset, np.ndarray]:
    array = picture(seed, (16, 24), high=4096)
    ds = radiograph()
    set_pixels(ds, array, stored=12)
    return ds, array


@pytest.mark.parametrize(("syntax", "encode"), LOSSLESS, ids=[uid.UID(syntax).keyword for syntax, _ in LOSSLESS])
def test_lossless_families_decode_exactly(tmp_path: Path, syntax: str, encode: Encode) -> None:
    ds, array = twelve_bit()
    loaded = load(tmp_path, [encapsulated(ds, [encode(array)], syntax)])
    assert np.array_equal(loaded.volume.planes[0].pixels, array)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("syntax", [uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless])
def test_signed_and_unsigned_words_survive_compression(tmp_path: Path, syntax: str, signed: bool) -> None:
    array = picture(8, (32, 48), low=-1024 if signed else 0, high=3000)
    ds = slice_at(0, 1, RescaleIntercept=0)
    set_pixels(ds, array, signed=signed)
    plain = load(tmp_path, [ds]).volume.planes[0].pixels
    ds.compress(syntax, generate_instance_uid=False)
    assert np.array_equal(plain, array)
    assert np.array_equal(load(tmp_path, [ds]).volume.planes[0].pixels, plain)


def test_signed_jpeg_lossless_keeps_its_sign(tmp_path: Path) -> None:
    array = picture(8, (16, 24), low=-2048, high=2048)
    ds = radiograph()
    set_pixels(ds, array, stored=12, signed=True)
    frame = jpeg_lossless(array & 0xFFF)
    pixels = load(tmp_path, [encapsulated(ds, [frame], uid.JPEGLosslessSV1)]).volume.planes[0].pixels
    assert np.array_equal(pixels, array)


def test_jpeg_baseline_decodes_close_to_the_source(tmp_path: Path) -> None:
    array = np.add.outer(np.arange(32), np.arange(32)) * 3
    ds = radiograph()
    set_pixels(ds, array, stored=8, allocated=8)
    frame = imagecodecs.jpeg8_encode(array.astype("u1"), level=98)
    pixels = load(tmp_path, [encapsulated(ds, [frame], uid.JPEGBaseline8Bit)]).volume.planes[0].pixels
    assert np.abs(pixels - array).max() <= 3


@pytest.mark.parametrize("signed", [False, True])
def test_jpeg_extended_12_bit_decodes_close_to_the_source(tmp_path: Path, signed: bool) -> None:
    array = np.add.outer(np.arange(32), np.arange(32)) * 20 + 100
    ds = radiograph()
    set_pixels(ds, array, stored=12, signed=signed)
    frame = jpeg_12_bit(array)
    pixels = load(tmp_path, [encapsulated(ds, [frame], uid.JPEGExtended12Bit)]).volume.planes[0].pixels
    assert np.abs(pixels - array).max() <= 8


def test_the_wanted_frames_of_a_compressed_multi_frame_image_are_decoded(tmp_path: Path) -> None:
    arrays = [picture(i, (8, 10), high=4096) for i in range(4)]
    ds = enhanced_mr([0, 0, 4, 4], echoes=[10, 80, 10, 80])
    ds.BitsStored, ds.HighBit = 12, 11
    loaded = load(tmp_path, [encapsulated(ds, [jpeg_lossless(a) for a in arrays], uid.JPEGLossless)])
    assert [plane.frame for plane in loaded.volume.planes] == [1, 3]
    assert np.array_equal(loaded.volume.planes[1].pixels, arrays[2] * 3 + 2)


def test_a_transfer_syntax_without_a_decoder_is_named(tmp_path: Path) -> None:
    ds, _ = twelve_bit()
    assert "MPEG2" in refusal(tmp_path, [encapsulated(ds, [b"\0\0\1\xb3" * 8], uid.MPEG2MPML)])


@pytest.mark.parametrize(("syntax", "encode"), LOSSLESS[:4], ids=[uid.UID(s).keyword for s, _ in LOSSLESS[:4]])
def test_a_broken_codestream_is_refused_with_its_transfer_syntax(tmp_path: Path, syntax: str, encode: Encode) -> None:
    ds, array = twelve_bit()
    reason = refusal(tmp_path, [encapsulated(ds, [encode(array)[:40]], syntax)])
    assert uid.UID(syntax).name in reason


@pytest.mark.parametrize(("syntax", "encode"), LOSSLESS, ids=[uid.UID(syntax).keyword for syntax, _ in LOSSLESS])
def test_a_codestream_of_another_size_is_refused_before_it_is_decoded(
    tmp_path: Path, syntax: str, encode: Encode
) -> None:
    ds, _ = twelve_bit()
    frame = encode(picture(1, (32, 24), high=4096))
    assert codestream_shape(frame) == (32, 24)
    assert "not the one that its header states" in refusal(tmp_path, [encapsulated(ds, [frame], syntax)])


def test_bytes_that_are_no_codestream_state_no_size() -> None:
    assert codestream_shape(b"") is None
    assert codestream_shape(b"\xff\xd8\xff") is None
    assert codestream_shape(b"\xff\xd8\xff\xe0\x00\x04ab\xff\xd9") is None


def test_truncated_native_pixels_are_refused(tmp_path: Path) -> None:
    ds, _ = twelve_bit()
    ds.PixelData = ds.PixelData[:100]
    assert "cannot be decoded (transfer syntax Explicit VR Little Endian)" in refusal(tmp_path, [ds])


def test_absent_pixel_data_is_refused(tmp_path: Path) -> None:
    ds, _ = twelve_bit()
    del ds.PixelData
    assert refusal(tmp_path, [ds]) == "an image has no Pixel Data"


@pytest.mark.parametrize(
    "name",
    [
        "MR_small_RLE.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_implicit.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "MR_small_padded.dcm",
    ],
)
def test_one_real_image_is_the_same_in_every_encoding(tmp_path: Path, name: str) -> None:
    def pixels(file: str) -> np.ndarray:
        path = get_testdata_file(file, download=False)
        assert path
        ds = slice_at(0, 1, sop_class=uid.MRImageStorage)
        write(ds, tmp_path)
        return load_files([source(ds, Path(path))]).volume.planes[0].pixels

    assert np.array_equal(pixels(name), pixels("MR_small.dcm"))


def test_every_family_decodes_without_gdcm() -> None:
    """S14: python-gdcm is neither asked for nor pinned, and the reading child does not import it."""
    root = Path(__file__).parents[2]
    asked = (root / "pyproject.toml").read_text() + (root / "constraints.txt").read_text()
    assert "gdcm" not in asked
    code = "import sys; sys.modules['gdcm'] = None; import dicomnode.detect.reading as r; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "False", done.stderr
