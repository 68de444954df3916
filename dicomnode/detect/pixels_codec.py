"""Stored pixel values out of native and compressed pixel data (PS3.5 section 8)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLELossless,
)

from dicomnode.detect.source_bytes import SourceBytes, SourceHeader
from dicomnode.detect.volume_header import integer, number
from dicomnode.detect.volume_terms import MALFORMED, Limits, NotAnalysable

Stored = npt.NDArray[np.integer[Any]]
Words = tuple[Stored, Stored]
PIXEL_DATA = 0x7FE00010
_NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)
_SOI, _J2K_SOC_SIZ, _SEARCH = b"\xff\xd8", b"\xff\x4f\xff\x51", 4096
_SOF = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """The Image Pixel Module of a greyscale image (PS3.3 C.7.6.3), checked."""

    rows: int
    columns: int
    frames: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool

    @property
    def stored_range(self) -> tuple[int, int]:
        """The least and greatest value that Bits Stored can express."""
        half = 1 << (self.bits_stored - 1)
        return (-half, half - 1) if self.signed else (0, 2 * half - 1)


def pixel_format(header: Dataset, limits: Limits) -> PixelFormat:
    """Read and check the Image Pixel Module.

    Raises NotAnalysable for a missing or nonsensical value, or for more bytes than ``limits`` allows.
    """
    rows, columns = integer(header, "Rows") or 0, integer(header, "Columns") or 0
    if not (0 < rows < 1 << 16 and 0 < columns < 1 << 16):
        raise NotAnalysable("an image has no valid Rows and Columns")
    frames = 1 if number(header, "NumberOfFrames") is None else integer(header, "NumberOfFrames") or 0
    allocated, stored = integer(header, "BitsAllocated") or 0, integer(header, "BitsStored") or 0
    if allocated not in (8, 16, 32) or not 1 <= stored <= allocated:
        raise NotAnalysable(f"an image has {stored} Bits Stored in {allocated} Bits Allocated, which is not readable")
    if not 0 < frames <= limits.max_planes:
        raise NotAnalysable("the Number of Frames of an image is invalid or too large")
    if rows * columns * frames * (allocated // 8) > limits.max_instance_bytes:
        raise NotAnalysable(f"an image holds more than {limits.max_instance_bytes} bytes of pixels")
    representation = integer(header, "PixelRepresentation")
    if representation not in (0, 1):
        raise NotAnalysable("an image has no valid Pixel Representation")
    high_bit = integer(header, "HighBit")
    if high_bit is None or not stored - 1 <= high_bit < allocated:
        high_bit = stored - 1
    return PixelFormat(rows, columns, frames, allocated, stored, high_bit, representation == 1)


def stored_frames(image: SourceHeader, form: PixelFormat, indices: Sequence[int], limits: Limits) -> Iterator[Words]:
    """Decode the frames ``indices`` (0-based, ascending); yields (stored values, whole words), each (rows, columns).

    Bits outside Bits Stored (overlays, garbage: PS3.5 8.1.1) are cleared in the stored values and kept in the
    words where the words exist (native and RLE); else both arrays are one.
    Raises NotAnalysable that names the transfer syntax when no decoder can read a frame, Transient when the disk fails.
    """
    syntax = UID(image.syntax)
    if image.pixels is None or image.pixels.tag != PIXEL_DATA:
        raise NotAnalysable("an image has no Pixel Data")
    try:
        with SourceBytes(image.path, limits) as content:
            yield from _decode(content, image, form, indices)
    except MALFORMED as error:
        raise NotAnalysable(f"the pixels cannot be decoded (transfer syntax {syntax.name or 'missing'})") from error


def _decode(
    content: SourceBytes, image: SourceHeader, form: PixelFormat, indices: Sequence[int]
) -> Iterator[tuple[Stored, Stored]]:
    syntax = UID(image.syntax)
    if syntax in _NATIVE:
        frames, whole_words = _native_frames(content, image, form, indices), True
    else:
        pixels = _Encoded(_value(content, image), image.offsets, form)
        _check_codestreams(pixels, form, syntax)
        frames, whole_words = _raw_frames(pixels, form, syntax, indices, image)
    for raw in frames:
        if raw.shape != (form.rows, form.columns):
            raise ValueError("decoded frame has another shape")
        word = raw.astype(raw.dtype.newbyteorder("="), copy=False)
        yield (significant_bits(word, form) if whole_words else word), word


def _native_frames(
    content: SourceBytes, image: SourceHeader, form: PixelFormat, indices: Sequence[int]
) -> Iterator[Stored]:
    """Frames of native little endian pixel data (PS3.5 8.1.1), read one by one."""
    place, size = image.pixels, form.rows * form.columns * (form.bits_allocated // 8)
    if place is None or place.length is None or place.length < size * form.frames:
        raise ValueError("fewer pixels than the header states")
    dtype = np.dtype(f"<{'i' if form.signed else 'u'}{form.bits_allocated // 8}")
    for index in indices:
        frame = np.frombuffer(content.read(place.offset + index * size, size), dtype)
        yield frame.reshape(form.rows, form.columns)


def _value(content: SourceBytes, image: SourceHeader) -> bytes:
    """The value of Pixel Data; encapsulated ones (PS3.5 A.4) reach to the end of the file here."""
    if image.pixels is None:
        raise ValueError("no pixels")
    left = content.size - image.pixels.offset
    length = left if image.pixels.length is None else image.pixels.length
    if length > left:
        raise ValueError("fewer pixels than the header states")
    return content.read(image.pixels.offset, length)


def significant_bits(words: Stored, form: PixelFormat) -> Stored:
    """Keep Bits Stored bits up to High Bit, with the sign extended (PS3.5 8.1.1)."""
    width = words.dtype.itemsize * 8
    if form.bits_stored == width:
        return words
    lifted = np.left_shift(words, width - 1 - form.high_bit)
    return np.right_shift(lifted, width - form.bits_stored)


@dataclass(frozen=True, slots=True)
class _Encoded:
    """The value of Pixel Data as it is encoded, with its Extended Offset Table and Lengths."""

    value: bytes
    offsets: tuple[bytes, bytes] | None
    form: PixelFormat

    def codestreams(self) -> Iterator[bytes]:
        return generate_frames(self.value, number_of_frames=self.form.frames, extended_offsets=self.offsets)


def _raw_frames(
    pixels: _Encoded, form: PixelFormat, syntax: UID, indices: Sequence[int], image: SourceHeader
) -> tuple[Iterator[Stored], bool]:
    """The decoded frames, and whether they hold whole words."""
    if syntax in JPEGTransferSyntaxes:
        return _jpeg_frames(pixels, form, indices, imagecodecs.jpeg_decode), False
    if syntax in JPEGLSTransferSyntaxes:
        return _jpeg_frames(pixels, form, indices, imagecodecs.jpegls_decode), False
    whole_words = not syntax.is_encapsulated or syntax == RLELossless
    options: dict[str, Any] = {"correct_unused_bits": False} if whole_words else {}
    wanted = None if len(indices) == form.frames else list(indices)
    arrays = get_decoder(syntax).iter_array(_as_dataset(pixels, image), indices=wanted, raw=True, **options)
    return (array for array, _ in islice(arrays, len(indices))), whole_words


def _as_dataset(pixels: _Encoded, image: SourceHeader) -> Dataset:
    """What pydicom's decoders ask: the Image Pixel Module as it was checked, nothing else of the file."""
    form, dataset = pixels.form, Dataset()
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns, dataset.NumberOfFrames = form.rows, form.columns, form.frames
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = form.bits_allocated, form.bits_stored, form.high_bit
    dataset.PixelRepresentation = int(form.signed)
    dataset.PixelData = pixels.value
    dataset["PixelData"].VR = "OB" if image.pixels is None or image.pixels.vr == b"OB" else "OW"
    if pixels.offsets is not None:
        dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = pixels.offsets
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(image.syntax)
    return dataset


def _jpeg_frames(
    pixels: _Encoded, form: PixelFormat, indices: Sequence[int], decode: Callable[[bytes], Any]
) -> Iterator[Stored]:
    """JPEG frames, also 12-bit and lossless ones, by libjpeg-turbo and its kin; JPEG-LS by CharLS (imagecodecs).

    Their words are unsigned: the sign of a signed image is at its highest stored bit.
    """
    wanted = set(indices)
    aligned = replace(form, frames=1, high_bit=form.bits_stored - 1)
    for index, frame in enumerate(pixels.codestreams()):
        if index in wanted:
            array = np.asarray(decode(frame))
            signed = array.view(f"i{array.dtype.itemsize}") if form.signed else array
            yield significant_bits(signed, aligned) if form.signed else array


def _check_codestreams(pixels: _Encoded, form: PixelFormat, syntax: UID) -> None:
    """Compare what each codestream states with Rows and Columns and one sample, before a decoder allocates it."""
    if syntax not in (*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes, *JPEG2000TransferSyntaxes):
        return
    for frame in pixels.codestreams():
        shape = codestream_shape(frame)
        if shape is not None and shape != (form.rows, form.columns):
            raise NotAnalysable("the size of the compressed image is not the one that its header states")


def codestream_shape(frame: bytes) -> tuple[int, int] | None:
    """(rows, columns) as the codestream states them, or None when it does not say.

    JPEG and JPEG-LS: the frame header (ITU-T T.81 B.2.2, T.87 C.2.2); JPEG 2000: the SIZ segment (T.800 A.5.1).
    """
    siz = frame.find(_J2K_SOC_SIZ, 0, _SEARCH)
    if siz >= 0 and len(frame) >= siz + 24:
        width, height, left, top = struct.unpack_from(">4I", frame, siz + 8)
        return height - top, width - left
    if not frame.startswith(_SOI):
        return None
    at = 2
    while at + 9 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker in _SOF:
            rows, columns = struct.unpack_from(">HH", frame, at + 5)
            return (rows, columns) if rows else None
        at += 1 if marker == 0xFF else 2 + struct.unpack_from(">H", frame, at + 2)[0]
    return None
