"""DIMSE command sets (PS3.7 6.3.1, E): Implicit VR Little Endian, group 0000, a few hundred bytes at most."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from dicomnode.errors import Permanent

MAX_COMMAND_BYTES = 16 * 1024
NO_DATA_SET = 0x0101
_DATA_SET = 0x0001
_LOW_PRIORITY = 0x0002
_ELEMENT = struct.Struct("<HHL")


class CommandField(IntEnum):
    """(0000,0100) of the requests that the node knows (PS3.7 E.1-1); a response has bit 15 set."""

    C_STORE = 0x0001
    N_EVENT_REPORT = 0x0100
    N_ACTION = 0x0130
    C_ECHO = 0x0030
    C_CANCEL = 0x0FFF


RESPONSE = 0x8000


class MalformedCommand(Permanent):
    """A command set that cannot be read. Holds no values."""


@dataclass(frozen=True, slots=True)
class Command:
    """One decoded command set. UIDs are as they were sent, without padding; nothing about them is checked."""

    field: int
    message_id: int
    has_data_set: bool
    SOPClassUID: str
    SOPInstanceUID: str
    EventTypeID: int

    @property
    def is_request(self) -> bool:
        """False for a response and for C-CANCEL, which get no answer."""
        return not self.field & RESPONSE and self.field != CommandField.C_CANCEL


@dataclass(frozen=True, slots=True)
class Answer:
    """One decoded response. ``message_id``: the request's that it answers."""

    field: int
    message_id: int | None
    has_data_set: bool
    status: int


def decode_command(data: bytes) -> Command:
    """Read a command set. Raises MalformedCommand."""
    values = _elements(data)
    field = _number(values, 0x0100)
    if field is None:
        raise MalformedCommand("no command field")
    return Command(
        field,
        _number(values, 0x0110) or 0,
        _number(values, 0x0800) != NO_DATA_SET,
        _uid(values.get(0x0002) or values.get(0x0003, b"")),
        _uid(values.get(0x1000) or values.get(0x1001, b"")),
        _number(values, 0x1002) or 0,
    )


def response(command: Command, status: int) -> bytes:
    """The command set that answers ``command`` with ``status``, without a data set (PS3.7 9.3, 10.3)."""
    content = b""
    if command.SOPClassUID:
        content += _text(0x0002, command.SOPClassUID)
    content += _short(0x0100, command.field | RESPONSE) + _short(0x0120, command.message_id)
    content += _short(0x0800, NO_DATA_SET) + _short(0x0900, status)
    if command.SOPInstanceUID and len(command.SOPInstanceUID) <= 64:
        content += _text(0x1000, command.SOPInstanceUID)
    if command.field == CommandField.N_EVENT_REPORT:
        content += _short(0x1002, command.EventTypeID)
    return _ELEMENT.pack(0, 0, 4) + struct.pack("<L", len(content)) + content


def store_request(message_id: int, SOPClassUID: str, SOPInstanceUID: str) -> bytes:
    """The command set of a C-STORE-RQ with a data set to follow (PS3.7 9.3.1.1)."""
    content = _text(0x0002, SOPClassUID) + _short(0x0100, CommandField.C_STORE) + _short(0x0110, message_id)
    content += _short(0x0700, _LOW_PRIORITY) + _short(0x0800, _DATA_SET) + _text(0x1000, SOPInstanceUID)
    return _ELEMENT.pack(0, 0, 4) + struct.pack("<L", len(content)) + content


def decode_answer(data: bytes) -> Answer:
    """Read a command set that should be a response. Raises MalformedCommand, also without a status."""
    values = _elements(data)
    field, status = _number(values, 0x0100), _number(values, 0x0900)
    if field is None or status is None:
        raise MalformedCommand("no command field or no status")
    return Answer(field, _number(values, 0x0120), _number(values, 0x0800) != NO_DATA_SET, status)


def _elements(data: bytes) -> dict[int, bytes]:
    values: dict[int, bytes] = {}
    position = 0
    while position < len(data):
        if position + 8 > len(data):
            raise MalformedCommand("it ends inside an element")
        group, element, length = _ELEMENT.unpack_from(data, position)
        position += 8
        if group or position + length > len(data):
            raise MalformedCommand("another group, or a length beyond its end")
        values[element] = data[position : position + length]
        position += length
    return values


def _number(values: Mapping[int, bytes], element: int) -> int | None:
    raw = values.get(element)
    if raw is None:
        return None
    if len(raw) != 2:
        raise MalformedCommand("a number of another length than two bytes")
    return int.from_bytes(raw, "little")


def _uid(raw: bytes) -> str:
    """One trailing pad byte goes (PS3.5 9.1), no more: what is no UID must stay none."""
    text = raw.decode("ascii", "replace")
    return text[:-1] if text[-1:] in ("\0", " ") else text


def _short(element: int, value: int) -> bytes:
    return _ELEMENT.pack(0, element, 2) + struct.pack("<H", value)


def _text(element: int, value: str) -> bytes:
    raw = value.encode("ascii", "replace")
    raw += b"\0" * (len(raw) % 2)
    return _ELEMENT.pack(0, element, len(raw)) + raw
