"""The A-ASSOCIATE-RQ read and the A-ASSOCIATE-AC written (PS3.8 9.3.2, 9.3.3, annex D; PS3.7 D.3.3).

Every length is held against what is there; nothing of a peer's is decoded beyond what the node asks for.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum

from dicomnode.dicom.pdu import Kind
from dicomnode.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicomnode.errors import Permanent

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
MAX_UID_BYTES = 64
_FIXED = struct.Struct(">HH16s16s32s")
_ITEM = struct.Struct(">BBH")
_SHORT = struct.Struct(">H")
_LONG = struct.Struct(">L")


class Item(IntEnum):
    """Item types (PS3.8 9.3.2, 9.3.3, annex D.1; PS3.7 D.3.3)."""

    APPLICATION_CONTEXT = 0x10
    CONTEXT_RQ = 0x20
    CONTEXT_AC = 0x21
    ABSTRACT_SYNTAX = 0x30
    TRANSFER_SYNTAX = 0x40
    USER_INFORMATION = 0x50
    MAXIMUM_LENGTH = 0x51
    IMPLEMENTATION_CLASS = 0x52
    ROLE_SELECTION = 0x54
    IMPLEMENTATION_VERSION = 0x55


class MalformedRequest(Permanent):
    """An A-ASSOCIATE-RQ that cannot be read. Holds no values."""


@dataclass(frozen=True, slots=True)
class Proposed:
    """A Presentation Context as it is proposed (PS3.8 9.3.2.2)."""

    id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Role:
    """What the requestor would be for a SOP Class (PS3.7 D.3.3.4)."""

    scu: bool
    scp: bool


@dataclass(slots=True)
class AssociateRequest:
    """A decoded A-ASSOCIATE-RQ. ``fixed``: its fixed fields as they came, with both titles; they go back as they are.

    ``max_length``: the longest PDU that the peer takes, in bytes; 0: any. ``roles``: by SOP Class UID.
    """

    fixed: bytes
    application: str = ""
    contexts: list[Proposed] = field(default_factory=list)
    max_length: int = 0
    roles: dict[str, Role] = field(default_factory=dict)

    @property
    def CalledAETitle(self) -> str:
        """Without the outer spaces that do not count (PS3.5 6.2); other bytes than ASCII show as U+FFFD."""
        return _title(self.fixed[4:20])

    @property
    def CallingAETitle(self) -> str:
        """See ``CalledAETitle``."""
        return _title(self.fixed[20:36])


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to one Presentation Context: its ``result`` (PS3.8 table 9-18) and the one transfer syntax."""

    id: int
    result: int
    transfer_syntax: str


def decode_request(body: bytes) -> AssociateRequest:
    """Read what follows the six-byte header of an A-ASSOCIATE-RQ. Items of other types are passed over.

    Raises MalformedRequest: also when there is no Presentation Context, or one has an even or a doubled identifier.
    """
    if len(body) < _FIXED.size:
        raise MalformedRequest("shorter than its fixed fields")
    request = AssociateRequest(body[: _FIXED.size])
    for kind, value in _items(body[_FIXED.size :]):
        match kind:
            case Item.APPLICATION_CONTEXT:
                request.application = _uid(value)
            case Item.CONTEXT_RQ:
                request.contexts.append(_context(value))
            case Item.USER_INFORMATION:
                _user_information(request, value)
    numbers = [context.id for context in request.contexts]
    if not numbers:
        raise MalformedRequest("no presentation context")
    if len(set(numbers)) < len(numbers) or not all(number % 2 for number in numbers):
        raise MalformedRequest("identifiers of presentation contexts that are even or doubled")
    return request


def encode_accept(
    request: AssociateRequest, answers: Iterable[Answered], roles: Iterable[tuple[str, Role]], max_pdu: int
) -> bytes:
    """The A-ASSOCIATE-AC with its header. ``roles``: the answers to role selection; ``max_pdu``: in bytes."""
    about_us = b"".join(
        (
            _item(Item.MAXIMUM_LENGTH, _LONG.pack(max_pdu)),
            _item(Item.IMPLEMENTATION_CLASS, IMPLEMENTATION_CLASS_UID.encode()),
            *(_item(Item.ROLE_SELECTION, _role_bytes(uid, role)) for uid, role in roles),
            _item(Item.IMPLEMENTATION_VERSION, IMPLEMENTATION_VERSION_NAME.encode()),
        )
    )
    body = b"".join(
        (
            b"\x00\x01\x00\x00",
            request.fixed[4:],
            _item(Item.APPLICATION_CONTEXT, APPLICATION_CONTEXT.encode()),
            *(_item(Item.CONTEXT_AC, _answer_bytes(answer)) for answer in answers),
            _item(Item.USER_INFORMATION, about_us),
        )
    )
    return struct.pack(">BBL", Kind.ASSOCIATE_AC, 0, len(body)) + body


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position < len(data):
        if position + _ITEM.size > len(data):
            raise MalformedRequest("it ends inside the header of an item")
        kind, _, length = _ITEM.unpack_from(data, position)
        position += _ITEM.size
        if position + length > len(data):
            raise MalformedRequest("an item that ends beyond what holds it")
        yield kind, data[position : position + length]
        position += length


def _context(value: bytes) -> Proposed:
    if len(value) < 4:
        raise MalformedRequest("a presentation context without its identifier")
    abstract, transfer = "", []
    for kind, content in _items(value[4:]):
        if kind == Item.ABSTRACT_SYNTAX:
            if abstract:
                raise MalformedRequest("a presentation context with two abstract syntaxes")
            abstract = _uid(content)
        elif kind == Item.TRANSFER_SYNTAX:
            transfer.append(_uid(content))
    if not abstract or not transfer:
        raise MalformedRequest("a presentation context without abstract or transfer syntax")
    return Proposed(value[0], abstract, tuple(transfer))


def _user_information(request: AssociateRequest, value: bytes) -> None:
    for kind, content in _items(value):
        if kind == Item.MAXIMUM_LENGTH:
            if len(content) != _LONG.size:
                raise MalformedRequest("a maximum length of another size than four bytes")
            request.max_length = _LONG.unpack(content)[0]
        elif kind == Item.ROLE_SELECTION:
            uid, role = _role(content)
            request.roles[uid] = role


def _role(content: bytes) -> tuple[str, Role]:
    size = _SHORT.unpack_from(content)[0] if len(content) >= _SHORT.size else -1
    uid, roles = content[_SHORT.size : -2], content[-2:]
    if size != len(uid) or len(content) != _SHORT.size + size + 2 or not set(roles) <= {0, 1}:
        raise MalformedRequest("a role selection that does not fit its item")
    return _uid(uid), Role(bool(roles[0]), bool(roles[1]))


def _uid(raw: bytes) -> str:
    """One trailing null goes, which some peers pad with. What else is no UID matches nothing that the node knows."""
    text = raw.removesuffix(b"\0")
    if not 0 < len(text) <= MAX_UID_BYTES or not text.isascii():
        raise MalformedRequest("a UID that is empty, too long or not ASCII")
    return text.decode("ascii")


def _title(raw: bytes) -> str:
    return raw.decode("ascii", "replace").strip(" ")


def _item(kind: Item, content: bytes) -> bytes:
    return _ITEM.pack(kind, 0, len(content)) + content


def _answer_bytes(answer: Answered) -> bytes:
    syntax = _item(Item.TRANSFER_SYNTAX, answer.transfer_syntax.encode("ascii"))
    return bytes((answer.id, 0, answer.result, 0)) + syntax


def _role_bytes(uid: str, role: Role) -> bytes:
    return _SHORT.pack(len(uid)) + uid.encode("ascii") + bytes((role.scu, role.scp))
