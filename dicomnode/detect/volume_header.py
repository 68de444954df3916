"""Bounded reading of headers, and values out of them that never raise."""

from __future__ import annotations

import math
import zlib
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.filereader import read_file_meta_info
from pydicom.multival import MultiValue
from pydicom.uid import DeflatedExplicitVRLittleEndian

from dicomnode.detect.volume_terms import MALFORMED, Limits, NotAnalysable
from dicomnode.errors import Transient

_PREAMBLE_AND_GROUP_LENGTH = 128 + 4 + 12
_CHUNK = 1 << 20


def read_header(path: Path, limits: Limits) -> Dataset:
    """Read the Data Set up to, and without, its pixel data (PS3.10 section 7).

    Raises NotAnalysable for a file that is too large or not readable, Transient when the file system fails.
    """
    return _read(path, limits, stop_before_pixels=True)


def read_whole(path: Path, limits: Limits) -> Dataset:
    """Read the Data Set with its pixel data, undecoded. Raises as ``read_header`` does."""
    return _read(path, limits, stop_before_pixels=False)


def _read(path: Path, limits: Limits, *, stop_before_pixels: bool) -> Dataset:
    try:
        if path.stat().st_size > limits.max_file_bytes:
            raise NotAnalysable(f"a file is larger than {limits.max_file_bytes} bytes")
        _refuse_deflate_bomb(path, limits)
        return dcmread(path, stop_before_pixels=stop_before_pixels)
    except (OSError, *MALFORMED) as error:
        if isinstance(error, OSError) and error.errno is not None:  # pydicom raises OSError for bad content, too
            raise Transient(f"a source file cannot be read: {type(error).__name__}") from error
        raise NotAnalysable(f"a file is not readable DICOM ({type(error).__name__})") from error


def _refuse_deflate_bomb(path: Path, limits: Limits) -> None:
    """Inflate a deflated Data Set (PS3.5 A.5) once without keeping it, to learn its size."""
    meta = read_file_meta_info(path)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    total = 0
    with path.open("rb") as file:
        file.seek(_PREAMBLE_AND_GROUP_LENGTH + int(meta.FileMetaInformationGroupLength))
        while not inflater.eof and (data := inflater.unconsumed_tail or file.read(_CHUNK)):
            total += len(inflater.decompress(data, _CHUNK))
            if total > limits.max_file_bytes:
                raise NotAnalysable(f"a deflated file holds more than {limits.max_file_bytes} bytes")


def values(dataset: Dataset, keyword: str) -> tuple[object, ...]:
    """The values of an element, empty when it is absent, empty or malformed."""
    try:
        value = dataset.get(keyword)
    except MALFORMED:
        return ()
    if value is None or value == "":
        return ()
    return tuple(value) if isinstance(value, (MultiValue, list, tuple)) else (value,)


def text(dataset: Dataset, keyword: str) -> str:
    """The first value as text, upper case and stripped; empty when there is none."""
    found = values(dataset, keyword)
    return str(found[0]).strip().upper() if found else ""


def numbers(dataset: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """Exactly ``count`` finite numbers, or None."""
    found = values(dataset, keyword)
    if len(found) != count:
        return None
    try:
        result = tuple(float(value) for value in found)  # type: ignore[arg-type]
    except MALFORMED:
        return None
    return result if all(map(math.isfinite, result)) else None


def number(dataset: Dataset, keyword: str) -> float | None:
    """The first value as a finite number, or None."""
    found = values(dataset, keyword)[:1]
    try:
        result = float(found[0])  # type: ignore[arg-type]
    except MALFORMED:
        return None
    return result if math.isfinite(result) else None


def integer(dataset: Dataset, keyword: str) -> int | None:
    """The first value as an integer, or None (also for a number that is not whole)."""
    found = number(dataset, keyword)
    return int(found) if found is not None and found == int(found) else None


def items(dataset: Dataset, keyword: str) -> tuple[Dataset, ...]:
    """The items of a sequence, empty when it is absent or malformed."""
    try:
        sequence = dataset.get(keyword)
        return tuple(item for item in sequence or () if isinstance(item, Dataset))
    except MALFORMED:
        return ()
