"""Protocol Data Units (PS3.8 9.3): their kinds, and the short ones that the node sends, as bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum

from dicomnode.errors import Permanent


class Kind(IntEnum):
    """PDU type, the first byte (PS3.8 9.3.1)."""

    ASSOCIATE_RQ = 0x01
    ASSOCIATE_AC = 0x02
    ASSOCIATE_RJ = 0x03
    P_DATA = 0x04
    RELEASE_RQ = 0x05
    RELEASE_RP = 0x06
    ABORT = 0x07


class AbortReason(IntEnum):
    """Reason of an A-ABORT by the service provider (PS3.8 9.3.8)."""

    NOT_SPECIFIED = 0
    UNRECOGNIZED_PDU = 1
    UNEXPECTED_PDU = 2
    UNEXPECTED_PARAMETER = 5
    INVALID_PARAMETER = 6


HEADER_BYTES = 6
PDV_HEADER_BYTES = 6
IS_COMMAND, IS_LAST = 0x01, 0x02
RELEASE_RP = struct.pack(">BBLL", Kind.RELEASE_RP, 0, 4, 0)


def abort(reason: AbortReason | None) -> bytes:
    """An A-ABORT: of the service provider for ``reason``, of the service user for None."""
    source = 0 if reason is None else 2
    return struct.pack(">BBLBBBB", Kind.ABORT, 0, 4, 0, 0, source, reason or 0)


def reject(result: int, source: int, diagnostic: int) -> bytes:
    """An A-ASSOCIATE-RJ (PS3.8 9.3.4)."""
    return struct.pack(">BBLBBBB", Kind.ASSOCIATE_RJ, 0, 4, 0, result, source, diagnostic)


def command_pdus(context_id: int, command: bytes, max_length: int) -> bytes:
    """P-DATA-TF PDUs with one command set, none with more than ``max_length`` bytes of content; 0: no limit."""
    room = max(max_length - PDV_HEADER_BYTES, 1) if max_length else len(command)
    pdus = b""
    for start in range(0, len(command), room):
        part = command[start : start + room]
        control = IS_COMMAND | (IS_LAST if start + room >= len(command) else 0)
        pdv = struct.pack(">LBB", len(part) + 2, context_id, control) + part
        pdus += struct.pack(">BBL", Kind.P_DATA, 0, len(pdv)) + pdv
    return pdus


class MalformedPdu(Permanent):
    """A PDU whose lengths do not fit. Holds no values."""


def fragments(content: bytes) -> Iterator[tuple[int, bytes]]:
    """(message control header, fragment) of each PDV in the content of a P-DATA-TF PDU (PS3.8 9.3.5.1, E.2).

    Raises MalformedPdu.
    """
    position = 0
    while position < len(content):
        length = int.from_bytes(content[position : position + 4], "big")
        end = position + 4 + length
        if length < 2 or end > len(content):
            raise MalformedPdu("a fragment that goes beyond its PDU")
        yield content[position + 5], content[position + PDV_HEADER_BYTES : end]
        position = end
