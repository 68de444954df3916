"""What goes into and comes out of volume building: source files, limits, the loaded volume, the refusal."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError

from dicomnode.detectors.contract import Volume
from dicomnode.dicom.references import InstanceReference
from dicomnode.errors import Permanent

MALFORMED = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BufferError,
    BytesLengthException,
    EOFError,
    InvalidDicomError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What pydicom and the codecs raise for malformed input (no common base class exists)."""

_MIB = 1024 * 1024


class NotAnalysable(Permanent):
    """The series cannot be analysed. ``reason`` completes "not analysed, because …" and holds no patient data."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds against hostile or broken input, checked before memory is taken.

    ``max_file_bytes``: size of a file. ``max_inflated_bytes``: of a Data Set that came deflated (PS3.5 A.5).
    ``max_instance_bytes``: Rows x Columns x Number of Frames x bytes of a sample, of one Instance.
    ``max_series_bytes``: the planes of the Volume as float32 (2 GiB hold 2048 planes of 512 x 512).
    ``max_planes``: planes of the Volume, and frames of one Instance.
    """

    max_file_bytes: int = 1024 * _MIB
    max_instance_bytes: int = 512 * _MIB
    max_series_bytes: int = 2048 * _MIB
    max_planes: int = 10_000
    max_inflated_bytes: int = 512 * _MIB


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A Source Instance and the file that holds it (PS3.10)."""

    reference: InstanceReference
    path: Path


@dataclass(frozen=True, slots=True, eq=False)
class LoadedVolume:
    """A Volume with the headers that ``report`` copies from.

    ``headers[i]`` is the Data Set, without pixel data, of the Source Instance of ``volume.planes[i]``; the frames
    of a multi-frame Instance share one object.
    """

    volume: Volume
    headers: tuple[Dataset, ...]
