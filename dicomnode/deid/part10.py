"""One DICOM file as a tree: file meta and preamble apart, which are never copied (PS3.10 7.1, trust D9)."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from dicomnode.deid.parse import TreeLimits, TreeParser
from dicomnode.deid.refusal import Quarantined, Reason
from dicomnode.deid.tree import Element, Form, Span, encoded, text_element
from dicomnode.deid.words import names_in
from dicomnode.dicom.encoding import ANY_VR
from dicomnode.dicom.header import part10_offset
from dicomnode.dicom.header_source import FileSource, MalformedHeader, MemorySource
from dicomnode.dicom.header_values import DEFAULT_ENCODINGS, decode_value, encodings_of
from dicomnode.dicom.transfer_syntaxes import (
    DEFLATED,
    EXPLICIT_BIG_ENDIAN,
    EXPLICIT_LITTLE_ENDIAN,
    IMPLICIT_LITTLE_ENDIAN,
    UNCOMPRESSED,
)
from dicomnode.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

_BEGIN_BYTES = 1 << 20
_PIECE = 4 << 20
INFLATED_BYTES = 512 << 20
_CHARACTER_SET = 0x00080005
_SOP_CLASS, _SOP_INSTANCE = 0x00080016, 0x00080018
_NAMES = (0x00100010, 0x00100020, 0x00080050, 0x00080090, 0x00081050, 0x00081070, 0x00100030, 0x00101001, 0x00101000)


@dataclass(frozen=True, slots=True, eq=False)
class Part10:
    """``elements``: of the data set. ``source``: where their spans are. ``sop_class``: as the file meta says."""

    transfer_syntax: str
    form: Form
    elements: list[Element]
    source: MemorySource
    sop_class: str = ""

    @property
    def encodings(self) -> tuple[str, ...]:
        """The codecs of Specific Character Set."""
        for element in self.elements:
            if element.tag == _CHARACTER_SET and isinstance(element.value, bytes):
                return encodings_of(element.value)
        return DEFAULT_ENCODINGS

    def texts(self, tags: Collection[int]) -> dict[int, str]:
        """The first value of each of ``tags`` at the top, stripped; empty when there is none."""
        found = dict.fromkeys(tags, "")
        for element in self.elements:
            if element.tag in found and isinstance(element.value, bytes):
                values = self._values(element)
                found[element.tag] = str(values[0]) if values else ""
        return found

    def has_several(self, tags: Collection[int]) -> bool:
        """Whether one of ``tags`` at the top has more than one value."""
        return any(
            element.tag in tags and isinstance(element.value, bytes) and b"\\" in element.value
            for element in self.elements
        )

    def names(self) -> frozenset[str]:
        """Parts of the identifiers and names at the top, to be kept out of cleaned texts."""
        texts = [
            str(value)
            for element in self.elements
            if isinstance(element.value, bytes) and (element.tag in _NAMES or element.kind == "PN")
            for value in self._values(element)
        ]
        return names_in(*texts)

    def rebuilt(self, elements: list[Element]) -> Part10:
        """The same source with other elements."""
        return replace(self, elements=elements)

    def pieces(self) -> Iterator[bytes | Span]:
        """The file: preamble of zeros, new file meta, the data set."""
        values = self.texts({_SOP_CLASS, _SOP_INSTANCE})
        yield _meta(values[_SOP_CLASS], values[_SOP_INSTANCE], self.transfer_syntax)
        if self.transfer_syntax not in DEFLATED:
            yield from encoded(self.elements, self.form)
            return
        packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        packed = b"".join(packer.compress(piece) for piece in self._resolved()) + packer.flush()
        yield packed + b"\0" * (len(packed) % 2)

    @property
    def in_file(self) -> bool:
        """Whether the spans are places in the file itself: not so when its data set was inflated."""
        return isinstance(self.source, FileSource)

    def whole_pieces(self) -> Iterator[bytes]:
        """``pieces`` with the content of the spans, which is read as it is asked for. Raises Quarantined."""
        for piece in self.pieces():
            if isinstance(piece, Span):
                yield from self._span(piece)
            else:
                yield piece

    def whole(self) -> bytes:
        """The file in one piece."""
        return b"".join(self.whole_pieces())

    def _resolved(self) -> Iterator[bytes]:
        for piece in encoded(self.elements, self.form):
            if isinstance(piece, Span):
                yield from self._span(piece)
            else:
                yield piece

    def _span(self, span: Span) -> Iterator[bytes]:
        position, end = span.start, span.start + span.length
        while position < end:
            size = min(_PIECE, end - position)
            self.source.move(position, size)
            start = position - self.source.base
            piece = bytes(self.source.data[start : start + size])
            if len(piece) != size:
                raise Quarantined(Reason.CHANGED)
            yield piece
            position += size

    def _values(self, element: Element) -> tuple[object, ...]:
        value = element.value
        if not isinstance(value, bytes):
            return ()
        return decode_value(element.kind, value, big_endian=self.form.big_endian, encodings=self.encodings)


def parse_part10(content: bytes | io.FileIO, limits: TreeLimits | None = None) -> Part10:
    """The tree of a DICOM file, with or without preamble and file meta. Raises Quarantined."""
    limits = limits or TreeLimits()
    if isinstance(content, bytes):
        source, begin = MemorySource(content), content[:_BEGIN_BYTES]
    else:
        source = FileSource(content)
        source.move(0, _BEGIN_BYTES)
        begin = bytes(source.data)
    try:
        syntax, offset = part10_offset(begin)
    except (MalformedHeader, struct.error):
        raise Quarantined(Reason.NOT_DICOM) from None
    if syntax in DEFLATED:
        source, offset = MemorySource(_inflated(source, offset)), 0
    source.move(offset)
    syntax, form = _form(syntax, bytes(source.data[offset - source.base :][:6]))
    parser = TreeParser(source, implicit=form.implicit, big_endian=form.big_endian, limits=limits)
    return Part10(syntax, form, parser.root(offset), source, _media_class(begin[:offset]))


def _form(syntax: str, first: bytes) -> tuple[str, Form]:
    """How the data set is encoded; a first element that belies the named transfer syntax decides."""
    implicit, big_endian = syntax == IMPLICIT_LITTLE_ENDIAN, syntax == EXPLICIT_BIG_ENDIAN
    looks_explicit = first[4:6] in ANY_VR
    if implicit and looks_explicit:
        return EXPLICIT_LITTLE_ENDIAN, Form(implicit=False, big_endian=False)
    if not implicit and first and not b"AA" <= first[4:6] <= b"ZZ":
        if syntax not in UNCOMPRESSED or big_endian:
            raise Quarantined(Reason.MALFORMED, "the data set is not encoded as its transfer syntax says")
        return IMPLICIT_LITTLE_ENDIAN, Form(implicit=True, big_endian=False)
    return syntax, Form(implicit=implicit, big_endian=big_endian)


def _inflated(source: MemorySource, offset: int) -> bytes:
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    plain = bytearray()
    try:
        while not inflate.eof and len(plain) <= INFLATED_BYTES:
            pending = inflate.unconsumed_tail
            if not pending:
                source.move(offset, _PIECE)
                pending = bytes(source.data[offset - source.base :][:_PIECE])
                offset += len(pending)
                if not pending:
                    break
            plain += inflate.decompress(pending, _PIECE)
    except zlib.error:
        raise Quarantined(Reason.MALFORMED, "the deflated data set is damaged") from None
    if len(plain) > INFLATED_BYTES:
        raise Quarantined(Reason.LIMIT, "the deflated data set inflates beyond its limit")
    return bytes(plain)


def _media_class(head: bytes) -> str:
    """Media Storage SOP Class UID: it tells a DICOMDIR."""
    at = head.find(b"\x02\x00\x02\x00UI")
    if at < 0 or len(head) < at + 8:
        return ""
    length = int.from_bytes(head[at + 6 : at + 8], "little")
    return head[at + 8 : at + 8 + length].decode("latin-1").strip(" \0")


def _meta(sop_class: str, sop_instance: str, transfer_syntax: str) -> bytes:
    """Preamble and file meta (PS3.10 table 7.1-1): nothing of the source is in them but the transfer syntax."""
    elements = [
        Element(0x00020001, "OB", b"\0\1"),
        text_element(0x00020002, sop_class),
        text_element(0x00020003, sop_instance),
        text_element(0x00020010, transfer_syntax),
        text_element(0x00020012, IMPLEMENTATION_CLASS_UID),
        text_element(0x00020013, IMPLEMENTATION_VERSION_NAME),
    ]
    body = b"".join(piece for piece in encoded(elements, Form(False, False)) if isinstance(piece, bytes))  # noqa: FBT003
    return bytes(128) + b"DICM" + struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(body)) + body
