"""Whatever the bytes are, the header reader answers or raises MalformedHeader, soon."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pydicom
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicomnode.dicom.header import ROUTING_KEYWORDS, MalformedHeader, part10_offset, read_header, read_header_bytes
from dicomnode.dicom.transfer_syntaxes import EXPLICIT_BIG_ENDIAN, EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN

FOLDER = Path(pydicom.__file__).parent / "data" / "test_files"
SEEDS = [(FOLDER / name).read_bytes()[:9000] for name in ("CT_small.dcm", "rtplan.dcm", "MR_small_bigendian.dcm")]
SYNTAXES = st.sampled_from(
    [EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN, EXPLICIT_BIG_ENDIAN, "1.2.840.10008.1.2.1.99"]
)
EDIT = st.tuples(st.integers(0, 8999), st.binary(min_size=1, max_size=8))


def assert_plain(header: dict[str, tuple[object, ...]]) -> None:
    for values in header.values():
        assert values
        assert all(type(value) in (str, int, float) for value in values)


@settings(max_examples=300, deadline=2000)
@given(st.binary(max_size=4000), SYNTAXES)
def test_random_bytes_are_answered_or_refused(data: bytes, transfer_syntax: str) -> None:
    with contextlib.suppress(MalformedHeader):
        assert_plain(read_header_bytes(data, transfer_syntax, ROUTING_KEYWORDS))


@settings(max_examples=300, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(SEEDS), st.lists(EDIT, max_size=12), st.integers(0, 9000))
def test_damaged_files_are_answered_or_refused(tmp_path: Path, seed: bytes, edits: list, length: int) -> None:
    data = bytearray(seed)
    for offset, patch in edits:
        data[offset : offset + len(patch)] = patch
    path = tmp_path / "damaged.dcm"
    path.write_bytes(data[:length])
    with contextlib.suppress(MalformedHeader):
        assert_plain(read_header(path, ROUTING_KEYWORDS))
    with contextlib.suppress(MalformedHeader):
        assert part10_offset(bytes(data[:length]))[1] >= 0
