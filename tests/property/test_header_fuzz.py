"""Whatever the bytes are, the header reader answers or raises MalformedHeader, soon."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicomnode.dicom.header import (
    ROUTING_KEYWORDS,
    Begun,
    MalformedHeader,
    begin_whole,
    part10_offset,
    read_header,
    read_header_bytes,
    read_whole,
)
from dicomnode.dicom.header_source import MemorySource
from dicomnode.dicom.transfer_syntaxes import EXPLICIT_BIG_ENDIAN, EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN
from tests.fuzz.target import bounded

SOON_S = 2.0
"""Of computing time: a busy machine is no fault of the reader."""
FOLDER = Path(pydicom.__file__).parent / "data" / "test_files"
SEEDS = [(FOLDER / name).read_bytes()[:9000] for name in ("CT_small.dcm", "rtplan.dcm", "MR_small_bigendian.dcm")]
SYNTAXES = st.sampled_from(
    [EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN, EXPLICIT_BIG_ENDIAN, "1.2.840.10008.1.2.1.99"]
)
BARE = [
    (data[part10_offset(data)[1] :], part10_offset(data)[0])
    for data in ((FOLDER / name).read_bytes() for name in ("CT_small.dcm", "MR_small.dcm", "MR_small_bigendian.dcm"))
]
"""Data sets with Pixel Data, and their Transfer Syntax UIDs."""
EDIT = st.tuples(st.integers(0, 8999), st.binary(min_size=1, max_size=8))


def assert_plain(header: dict[str, tuple[object, ...]]) -> None:
    for values in header.values():
        assert values
        assert all(type(value) in (str, int, float) for value in values)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=4000), SYNTAXES)
def test_random_bytes_are_answered_or_refused(data: bytes, transfer_syntax: str) -> None:
    with bounded(SOON_S), contextlib.suppress(MalformedHeader):
        assert_plain(read_header_bytes(data, transfer_syntax, ROUTING_KEYWORDS))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(SEEDS), st.lists(EDIT, max_size=12), st.integers(0, 9000))
def test_damaged_files_are_answered_or_refused(tmp_path: Path, seed: bytes, edits: list, length: int) -> None:
    data = bytearray(seed)
    for offset, patch in edits:
        data[offset : offset + len(patch)] = patch
    path = tmp_path / "damaged.dcm"
    path.write_bytes(data[:length])
    with bounded(SOON_S), contextlib.suppress(MalformedHeader):
        assert_plain(read_header(path, ROUTING_KEYWORDS))
    with bounded(SOON_S), contextlib.suppress(MalformedHeader):
        assert part10_offset(bytes(data[:length]))[1] >= 0


def _answered(data: bytes, transfer_syntax: str, begun: Begun | None) -> dict[str, tuple[object, ...]] | str:
    source = MemorySource(b"head" + data)
    try:
        return read_whole(source, 4, transfer_syntax, ROUTING_KEYWORDS, inflated_bytes=100_000, begun=begun)
    except MalformedHeader as error:
        return str(error)


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(BARE),
    st.lists(EDIT, max_size=6),
    st.integers(0, 9000),
    st.integers(0, 60_000),
    st.binary(max_size=40),
)
def test_a_header_that_is_read_while_the_data_set_comes_is_the_one_that_is_read_at_its_end(
    seed: tuple[bytes, str], edits: list, there: int, length: int, behind: bytes
) -> None:
    """S10, R1: with a part of it read before, a data set is answered, or refused for the same reason, as in one go."""
    bare, transfer_syntax = seed
    data = bytearray(bare[:length])
    for offset, patch in edits:
        data[offset : offset + len(patch)] = patch
    whole = bytes(data) + behind
    with bounded(SOON_S):
        begun = begin_whole(MemorySource(b"head" + whole[:there]), 4, transfer_syntax, ROUTING_KEYWORDS)
        assert _answered(whole, transfer_syntax, begun) == _answered(whole, transfer_syntax, None)


@pytest.mark.parametrize(("bare", "transfer_syntax"), BARE)
def test_a_header_is_read_before_pixel_data_are_there(bare: bytes, transfer_syntax: str) -> None:
    """What is there when Pixel Data begin is enough, and nothing less; what comes behind them is still walked."""
    ends = range(0, len(bare), 64)
    found = [begin_whole(MemorySource(bare[:end]), 0, transfer_syntax, ROUTING_KEYWORDS) for end in ends]
    first = next(one for one in found if one is not None)
    assert first.header == read_header_bytes(bare, transfer_syntax, ROUTING_KEYWORDS)
    assert first.position < len(bare) - 1000
    with pytest.raises(MalformedHeader):
        read_whole(MemorySource(bare[:-1]), 0, transfer_syntax, ROUTING_KEYWORDS, inflated_bytes=100_000, begun=first)
    late = struct.pack("<HH2sHI" if transfer_syntax != EXPLICIT_BIG_ENDIAN else ">HH2sHI", 0x7FE1, 0x10, b"OB", 0, 99)
    with pytest.raises(MalformedHeader):
        read_whole(MemorySource(bare + late), 0, transfer_syntax, ROUTING_KEYWORDS, inflated_bytes=100_000, begun=first)
