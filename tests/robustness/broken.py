"""Broken files of our own making, by category: what the fuzz corpora hold, small enough for every run of the tests."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import cache

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from dicomnode.demo.phantoms import make_ct_head
from dicomnode.dicom.sop_classes import CT_IMAGE
from tests.raw_scu import EXPLICIT, IMPLICIT

DEFLATED, JPEG, RLE = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.5"
INSTANCE = "2.25.123456789012345678901234567890"
SIZE = 64
_PIXELS = b"\xe0\x7f\x10\x00"
_UNDEFINED = b"\xff\xff\xff\xff"
_ITEM, _END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0\0\0\0\0"


@cache
def files() -> dict[str, bytes]:
    """Name, as ``category/what``, to content. ``whole/…`` are in order; the rest is broken in one way each."""
    return {f"{make.__name__.strip('_')}/{name}": content for make in _CATEGORIES for name, content in make()}


def data_set(syntax: str = EXPLICIT, **values: object) -> bytes:
    """A CT slice of 64 x 64 with some values replaced."""
    dataset = deepcopy(_slice())
    dataset.SOPInstanceUID, dataset.SOPClassUID = INSTANCE, CT_IMAGE
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"{INSTANCE}1", f"{INSTANCE}2"
    dataset.Rows = dataset.Columns = SIZE
    dataset.PixelData = bytes(range(256)) * (SIZE * SIZE * 2 // 256)
    dataset["PixelData"].VR = "OW"
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, syntax == IMPLICIT
    write_dataset(buffer, dataset)
    return buffer.getvalue()


@cache
def _slice() -> Dataset:
    return make_ct_head(seed=5).datasets[0]


def file(data: bytes, syntax: str = EXPLICIT, *, preamble: bytes = bytes(128), instance: str = INSTANCE) -> bytes:
    """A file with meta information of our own hand around ``data`` (PS3.10 7.1)."""
    meta = b"".join(
        _short(0x0002, element, b"UI", _even(text.encode()))
        for element, text in ((0x0002, CT_IMAGE), (0x0003, instance), (0x0010, syntax), (0x0012, "2.25.7"))
    )
    return preamble + b"DICM" + _short(0x0002, 0x0000, b"UL", struct.pack("<I", len(meta))) + meta + data


def _short(group: int, element: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", group, element, vr, len(value)) + value


def _long(group: int, element: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    return struct.pack("<HH2sHI", group, element, vr, 0, len(value) if length is None else length) + value


def _even(value: bytes) -> bytes:
    return value + b"\0" * (len(value) % 2)


def _without_pixels() -> bytes:
    return data_set().rpartition(_PIXELS + b"OW")[0]


def _fragments(*fragments: bytes) -> bytes:
    items = b"".join(_ITEM + struct.pack("<I", len(one)) + one for one in fragments)
    return _without_pixels() + _PIXELS + b"OB\0\0" + _UNDEFINED + items + _END


def _whole() -> Iterator[tuple[str, bytes]]:
    yield "explicit", file(data_set())
    yield "implicit", file(data_set(IMPLICIT), IMPLICIT)


def _tag_overflow() -> Iterator[tuple[str, bytes]]:
    yield "a patient id of 1 MB", file(_short(0x0008, 0x0005, b"CS", b"ISO_IR 100") + _huge(b"A" * 2**20))
    yield "a study uid of 65 characters", file(data_set().replace(f"{INSTANCE}1".encode(), b"2.25." + b"1" * 60, 1))
    yield "a uid with a path", file(data_set().replace(INSTANCE.encode(), b"../../../../etc/cron.d/x" + b"1" * 11))
    yield "a date that is none", file(data_set().replace(b"DA\x08\x0020", b"DA\x08\x00XX"))
    yield "no value at all", file(data_set(PatientID="", Modality="", StudyDate=""))


def _huge(value: bytes) -> bytes:
    return _long(0x0010, 0x0020, b"UN", value) + _long(0x0010, 0x4000, b"UT", value) + data_set()


def _vr_mismatch() -> Iterator[tuple[str, bytes]]:
    yield "a vr that is none", file(data_set().replace(b"PN", b"ZZ"))
    yield "rows of four bytes", file(data_set().replace(b"\x28\x00\x10\x00US\x02\x00", b"\x28\x00\x10\x00UL\x04\x00"))
    yield "text as numbers", file(data_set().replace(b"\x10\x00\x20\x00LO", b"\x10\x00\x20\x00OB"))


def _nesting() -> Iterator[tuple[str, bytes]]:
    deep = b"\x40\x00\x75\x02SQ\0\0" + _UNDEFINED + _ITEM + _UNDEFINED
    close = b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0"
    yield "300 deep", file(_insert(deep * 300 + close * 300))
    yield "3000 deep", file(_insert(deep * 3000 + close * 3000))
    yield "never closed", file(_insert(deep * 3))
    empty = (_ITEM + b"\0\0\0\0") * 100_000
    yield "a hundred thousand empty items", file(_insert(_long(0x0040, 0x0275, b"SQ", empty)))


def _insert(extra: bytes) -> bytes:
    head, mark, tail = data_set().rpartition(_PIXELS + b"OW")
    return head + extra + mark + tail


def _pixel_data() -> Iterator[tuple[str, bytes]]:
    yield "65535 x 65535 of nothing", file(data_set(Rows=65535, Columns=65535))
    yield "no rows", file(data_set(Rows=0))
    yield "a million frames", file(data_set(NumberOfFrames=1_000_000))
    for allocated, stored in ((0, 0), (8, 16), (24, 24), (16, 17), (128, 128)):
        values = {"BitsAllocated": allocated, "BitsStored": stored, "HighBit": max(stored - 1, 0)}
        yield f"{stored} bits in {allocated}", file(data_set(**values))
    yield "half of the pixels", file(data_set(PixelData=bytes(SIZE * SIZE)))
    yield "none of the pixels", file(_without_pixels())
    yield "a palette without a table", file(data_set(PhotometricInterpretation="PALETTE COLOR"))
    yield (
        "a rescale slope of infinity",
        file(data_set().replace(b"\x28\x00\x53\x10DS\x02\x001 ", b"\x28\x00\x53\x10DS\x04\x001e99")),
    )


def _encapsulated() -> Iterator[tuple[str, bytes]]:
    yield "no jpeg in it", file(_fragments(b"", b"\xff\xd8 no jpeg at all \xff\xd9"), JPEG)
    yield "an empty fragment", file(_fragments(b"", b""), JPEG)
    yield "ten thousand fragments", file(_fragments(b"", *[b"\xff\xd8"] * 10_000), JPEG)
    yield "offsets to nowhere", file(_fragments(struct.pack("<II", 0xDEADBEEF, 0xFFFFFFFE), b"\xff\xd8\xff\xd9"), JPEG)
    endless = _without_pixels() + _PIXELS + b"OB\0\0" + _UNDEFINED + _ITEM + b"\xfe\xff\xff\xff" + b"\0" * 64
    yield "a fragment without end", file(endless, JPEG)
    segments = struct.pack("<16I", 15, *[0xDEADBEEF] * 15)
    yield "segments outside", file(_fragments(b"", segments + b"\0" * 32), RLE)


def _transfer_syntax() -> Iterator[tuple[str, bytes]]:
    yield "says explicit, is implicit", file(data_set(IMPLICIT))
    yield "says implicit, is explicit", file(data_set(), IMPLICIT)
    yield "says jpeg, is not", file(data_set(), JPEG)
    yield "unknown", file(data_set(), "1.2.3.4.5.6")
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    yield "no deflate stream", file(b"\xff" * 4096, DEFLATED)
    other = INSTANCE.replace("9", "8")  # nobody can replace the UIDs of what is deflated
    bomb = (
        packer.compress(
            data_set().replace(INSTANCE.encode(), other.encode()) + _long(0x7FE1, 0x1010, b"OB", bytes(48 * 2**20))
        )
        + packer.flush()
    )
    yield "deflated a thousandfold", file(bomb, DEFLATED, instance=other)


def _file_meta() -> Iterator[tuple[str, bytes]]:
    good = file(data_set())
    yield "no mark", good.replace(b"DICM", bytes(4), 1)
    yield "no meta information", data_set()
    yield "a group length of 4 GB", good[:140] + _UNDEFINED + good[144:]
    yield "a group length of 0", good[:140] + bytes(4) + good[144:]
    yield "vrs that are none", good[:144] + good[144:300].replace(b"UI", b"\xff\xff") + good[300:]
    yield "an executable", file(data_set(), preamble=b"MZ" + bytes(126))
    yield "cut in the meta", good[:160]


def _text() -> Iterator[tuple[str, bytes]]:
    yield "not utf-8", file(_name(b"\xed\xa0\x80\xff\xfe\x00^\xc3"))
    yield "control characters", file(_name(bytes(range(1, 31))))
    yield "formats and scripts", file(_name(b"%n%n%s{{7*7}}<script>$(id)'--"))
    yield "an unknown character set", file(data_set().replace(b"ISO_IR 1", b"NO_SUCH "))


def _name(value: bytes) -> bytes:
    kept = data_set()
    at = kept.index(b"\x10\x00\x10\x00PN")
    length = struct.unpack_from("<H", kept, at + 6)[0]
    return kept[:at] + _short(0x0010, 0x0010, b"PN", _even(value)) + kept[at + 8 + length :]


def _structure() -> Iterator[tuple[str, bytes]]:
    good = data_set()
    yield "cut in the middle", file(good[: len(good) // 2])
    yield "cut in the header", file(good[:101])
    yield "a length of 4 GB", file(_insert(_long(0x0009, 0x0010, b"OB", b"ten bytes!", 0xFFFFFFF0)))
    yield "everything twice", file(good + good)
    yield "a command inside", file(_short(0x0000, 0x0002, b"UI", b"1.2.3\0") + good)
    yield "bytes after the end", file(good + b"\xde\xad\xbe\xef" * 3)
    yield "nothing", b""
    yield "text", b"{'this': 'is no DICOM file'}" * 50
    yield "noise", bytes((n * 167 + (n >> 3)) % 256 for n in range(20_000))


_CATEGORIES: tuple[Callable[[], Iterator[tuple[str, bytes]]], ...] = (
    _whole,
    _tag_overflow,
    _vr_mismatch,
    _nesting,
    _pixel_data,
    _encapsulated,
    _transfer_syntax,
    _file_meta,
    _text,
    _structure,
)
