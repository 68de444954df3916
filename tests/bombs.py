"""Files that harm whoever parses them carelessly: nested, endless, lying, inflating; else each is a sound CT image."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import imagecodecs
import numpy as np
from pydicom import Dataset, uid
from pydicom.encaps import encapsulate

from tests.integration.detect_fixtures import ct_slice

_SEQUENCE = struct.pack("<HH2sHI", 0x0040, 0xA730, b"SQ", 0, 0xFFFFFFFF)
_ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
_EMPTY_ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0)


def file_of(dataset: Dataset) -> bytes:
    """The Part 10 file of ``dataset``."""
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


def _image(**elements: object) -> Dataset:
    dataset = ct_slice(1)
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def _with(extra: bytes) -> bytes:
    """An image with ``extra`` bytes of header before its Pixel Data."""
    content = file_of(_image())
    at = content.index(b"\xe0\x7f\x10\x00OW")
    return content[:at] + extra + content[at:]


def _sequence_of(count: int) -> bytes:
    return struct.pack("<HH2sHI", 0x0040, 0xA730, b"SQ", 0, 8 * count) + _EMPTY_ITEM * count


def _deflated() -> bytes:
    dataset = _image()
    dataset.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    content = file_of(dataset)
    start = 132 + 12 + int(struct.unpack_from("<I", content, 140)[0])
    plain = zlib.decompress(content[start:], -zlib.MAX_WBITS)
    at = plain.index(b"\xe0\x7f\x10\x00OW")
    blob = struct.pack("<HH2sHI", 0x0042, 0x0011, b"OB", 0, 600 << 20)
    return (
        content[:start] + _packed(plain[:at] + blob) + _packed(bytes(8 << 20)) * 75 + _packed(plain[at:], zlib.Z_FINISH)
    )


def _packed(plain: bytes, flush: int = zlib.Z_FULL_FLUSH) -> bytes:
    """A piece of a deflated stream that can stand anywhere in it."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(plain) + packer.flush(flush)


def _compressed(syntax: str, *frames: bytes, **elements: object) -> bytes:
    dataset = _image(**elements)
    dataset.PixelData = encapsulate(list(frames))
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    dataset.file_meta.TransferSyntaxUID = syntax
    return file_of(dataset)


def _patched_jpeg2000(side: int) -> bytes:
    """A JPEG 2000 stream of 64 x 64 pixels that says it has ``side`` x ``side``."""
    stream = bytearray(imagecodecs.jpeg2k_encode(np.ones((64, 64), "u2"), codecformat="j2k", reversible=True))
    at = stream.index(b"\xff\x4f\xff\x51") + 8
    stream[at : at + 8] = struct.pack(">II", side, side)
    return bytes(stream)


def _unsigned_long_rows() -> bytes:
    content = file_of(_image())
    at = content.index(b"\x28\x00\x10\x00US")
    return content[:at] + b"\x28\x00\x10\x00UL\x04\x00\xff\xff\xff\xff" + content[at + 10 :]


def _palette() -> bytes:
    table = np.zeros(16, "<u2").tobytes()
    colours = {f"{name}PaletteColorLookupTable{what}": value for name in ("Red", "Green", "Blue")
               for what, value in (("Descriptor", [16, 0, 16]), ("Data", table))}  # fmt: skip
    return file_of(_image(PhotometricInterpretation="PALETTE COLOR", **colours))


def _modality_table() -> bytes:
    item = Dataset()
    item.LUTDescriptor, item.ModalityLUTType, item.LUTData = [65535, 0, 16], "HU", bytes(6)
    return file_of(_image(ModalityLUTSequence=[item]))


BOMBS: dict[str, Callable[[], bytes]] = {
    "S10 nesting of 5000": lambda: _with((_SEQUENCE + _ITEM) * 5000),
    "S10 nesting of 100,000, closed": lambda: _with(
        (_SEQUENCE + _ITEM) * 100_000
        + (struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)) * 100_000
    ),
    "S10 a million items": lambda: _with(_sequence_of(1_000_000)),
    "S10 a length beyond the end": lambda: _with(struct.pack("<HH2sHI", 0x0040, 0xA123, b"UT", 0, 0xFFFFFFF0)),
    "S10 an item beyond the end": lambda: _with(_SEQUENCE + struct.pack("<HHI", 0xFFFE, 0xE000, 0x7FFFFFFF)),
    "S10 a sequence that is not closed": lambda: _with(_SEQUENCE + _EMPTY_ITEM * 3),
    "S10 cut in the middle": lambda: file_of(_image())[:600],
    "S8 deflate 1000:1": _deflated,
    "S8 deflate, damaged": lambda: _deflated()[:5000],
    "S11 rows, columns and frames": lambda: file_of(_image(Rows=65535, Columns=65535, NumberOfFrames=100_000)),
    "S11 rows and columns": lambda: file_of(_image(Rows=65535, Columns=65535)),
    "S11 UL for rows": _unsigned_long_rows,
    "S11 palette index out of range": _palette,
    "S11 a table shorter than it says": _modality_table,
    "S11 more frames than there are": lambda: file_of(_image(NumberOfFrames=3)),
    "S11 a negative number of frames": lambda: file_of(_image(NumberOfFrames=-5)),
    "S11 200 bits stored": lambda: file_of(_image(BitsStored=200)),
    "S11 bits allocated of 64": lambda: file_of(_image(BitsAllocated=64)),
    "S11 fewer pixels than stated": lambda: file_of(_image(PixelData=bytes(100))),
    "S11 JPEG 2000 of another size": lambda: _compressed(uid.JPEG2000Lossless, _patched_jpeg2000(60_000)),
    "S11 JPEG 2000 of a size the header repeats": lambda: _compressed(
        uid.JPEG2000Lossless, _patched_jpeg2000(16_000), Rows=16_000, Columns=16_000
    ),
    "S11 JPEG of another size": lambda: _compressed(
        uid.JPEGBaseline8Bit, imagecodecs.jpeg8_encode(np.zeros((3000, 3000), "u1"))
    ),
    "S11 JPEG-LS of another size": lambda: _compressed(
        uid.JPEGLSLossless, imagecodecs.jpegls_encode(np.zeros((3000, 3000), "u2"))
    ),
    "S11 RLE without an end": lambda: _compressed(
        uid.RLELossless, struct.pack("<16I", 2, 64, 70, *[0] * 13) + b"\x81\0" * 3000
    ),
    "S11 two bytes of JPEG 2000": lambda: _compressed(uid.JPEG2000Lossless, b"\xff\x4f"),
}
"""By name: what a receiver may be sent (trust.md S8, S10, S11)."""
