"""Broken files of every kind through a running node: each ends in an outcome, and the node does not care."""

from __future__ import annotations

import io
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, JPEGBaseline8Bit, RLELossless

from dicomnode.demo.phantoms import make_ct_head
from tests.raw_scu import RawAssociation
from tests.robustness.corpus import Sample, TooMuch, gather
from tests.robustness.objects import attempts, distinct, self_named
from tests.robustness.run import (
    CONFLICT,
    MISMATCH,
    Fate,
    HonestPeer,
    Rows,
    judge,
    look,
    running_node,
    send_all,
    wait_finished,
)
from tests.robustness.table import by_category

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]
WAIT_S = 300.0
PIXELS = b"\xe0\x7f\x10\x00OW\0\0"


def whole() -> FileDataset:
    """A small CT slice that any detector could look at."""
    dataset = make_ct_head(seed=5).datasets[0]
    dataset.Rows = dataset.Columns = 64
    dataset.PixelData = bytes(range(256)) * 32
    return dataset


def encode(dataset: FileDataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def with_values(**values: object) -> bytes:
    dataset = whole()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return encode(dataset)


def raw(replace: bytes, by: bytes, *, count: int = 1) -> bytes:
    """The whole file with bytes replaced."""
    content = encode(whole())
    assert replace in content
    return content.replace(replace, by, count)


def before_pixels(extra: bytes, pixels: bytes | None = None) -> bytes:
    """The whole file with ``extra`` elements in front of Pixel Data, and other bytes for Pixel Data."""
    head, mark, tail = encode(whole()).rpartition(PIXELS)
    return head + extra + (mark + tail if pixels is None else pixels)


def with_syntax(syntax: str, pixels: bytes) -> bytes:
    """The whole file under another transfer syntax, which its data set does not follow unless ``pixels`` do."""
    dataset = whole()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.PixelData = b""
    dataset["PixelData"].VR = "OW"
    meta = dataset.file_meta.TransferSyntaxUID
    assert meta == syntax
    content = encode(whole())
    short = content.replace(b"1.2.840.10008.1.2.1\0", syntax.encode().ljust(20 if len(syntax) < 21 else 22, b"\0"), 1)
    if len(syntax) > 20:  # Transfer Syntax UID and group length grow by two bytes
        at = short.index(syntax.encode())
        short = short[: at - 2] + struct.pack("<H", 22) + short[at:]
        short = short[:140] + struct.pack("<I", struct.unpack("<I", short[140:144])[0] + 2) + short[144:]
    head, _, _ = short.rpartition(PIXELS)
    return head + pixels
