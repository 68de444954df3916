"""Bounded header reading of untrusted data sets: iterative, with caps, never deeper than the top level.

The scanner walks the elements of PS3.5 section 7.1 up to the highest wanted tag, passes over sequences and
long values by seeking, and never recurses. Time and memory are bounded by ``HeaderLimits`` whatever the bytes are.
"""

from __future__ import annotations

import functools
import io
import os
import stat
import struct
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from pydicom.datadict import dictionary_VR, tag_for_keyword

from dicomnode.dicom.encoding import ANY_VR, ITEM_BEGIN, ITEM_END, LONG_VR, SEQUENCE_END, SHORT_VR, UNDEFINED_LENGTH
from dicomnode.dicom.header_source import FileSource, InflatingSource, MalformedHeader, MemorySource
from dicomnode.dicom.header_values import DEFAULT_ENCODINGS, decode_value, encodings_of
from dicomnode.dicom.summary import Value
from dicomnode.dicom.transfer_syntaxes import (
    DEFLATED,
    EXPLICIT_BIG_ENDIAN,
    EXPLICIT_LITTLE_ENDIAN,
    IMPLICIT_LITTLE_ENDIAN,
)

__all__ = [
    "ROUTING_KEYWORDS",
    "Begun",
    "HeaderLimits",
    "MalformedHeader",
    "begin_whole",
    "part10_offset",
    "read_header",
    "read_header_bytes",
    "read_whole",
    "require_whole",
]

# fmt: off
ROUTING_KEYWORDS: frozenset[str] = frozenset({
    # patient, study
    "SpecificCharacterSet", "PatientID", "PatientSex", "PatientAge", "StudyInstanceUID", "StudyDate", "StudyTime",
    "AccessionNumber", "StudyID", "StudyDescription", "RequestedProcedureID", "PerformedProcedureStepID",
    "RequestedProcedurePriority",
    # series
    "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "SeriesDate", "SeriesTime", "Modality", "ProtocolName",
    "BodyPartExamined", "ViewPosition", "Laterality", "ImageLaterality", "PatientPosition", "PatientOrientation",
    "PresentationIntentType", "FrameOfReferenceUID", "PerformedProcedureStepDescription",
    # equipment
    "Manufacturer", "ManufacturerModelName", "StationName", "InstitutionName", "SoftwareVersions",
    "DeviceSerialNumber", "ConversionType",
    # instance
    "SOPClassUID", "SOPInstanceUID", "ImageType", "InstanceNumber", "AcquisitionNumber", "AcquisitionDate",
    "AcquisitionTime", "ContentDate", "ContentTime", "NumberOfFrames", "ImagesInAcquisition", "NumberOfSlices",
    "LossyImageCompression", "BurnedInAnnotation", "QualityControlImage",
    # geometry
    "ImagePositionPatient", "ImageOrientationPatient", "SliceThickness", "SpacingBetweenSlices", "SliceLocation",
    "PixelSpacing", "ImagerPixelSpacing", "GantryDetectorTilt", "ReconstructionDiameter",
    # pixels
    "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored",
    "PixelRepresentation", "RescaleSlope", "RescaleIntercept", "RescaleType", "WindowCenter", "WindowWidth",
    # acquisition
    "KVP", "ConvolutionKernel", "ContrastBolusAgent", "ScanOptions", "MagneticFieldStrength", "SequenceName",
    "PulseSequenceName",
    "ScanningSequence", "SequenceVariant", "MRAcquisitionType", "EchoTime", "RepetitionTime", "InversionTime",
    "FlipAngle", "EchoNumbers", "DiffusionBValue", "TemporalPositionIdentifier", "NumberOfTemporalPositions",
    "TemporalPositionIndex",
})
# fmt: on
"""What the node keeps of every Instance, for routing, assembly and status."""

_CHARACTER_SET = 0x00080005
_EMPTY_ITEMS = struct.pack("<HHI", ITEM_BEGIN >> 16, ITEM_BEGIN & 0xFFFF, 0) * 512
_MAY_HOLD_ITEMS = frozenset({b"SQ", b"UN", b""})
_VR_TEXT = {vr: vr.decode("ascii") for vr in ANY_VR if vr != b"UN"}
_LAST_TAG = 0x7FE0000F
_PREAMBLE_BYTES = 128


@dataclass(frozen=True, slots=True)
class HeaderLimits:
    """Caps of one header. Longer values (bytes) are passed over; the other caps raise MalformedHeader.

    ``depth``: nesting of sequences of undefined length. ``elements``: elements and items, nested ones included; of a
    sequence of defined length only when it is long enough to hold more.
    ``inflated_bytes``: of a deflated data set.
    """

    value_bytes: int = 4096
    elements: int = 200_000
    depth: int = 64
    inflated_bytes: int = 16 * 2**20


_LIMITS = HeaderLimits()
_WHOLE_LIMITS = HeaderLimits(elements=1_000_000)
_Element = tuple[int, bytes, int, int]
_ReadElement = Callable[[bytes | memoryview, int], _Element]


class _Wanted(NamedTuple):
    elements: dict[int, tuple[str, str]]
    last_tag: int


_EVERYTHING = _Wanted({}, 0xFFFFFFFF)


@dataclass(frozen=True, slots=True)
class Begun:
    """A data set of which the elements before Pixel Data have been read. ``position``: where to go on, ``elements``:
    how many more it may have."""

    found: dict[int, tuple[bytes, bytes]]
    header: dict[str, tuple[Value, ...]]
    position: int
    elements: int
    read_element: _ReadElement


def read_header(
    path: Path, keywords: Collection[str], *, limits: HeaderLimits = _LIMITS
) -> dict[str, tuple[Value, ...]]:
    """Read the wanted top-level elements of a DICOM file, with or without preamble and file meta (PS3.10 7.1).

    Keywords of group 0002 (``TransferSyntaxUID``) are answered too. Absent and empty elements have no entry; a
    multi-valued element keeps its values in order. Raises MalformedHeader when the file is no readable DICOM file,
    OSError when it cannot be opened, ValueError for an unknown keyword.
    """
    wanted = _wanted(frozenset(keywords))
    with _open_regular(path) as stream:
        source = FileSource(stream)
        transfer_syntax, offset, header = _read_meta(source, wanted, limits)
        header.update(_read(source, offset, transfer_syntax, wanted, limits))
    return header


def read_header_bytes(
    data: bytes | memoryview,
    transfer_syntax_uid: str,
    keywords: Collection[str],
    *,
    limits: HeaderLimits = _LIMITS,
) -> dict[str, tuple[Value, ...]]:
    """Read the wanted top-level elements of a bare data set, as C-STORE transfers it (PS3.7 9.1.1).

    Any encapsulated transfer syntax has an Explicit VR Little Endian header (PS3.5 A.4). Raises MalformedHeader,
    and ValueError for an unknown keyword.
    """
    return _read(MemorySource(data), 0, transfer_syntax_uid, _wanted(frozenset(keywords)), limits)


def begin_whole(source: MemorySource, offset: int, transfer_syntax_uid: str, keywords: Collection[str]) -> Begun | None:
    """Read what ``read_whole`` reads of a data set that is still coming: its elements before Pixel Data.

    ``source``: what is there of it, from its beginning. None: they are not all there, or cannot be read without the
    rest. Raises ValueError for an unknown keyword.
    """
    if transfer_syntax_uid in DEFLATED:
        return None
    wanted = _wanted(frozenset(keywords))
    read_element = _reader_for(source, offset, transfer_syntax_uid)
    try:
        found, position, left = _scan(source, offset, read_element, wanted._replace(last_tag=_LAST_TAG), _WHOLE_LIMITS)
        header = _decode(found, wanted, transfer_syntax_uid)
    except MalformedHeader:
        return None
    if position + 12 > source.base + len(source.data):
        return None
    return Begun(found, header, position, left, read_element)


def read_whole(
    source: MemorySource,
    offset: int,
    transfer_syntax_uid: str,
    keywords: Collection[str],
    *,
    inflated_bytes: int,
    begun: Begun | None = None,
) -> dict[str, tuple[Value, ...]]:
    """``read_header_bytes`` and ``require_whole`` in one walk over the data set at ``offset`` of ``source``.

    ``begun``: what ``begin_whole`` has read of it already, with the same keywords.
    A deflated data set is inflated to its end, without being kept; one of more than ``inflated_bytes`` is refused.
    Raises MalformedHeader, and ValueError for an unknown keyword.
    """
    wanted = _wanted(frozenset(keywords))
    everything = wanted._replace(last_tag=_EVERYTHING.last_tag)
    if begun is not None:
        limits = replace(_WHOLE_LIMITS, elements=begun.elements)
        behind, _, _ = _scan(source, begun.position, begun.read_element, everything, limits)
        return _decode(begun.found | behind, wanted, transfer_syntax_uid) if behind else begun.header
    if transfer_syntax_uid in DEFLATED:
        source, offset = InflatingSource(source, offset, inflated_bytes), 0
    read_element = _reader_for(source, offset, transfer_syntax_uid)
    found, _, _ = _scan(source, offset, read_element, everything, _WHOLE_LIMITS)
    return _decode(found, wanted, transfer_syntax_uid)


def require_whole(data: bytes | memoryview, transfer_syntax_uid: str, *, limits: HeaderLimits = _WHOLE_LIMITS) -> None:
    """Walk a bare data set to its end without reading values: every length, that of Pixel Data too, lies within it.

    Encapsulated Pixel Data are walked fragment by fragment, each of which counts as an element (PS3.5 A.4). A
    deflated data set is not inflated for this and passes. Raises MalformedHeader.
    """
    if transfer_syntax_uid in DEFLATED:
        return
    source = MemorySource(data)
    read_element = _reader_for(source, 0, transfer_syntax_uid)
    _scan(source, 0, read_element, _EVERYTHING, limits)


def part10_offset(data: bytes | memoryview) -> tuple[str, int]:
    """Return (Transfer Syntax UID, offset of the data set) of a DICOM file, of which ``data`` holds the begin.

    Without file meta information the transfer syntax is inferred from the first element. Raises MalformedHeader.
    """
    transfer_syntax, offset, _ = _read_meta(MemorySource(data), _wanted(frozenset()), _LIMITS)
    return transfer_syntax, offset


def _open_regular(path: Path) -> io.FileIO:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise MalformedHeader("not a regular file")
    return io.FileIO(descriptor)


@functools.lru_cache(maxsize=64)
def _wanted(keywords: frozenset[str]) -> _Wanted:
    elements = {}
    for keyword in keywords:
        tag = tag_for_keyword(keyword)
        if tag is None:
            raise ValueError(f"{keyword!r} is not a DICOM keyword")
        elements[int(tag)] = (keyword, dictionary_VR(tag).split(" ")[0])
    return _Wanted(elements, min(max(elements, default=0), _LAST_TAG))


def _read_meta(
    source: MemorySource, wanted: _Wanted, limits: HeaderLimits
) -> tuple[str, int, dict[str, tuple[Value, ...]]]:
    begin = bytes(source.data[: _PREAMBLE_BYTES + 12])
    start = _PREAMBLE_BYTES + 4 if begin[_PREAMBLE_BYTES : _PREAMBLE_BYTES + 4] == b"DICM" else 0
    if begin[start : start + 2] != b"\x02\x00":
        return _infer_transfer_syntax(begin[start : start + 8]), start, {}
    elements = {tag: entry for tag, entry in wanted.elements.items() if tag >> 16 == 2}
    asked = _Wanted(elements | {0x00020010: ("TransferSyntaxUID", "UI")}, 0x0002FFFF)
    found, end, _ = _scan(
        source, start, _element_reader(source, start, implicit=False, big_endian=False), asked, limits
    )
    header = _decode(found, asked, EXPLICIT_LITTLE_ENDIAN)
    syntax = header.get("TransferSyntaxUID")
    if 0x00020010 not in elements:
        header.pop("TransferSyntaxUID", None)
    if syntax is None:
        source.move(end)
        return _infer_transfer_syntax(bytes(source.data[end - source.base :][:8])), end, header
    return str(syntax[0]), end, header


def _infer_transfer_syntax(first: bytes) -> str:
    """Tell the encoding from the first element of a data set, which lies in a low group."""
    if len(first) < 8:
        raise MalformedHeader("not a DICOM file")
    explicit = first[4:6] in ANY_VR
    group = int.from_bytes(first[:2], "little")
    if group & 0xFF == 0 and group and explicit:
        return EXPLICIT_BIG_ENDIAN
    if not 0x0004 <= group <= 0x0040 or group & 1:
        raise MalformedHeader("not a DICOM file")
    return EXPLICIT_LITTLE_ENDIAN if explicit else IMPLICIT_LITTLE_ENDIAN


def _read(
    source: MemorySource, offset: int, transfer_syntax: str, wanted: _Wanted, limits: HeaderLimits
) -> dict[str, tuple[Value, ...]]:
    if not wanted.elements:
        return {}
    if transfer_syntax in DEFLATED:
        source, offset = InflatingSource(source, offset, limits.inflated_bytes), 0
    read_element = _reader_for(source, offset, transfer_syntax)
    found, _, _ = _scan(source, offset, read_element, wanted, limits)
    return _decode(found, wanted, transfer_syntax)


def _reader_for(source: MemorySource, offset: int, transfer_syntax: str) -> _ReadElement:
    big_endian = transfer_syntax == EXPLICIT_BIG_ENDIAN
    implicit = transfer_syntax == IMPLICIT_LITTLE_ENDIAN
    return _element_reader(source, offset, implicit=implicit, big_endian=big_endian)


def _decode(
    found: dict[int, tuple[bytes, bytes]], wanted: _Wanted, transfer_syntax: str
) -> dict[str, tuple[Value, ...]]:
    big_endian = transfer_syntax == EXPLICIT_BIG_ENDIAN
    character_set = found.get(_CHARACTER_SET)
    encodings = encodings_of(character_set[1]) if character_set else DEFAULT_ENCODINGS
    header = {}
    for tag, (vr, raw) in found.items():
        if tag in wanted.elements:
            keyword, dictionary_vr = wanted.elements[tag]
            actual = _VR_TEXT.get(vr, dictionary_vr)
            if values := decode_value(actual, raw, big_endian=big_endian, encodings=encodings):
                header[keyword] = values
    return header


def _element_reader(source: MemorySource, offset: int, *, implicit: bool, big_endian: bool) -> _ReadElement:
    """Choose how element headers are read; a first element that belies the declared encoding decides instead."""
    if not source.base <= offset <= source.base + len(source.data) - 8:
        source.move(offset)
    vr = bytes(source.data[offset - source.base :][4:6])
    if implicit and vr in ANY_VR:
        implicit = False
    elif not implicit and not b"AA" <= vr <= b"ZZ":
        implicit = True
    order = ">" if big_endian else "<"
    return implicit_reader(order) if implicit else explicit_reader(order)


def implicit_reader(order: str) -> _ReadElement:
    unpack = struct.Struct(order + "HHI").unpack_from

    def read(data: bytes | memoryview, at: int) -> _Element:
        group, element, length = unpack(data, at)
        return group << 16 | element, b"", length, 8

    return read


def explicit_reader(order: str) -> _ReadElement:
    """PS3.5 7.1.2. An element without a VR is taken as an implicit one.

    Items and delimiters have none (7.5): the length of an item may look like one, and is not read as such.
    """
    unpack = struct.Struct(order + "HH2sH").unpack_from
    unpack_length = struct.Struct(order + "I").unpack_from

    def read(data: bytes | memoryview, at: int) -> _Element:
        group, element, vr, length = unpack(data, at)
        if group == 0xFFFE:
            return group << 16 | element, b"", unpack_length(data, at + 4)[0], 8
        if vr in SHORT_VR:
            return group << 16 | element, vr, length, 8
        if vr in LONG_VR:
            return group << 16 | element, vr, unpack_length(data, at + 8)[0], 12
        if not (b"AA" <= vr <= b"ZZ" or vr == b"  "):
            return group << 16 | element, b"", unpack_length(data, at + 4)[0], 8
        return group << 16 | element, vr, length, 8

    return read


def _scan(
    source: MemorySource, position: int, read_element: _ReadElement, wanted: _Wanted, limits: HeaderLimits
) -> tuple[dict[int, tuple[bytes, bytes]], int, int]:
    """Collect (VR, value) of the wanted tags up to the last wanted one; return them, where it stopped, and how many
    more elements there may be."""
    elements, last_tag = wanted.elements, wanted.last_tag
    found: dict[int, tuple[bytes, bytes]] = {}
    budget = limits.elements
    try:
        while position + 12 <= source.base + len(source.data) or _ready(source, position):
            tag, vr, length, width = read_element(source.data, position - source.base)
            if tag > last_tag and (tag < ITEM_BEGIN or length == UNDEFINED_LENGTH):
                break
            budget -= 1
            if budget < 0:
                raise MalformedHeader("too many elements")
            position += width
            if length == UNDEFINED_LENGTH or (
                length > 8 * budget and _begins_with_item(source, position, read_element, vr)
            ):
                position, budget = _skip_items(source, position, length, read_element, vr, budget, limits.depth)
                continue
            if (tag in elements or tag == _CHARACTER_SET) and length <= limits.value_bytes:
                found[tag] = (vr, _value(source, position, length))
            position += length
    except struct.error as error:
        raise MalformedHeader("the data ends inside an element") from error
    return found, position, budget


def _ready(source: MemorySource, position: int) -> bool:
    """Bring an element header into the window. False at the end; zeros after the last element are no element."""
    if position + 12 <= source.base + len(source.data):
        return True
    if not source.reaches(position):
        raise MalformedHeader("a length goes beyond the end of the data")
    source.move(position)
    rest = source.data[position - source.base :]
    return len(rest) >= 8 or any(rest)


def _value(source: MemorySource, position: int, length: int) -> bytes:
    start = position - source.base
    if start + length > len(source.data):
        if not source.reaches(position + length):
            raise MalformedHeader("a length goes beyond the end of the data")
        source.move(position, length)
        start = position - source.base
    return bytes(source.data[start : start + length])


def _begins_with_item(source: MemorySource, position: int, read_element: _ReadElement, vr: bytes) -> bool:
    """Whether a value is a sequence of defined length; asked where that has room for more items than are allowed."""
    if vr not in _MAY_HOLD_ITEMS or not _ready(source, position):
        return False
    return read_element(source.data, position - source.base)[0] == ITEM_BEGIN


def _skip_items(
    source: MemorySource,
    position: int,
    length: int,
    read_element: _ReadElement,
    vr: bytes,
    budget: int,
    max_depth: int,
) -> tuple[int, int]:
    """Pass over a sequence (PS3.5 7.5) of ``length``, which may be undefined; return its end and the budget left.

    ``stack`` holds one reader per open sequence (odd depth) or item (even depth), and where it ends. The content of UN
    is Implicit VR Little Endian (6.2.2). Some writers close items of defined length too.
    """
    end, has_elements = _end_of(source, position, length), vr in _MAY_HOLD_ITEMS
    stack = [(implicit_reader("<") if vr == b"UN" else read_element, end)]
    while stack:
        reader, inner_end = stack[-1]
        if position >= inner_end:
            stack.pop()
            continue
        if not _ready(source, position):
            raise MalformedHeader("a sequence is not closed")
        tag, vr, length, width = reader(source.data, position - source.base)
        budget -= 1
        if budget < 0:
            raise MalformedHeader("too many elements")
        position += width
        inside_item = len(stack) % 2 == 0
        if tag == SEQUENCE_END:
            del stack[-2 if inside_item else -1 :]
        elif tag == ITEM_END:
            del stack[len(stack) - inside_item :]
        elif not length and tag == ITEM_BEGIN:
            position, budget = _skip_empty(source, position, budget)
        elif length != UNDEFINED_LENGTH and not (
            length > 8 * budget
            and has_elements
            and (tag == ITEM_BEGIN) is not inside_item
            and (tag == ITEM_BEGIN or _begins_with_item(source, position, reader, vr))
        ):
            position += length
        elif len(stack) >= 2 * max_depth or (tag == ITEM_BEGIN) is inside_item:
            raise MalformedHeader("sequences are nested too deep or without items")
        else:
            stack.append((implicit_reader("<") if vr == b"UN" else reader, _end_of(source, position, length)))
    return min(position, end), budget


def _skip_empty(source: MemorySource, position: int, budget: int) -> tuple[int, int]:
    """Pass over empty items by the thousand: who sends a million of them is not worth a second of computing."""
    data, at = source.data, position - source.base
    while budget > 0 and data[at : at + len(_EMPTY_ITEMS)] == _EMPTY_ITEMS:
        at, budget = at + len(_EMPTY_ITEMS), budget - len(_EMPTY_ITEMS) // 8
    return source.base + at, budget


def _end_of(source: MemorySource, position: int, length: int) -> int:
    if length == UNDEFINED_LENGTH:
        return sys.maxsize
    if not source.reaches(position + length):
        raise MalformedHeader("a length goes beyond the end of the data")
    return position + length
