"""S10, S11: whatever the bytes of a file are, reading ends in a Volume or in a reason."""

from __future__ import annotations

import contextlib
import struct
import warnings
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import CTImageStorage

from dicomnode.detect.header_plain import ELEMENT, ITEM, NotPlain, PlainLimits, dataset_of
from dicomnode.detect.volume import Limits, NotAnalysable, SourceFile, arrange
from dicomnode.dicom.references import InstanceReference
from tests.bombs import file_of
from tests.integration.detect_fixtures import ct_slice

LIMITS = Limits(max_file_bytes=1 << 20, max_instance_bytes=1 << 20, max_inflated_bytes=1 << 20)
HARD = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@cache
def image() -> bytes:
    return file_of(ct_slice(1))


def read(path: Path, content: bytes) -> None:
    """Read as the child does; anything but a reason is a defect."""
    path.write_bytes(content)
    source = SourceFile(InstanceReference("1.2", "1.3", CTImageStorage, "1.4"), path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(NotAnalysable):
            arranged = arrange([source], LIMITS)
            for places in arranged.by_file():
                list(arranged.decoded(places))


changes = st.lists(st.tuples(st.integers(132, 1400), st.binary(min_size=1, max_size=6)), min_size=1, max_size=4)


@HARD
@given(changes=changes, cut=st.integers(0, 3000))
def test_a_damaged_image_is_read_or_refused(tmp_path: Path, changes: list[tuple[int, bytes]], cut: int) -> None:
    """S10, S11: bytes overwritten in the header, the end cut off."""
    content = bytearray(image())
    for at, value in changes:
        content[at : at + len(value)] = value
    read(tmp_path / "image.dcm", bytes(content[: len(content) - cut]))


@HARD
@given(tail=st.binary(max_size=300))
def test_any_data_set_is_read_or_refused(tmp_path: Path, tail: bytes) -> None:
    """S10: no order of tags, lengths and delimiters makes the walk raise or run on."""
    read(tmp_path / "any.dcm", image()[: image().index(b"\x08\x00\x08\x00CS")] + tail)


def sequence(parts: list[bytes]) -> bytes:
    item = b"".join(parts)
    return ELEMENT.pack(0x0040, 0xA730, b"SQ", len(item) + 4) + ITEM.pack(len(item)) + item


elements = st.recursive(
    st.builds(
        lambda group, number, vr, value: ELEMENT.pack(group, number, vr, len(value)) + value,
        st.sampled_from([0x0008, 0x0010, 0x0028, 0x0040]),
        st.integers(0, 0xFFFF),
        st.sampled_from([b"LO", b"US", b"DS", b"UN", b"\0\0", b"PN"]),
        st.binary(max_size=12),
    ),
    lambda inner: st.lists(inner, max_size=4).map(sequence),
    max_leaves=12,
)


@HARD
@given(parts=st.lists(elements, max_size=6), noise=st.binary(max_size=8), at=st.integers(0, 60))
def test_a_header_that_a_child_sends_is_taken_or_refused(parts: list[bytes], noise: bytes, at: int) -> None:
    """S10: the parent trusts no length that a child states."""
    plain = bytearray(b"".join(parts))
    plain[at : at + len(noise)] = noise
    limits = PlainLimits(elements=40, items=10, depth=3)
    try:
        dataset = dataset_of(bytes(plain), "1.2.840.10008.1.2.1", limits)
    except NotPlain:
        return
    assert sum(1 for _ in dataset.keys()) <= 40  # noqa: SIM118 - a Dataset's iterator would convert values


@pytest.mark.parametrize(
    "plain",
    [
        ELEMENT.pack(0x0040, 0xA730, b"UN", 8) + struct.pack("<HHI", 0xFFFE, 0xE000, 0),
        ELEMENT.pack(0x0040, 0xA730, b"\0\0", 8) + bytes(8),
        ELEMENT.pack(0x0010, 0x0010, b"PN", 100),
        ELEMENT.pack(0x0010, 0x0010, b"XX", 0),
        ELEMENT.pack(0x0040, 0xA730, b"SQ", 8) + ITEM.pack(100) + bytes(4),
        b"\x10\x00",
    ],
    ids=["sequence as UN", "sequence without VR", "beyond the end", "unknown VR", "item beyond the end", "cut"],
)
def test_what_pydicom_would_parse_by_itself_is_refused(plain: bytes) -> None:
    """S10: no encoded sequence gets past the bounds by being called something else."""
    with pytest.raises(NotPlain):
        dataset_of(plain, "", PlainLimits())
