"""The bounded header reader answers what pydicom answers, and refuses what would cost too much."""

from __future__ import annotations

import os
import struct
import time
import warnings
import zlib
from pathlib import Path

import pydicom
import pytest
from pydicom.multival import MultiValue

from dicomnode.dicom.header import (
    ROUTING_KEYWORDS,
    HeaderLimits,
    MalformedHeader,
    part10_offset,
    read_header,
    read_header_bytes,
    require_whole,
)
from dicomnode.dicom.transfer_syntaxes import EXPLICIT_BIG_ENDIAN, EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN

BUNDLED = Path(pydicom.__file__).parent / "data"
WANTED = (*ROUTING_KEYWORDS, "PatientName", "ReferringPhysicianName", "OperatorsName")
DEFLATED = "1.2.840.10008.1.2.1.99"
UNDEFINED = 0xFFFFFFFF


def explicit(tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    size = len(value) if length is None else length
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr)
    long_form = vr in (b"SQ", b"UN", b"OB", b"OW", b"UT")
    return head + (struct.pack("<HI", 0, size) if long_form else struct.pack("<H", size)) + value


def item(length: int = 0, tag: int = 0xE000) -> bytes:
    return struct.pack("<HHI", 0xFFFE, tag, length)


def expected_header(path: Path) -> dict[str, tuple[object, ...]]:
    """What pydicom says of the wanted keywords, in the shape of a Header."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        header = {keyword: plain(dataset.get(keyword)) for keyword in WANTED}
    return {keyword: values for keyword, values in header.items() if values}


def plain(value: object) -> tuple[object, ...]:
    values = list(value) if isinstance(value, MultiValue | list) else [value]
    plain_values: list[object] = []
    for one in values:
        if isinstance(one, int):
            plain_values.append(int(one))
        elif isinstance(one, float):
            plain_values.append(float(one))
        else:
            plain_values.append("" if one is None else str(one).strip(" \0"))
    return tuple(plain_values) if any(one != "" for one in plain_values) else ()


def bundled_files() -> list[Path]:
    folders = (BUNDLED / "test_files", BUNDLED / "charset_files")
    return sorted(path for folder in folders for path in folder.rglob("*.dcm"))


def test_every_file_of_the_pydicom_wheel_gives_the_values_that_pydicom_gives() -> None:
    compared = 0
    for path in bundled_files():
        try:
            header = read_header(path, WANTED)
        except MalformedHeader:
            continue
        assert header == expected_header(path), path.name
        compared += bool(header)
    assert compared > 80


def test_only_files_without_a_data_set_are_refused() -> None:
    refused = set()
    for path in bundled_files():
        try:
            read_header(path, WANTED)
        except MalformedHeader:
            refused.add(path.name)
    assert refused == {"no_meta.dcm", "meta_missing_tsyntax.dcm"}


def test_bytes_and_file_give_the_same_header() -> None:
    path = BUNDLED / "test_files" / "CT_small.dcm"
    data = path.read_bytes()
    transfer_syntax, offset = part10_offset(data)
    assert transfer_syntax == EXPLICIT_LITTLE_ENDIAN
    assert read_header_bytes(memoryview(data)[offset:], transfer_syntax, WANTED) == read_header(path, WANTED)


def test_a_file_without_preamble_and_meta_is_read(tmp_path: Path) -> None:
    data = (BUNDLED / "test_files" / "CT_small.dcm").read_bytes()
    bare = tmp_path / "bare.dcm"
    bare.write_bytes(data[part10_offset(data)[1] :])
    assert read_header(bare, ["Modality", "Rows"]) == {"Modality": ("CT",), "Rows": (128,)}


def test_transfer_syntax_uid_of_the_meta_information_can_be_asked_for() -> None:
    header = read_header(BUNDLED / "test_files" / "JPEG2000.dcm", ["TransferSyntaxUID", "Modality"])
    assert header == {"TransferSyntaxUID": ("1.2.840.10008.1.2.4.91",), "Modality": ("NM",)}


@pytest.mark.parametrize("transfer_syntax", [EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN, EXPLICIT_BIG_ENDIAN])
def test_numbers_text_and_order_are_kept_in_each_encoding(transfer_syntax: str) -> None:
    dataset = pydicom.Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.ImageType = ["DERIVED", "", "AXIAL"]
    dataset.StudyDescription = "Schädel"
    dataset.ImagePositionPatient = [-1.5, 0, 1e-3]
    dataset.InstanceNumber = 7
    dataset.Rows = 512
    dataset.AccessionNumber = ""
    dataset.ReferencedImageSequence = [pydicom.Dataset()]
    with pydicom.filebase.DicomBytesIO() as stream:
        stream.is_little_endian = transfer_syntax != EXPLICIT_BIG_ENDIAN
        stream.is_implicit_VR = transfer_syntax == IMPLICIT_LITTLE_ENDIAN
        pydicom.filewriter.write_dataset(stream, dataset)
        data = stream.getvalue()
    assert read_header_bytes(data, transfer_syntax, ROUTING_KEYWORDS) == {
        "SpecificCharacterSet": ("ISO_IR 192",),
        "ImageType": ("DERIVED", "", "AXIAL"),
        "StudyDescription": ("Schädel",),
        "ImagePositionPatient": (-1.5, 0.0, 0.001),
        "InstanceNumber": (7,),
        "Rows": (512,),
    }


@pytest.mark.parametrize("text", [b"1,5 ", b"1e999 ", b"nan ", b"1_0 "])
def test_a_decimal_string_that_is_no_number_is_kept_as_text(text: bytes) -> None:
    data = explicit(0x00180050, b"DS", text)
    assert read_header_bytes(data, EXPLICIT_LITTLE_ENDIAN, ["SliceThickness"]) == {
        "SliceThickness": (text.decode().strip(),)
    }


def test_undecodable_text_becomes_replacement_characters_without_a_warning() -> None:
    data = explicit(0x00080005, b"CS", b"ISO_IR 192") + explicit(0x00081030, b"LO", b"A\xff\xfeB")
    assert read_header_bytes(data, EXPLICIT_LITTLE_ENDIAN, ["StudyDescription"]) == {
        "StudyDescription": ("A\ufffd\ufffdB",)
    }


@pytest.mark.parametrize("depth", [65, 5000])
def test_deep_nesting_of_undefined_length_is_refused(depth: int) -> None:
    data = (explicit(0x00081110, b"SQ", b"", UNDEFINED) + item(UNDEFINED)) * depth
    with pytest.raises(MalformedHeader, match="nested"):
        read_header_bytes(data, EXPLICIT_LITTLE_ENDIAN, ["PatientID"])


def test_deep_nesting_of_defined_length_is_passed_over() -> None:
    nested = b""
    for _ in range(5000):
        inner = item(len(nested)) + nested
        nested = explicit(0x00081110, b"SQ", inner)
    data = nested + explicit(0x00100020, b"LO", b"P1")
    assert read_header_bytes(data, EXPLICIT_LITTLE_ENDIAN, ["PatientID"]) == {"PatientID": ("P1",)}


def test_nested_elements_are_never_mistaken_for_top_level_ones() -> None:
    inner = explicit(0x00100020, b"LO", b"NO")
    undefined = item(UNDEFINED) + inner + item(tag=0xE00D) + item(len(inner)) + inner + item(tag=0xE0DD)
    data = explicit(0x00081110, b"SQ", undefined, UNDEFINED) + explicit(0x00100020, b"LO", b"P1")
    assert read_header_bytes(data, EXPLICIT_LITTLE_ENDIAN, ["PatientID"]) == {"PatientID": ("P1",)}


def test_a_sequence_of_unknown_vr_holds_implicit_elements() -> None:
    inner = struct.pack("<HHI", 0x0010, 0x0020, 2) + b"NO"
    unknown = item(UNDEFINED) + inner + item(tag=0xE00D) + item(tag=0xE0DD)
    data = explicit(0x00091001, b"UN", unknown, UNDEFINED) + explicit(0x00100020, b"LO", b"P1")
    assert read_header_bytes(data, EXPLICIT_LITTLE_ENDIAN, ["PatientID"]) == {"PatientID": ("P1",)}


def test_a_million_empty_items_are_refused_within_a_second() -> None:
    data = explicit(0x00081110, b"SQ", b"", UNDEFINED) + item() * 1_000_000
    start = time.process_time()
    with pytest.raises(MalformedHeader, match="too many"):
        read_header_bytes(data, EXPLICIT_LITTLE_ENDIAN, ["PatientID"])
    assert time.process_time() - start < 1


@pytest.mark.parametrize("vr", [b"SQ", b"UN"])
def test_a_million_empty_items_of_a_sequence_with_a_length_are_refused(vr: bytes) -> None:
    """S10: a length of its own does not hide how many items a sequence holds."""
    items = item() * 1_000_000
    with pytest.raises(MalformedHeader, match="too many"):
        require_whole(explicit(0x00081110, vr, items), EXPLICIT_LITTLE_ENDIAN)
    inner = struct.pack("<HHI", 0x0008, 0x1140, len(items)) + items if vr == b"UN" else explicit(0x81140, vr, items)
    with pytest.raises(MalformedHeader, match="too many"):
        require_whole(explicit(0x00081110, vr, item(len(inner)) + inner), EXPLICIT_LITTLE_ENDIAN)


@pytest.mark.parametrize("items", [item(100) + bytes(100), item(UNDEFINED) + item(tag=0xE00D)])
def test_a_long_sequence_of_few_items_is_whole(items: bytes) -> None:
    """S10: items are counted, bytes are not; what follows the sequence is read."""
    limits, behind = HeaderLimits(elements=50), explicit(0x00100020, b"LO", b"P1")
    long = explicit(0x00081110, b"SQ", items * 5 + item(4012) + explicit(0x00091001, b"OB", bytes(4000)))
    assert read_header_bytes(long + behind, EXPLICIT_LITTLE_ENDIAN, ["PatientID"], limits=limits) == {
        "PatientID": ("P1",)
    }
    require_whole(fragments(16, 4000), EXPLICIT_LITTLE_ENDIAN, limits=limits)
    opaque = explicit(0x00091001, b"OB", item() * 500)
    require_whole(opaque + behind, EXPLICIT_LITTLE_ENDIAN, limits=limits)


@pytest.mark.parametrize("letters", [b"DA", b"DS", b"DT", b"FD", b"FL", b"LO", b"LT", b"PN", b"TM"])
def test_the_length_of_an_item_is_not_taken_for_a_vr(letters: bytes) -> None:
    """R1: a sound compressed image is not refused because its fragment has a length that reads as a VR."""
    length = int.from_bytes(letters, "little")
    for size in (length, length + 65536):
        require_whole(fragments(size), EXPLICIT_LITTLE_ENDIAN)
    nested = explicit(0x00081140, b"SQ", item(UNDEFINED) + item(tag=0xE00D) + item(tag=0xE0DD), UNDEFINED)
    padded = nested + explicit(0x00091001, b"OB", bytes(length - len(nested) - 12))
    data = explicit(0x00081110, b"SQ", item(length) + padded + item(tag=0xE0DD), UNDEFINED)
    data += explicit(0x00100020, b"LO", b"P1")
    assert read_header_bytes(data, EXPLICIT_LITTLE_ENDIAN, ["PatientID"]) == {"PatientID": ("P1",)}


def test_a_million_empty_elements_are_refused() -> None:
    data = explicit(0x00080050, b"SH", b"") * 1_000_000
    with pytest.raises(MalformedHeader, match="too many"):
        read_header_bytes(data, EXPLICIT_LITTLE_ENDIAN, ["PatientID"])


@pytest.mark.parametrize("length", [6, 0xFFF0])
def test_a_length_beyond_the_end_is_refused(length: int) -> None:
    data = explicit(0x00100020, b"LO", b"1234", length)
    with pytest.raises(MalformedHeader, match="beyond the end"):
        read_header_bytes(data, EXPLICIT_LITTLE_ENDIAN, ["PatientID"])


def test_an_unwanted_value_beyond_the_end_is_refused_too(tmp_path: Path) -> None:
    path = tmp_path / "short"
    path.write_bytes(explicit(0x00080060, b"CS", b"CT") + explicit(0x00091001, b"OB", b"0123456789", 0xFFFFFFF0))
    with pytest.raises(MalformedHeader, match="beyond the end"):
        read_header(path, ["PatientID"])


def test_values_longer_than_the_limit_are_passed_over() -> None:
    data = explicit(0x00081030, b"LO", b"A" * 5000) + explicit(0x00100020, b"LO", b"P1")
    wanted = ["StudyDescription", "PatientID"]
    assert read_header_bytes(data, EXPLICIT_LITTLE_ENDIAN, wanted) == {"PatientID": ("P1",)}
    wide = read_header_bytes(data, EXPLICIT_LITTLE_ENDIAN, wanted, limits=HeaderLimits(value_bytes=6000))
    assert wide["StudyDescription"] == ("A" * 5000,)


def deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def test_a_deflated_header_is_inflated_only_up_to_its_limit() -> None:
    bomb = explicit(0x00091001, b"OB", b"\0" * 40_000_000) + explicit(0x00100020, b"LO", b"P1")
    packed = deflate(bomb)
    assert len(packed) < 100_000
    with pytest.raises(MalformedHeader, match="inflates beyond"):
        read_header_bytes(packed, DEFLATED, ["PatientID"])


def test_a_deflated_header_below_the_limit_is_read() -> None:
    data = explicit(0x00091001, b"OB", os.urandom(100_000)) + explicit(0x00100020, b"LO", b"P1")
    assert read_header_bytes(deflate(data), DEFLATED, ["PatientID"]) == {"PatientID": ("P1",)}
    with pytest.raises(MalformedHeader, match="beyond the end"):
        read_header_bytes(deflate(data)[:50_000], DEFLATED, ["PatientID"])
    with pytest.raises(MalformedHeader, match="damaged"):
        read_header_bytes(b"\xff" * 1000, DEFLATED, ["PatientID"])


def test_long_values_before_a_wanted_one_are_not_read_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "long.dcm"
    head, size = explicit(0x00080060, b"CS", b"CT"), 3 * 2**30
    with path.open("wb") as stream:
        stream.write(head + explicit(0x00091001, b"OB", b"", size))
        stream.seek(size, os.SEEK_CUR)
        stream.write(explicit(0x00100020, b"LO", b"P1"))
    assert read_header(path, ["PatientID", "Modality"]) == {"Modality": ("CT",), "PatientID": ("P1",)}


def test_files_that_are_not_dicom_and_special_files_are_refused(tmp_path: Path) -> None:
    for index, data in enumerate((b"", b"MZ" * 100, b"\x89PNG\r\n\x1a\n" + b"\0" * 200, b"{}", b"\0" * 132)):
        path = tmp_path / str(index)
        path.write_bytes(data)
        with pytest.raises(MalformedHeader):
            read_header(path, ["PatientID"])
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path):
        with pytest.raises((MalformedHeader, IsADirectoryError)):
            read_header(path, ["PatientID"])


def test_an_unknown_keyword_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match="not a DICOM keyword"):
        read_header_bytes(b"", EXPLICIT_LITTLE_ENDIAN, ["PatientIdentifier"])


def fragments(*lengths: int, closed: bool = True) -> bytes:
    """Encapsulated Pixel Data (PS3.5 A.4) with fragments of zeros."""
    begin = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, UNDEFINED) + item()
    body = b"".join(item(length) + bytes(length) for length in lengths)
    return begin + body + (item(tag=0xE0DD) if closed else b"")


def test_every_file_of_the_pydicom_wheel_that_is_whole_is_found_whole() -> None:
    cut = set()
    for path in bundled_files():
        data = path.read_bytes()
        try:
            syntax, offset = part10_offset(data)
            read_header_bytes(data[offset:], syntax, ROUTING_KEYWORDS)
        except MalformedHeader:
            continue
        try:
            require_whole(memoryview(data)[offset:], syntax)
        except MalformedHeader:
            cut.add(path.name)
    assert cut <= {"rtplan_truncated.dcm", "MR_truncated.dcm"}


@pytest.mark.parametrize(
    "pixels",
    [
        explicit(0x7FE00010, b"OW", bytes(64), 66),
        explicit(0x7FE00010, b"OW", bytes(64), 0xFFFFFFFE),
        fragments(16, 16)[:-20],
        fragments(16, closed=False),
        fragments()[:-8] + item(0xFFFFFFFE) + bytes(32) + item(tag=0xE0DD),
    ],
    ids=["two bytes short", "four gigabytes", "cut fragment", "not closed", "fragment beyond the end"],
)
def test_pixel_data_beyond_the_end_of_the_data_set_are_refused(pixels: bytes) -> None:
    data = explicit(0x00080060, b"CS", b"CT") + pixels
    assert read_header_bytes(data, EXPLICIT_LITTLE_ENDIAN, ["Modality"]) == {"Modality": ("CT",)}
    with pytest.raises(MalformedHeader):
        require_whole(data, EXPLICIT_LITTLE_ENDIAN)


@pytest.mark.parametrize(
    "pixels", [explicit(0x7FE00010, b"OW", bytes(64)), fragments(16, 2, 0)], ids=["native", "encapsulated"]
)
@pytest.mark.parametrize("behind", [b"", bytes(3), explicit(0xFFFCFFFC, b"OB", bytes(10))])
def test_whole_data_sets_with_or_without_padding_behind_are_whole(pixels: bytes, behind: bytes) -> None:
    require_whole(explicit(0x00080060, b"CS", b"CT") + pixels + behind, EXPLICIT_LITTLE_ENDIAN)


def test_more_fragments_than_the_limit_are_refused() -> None:
    with pytest.raises(MalformedHeader, match="too many"):
        require_whole(fragments(*[0] * 50), EXPLICIT_LITTLE_ENDIAN, limits=HeaderLimits(elements=40))
