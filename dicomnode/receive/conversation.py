"""One Association from the peer's first byte to its last (PS3.8 9.2, PS3.7): no event, no queue, no decoded data set.

The thread that reads the socket does all of it: fragments of a C-STORE data set go from the one buffer of the
Association to the hash, and to the memory for small Instances or straight to the spool file.
"""

from __future__ import annotations

import contextlib
import logging
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from dicomnode.dicom.command import (
    MAX_COMMAND_BYTES,
    Command,
    CommandField,
    MalformedCommand,
    decode_command,
    response,
)
from dicomnode.dicom.commitment import MAX_REPORT_BYTES, EventReport
from dicomnode.dicom.pdu import (
    HEADER_BYTES,
    IS_COMMAND,
    IS_LAST,
    PDV_HEADER_BYTES,
    RELEASE_RP,
    AbortReason,
    Kind,
    abort,
    command_pdus,
    reject,
)
from dicomnode.dicom.sop_classes import STORAGE_COMMITMENT_PUSH, VERIFICATION
from dicomnode.dicom.status import Status
from dicomnode.errors import Permanent
from dicomnode.receive.admission import NO_APPLICATION, Admitted, Rejection, Request
from dicomnode.receive.arrival import StoreRequest
from dicomnode.receive.associate import MalformedRequest
from dicomnode.receive.commitment import CommitmentReports
from dicomnode.receive.incoming import Incoming
from dicomnode.receive.negotiation import MAX_REQUEST_BYTES, AcceptedContext, Proposal, read_request
from dicomnode.receive.register import Register
from dicomnode.receive.scp import StorageScp
from dicomnode.receive.tally import End, OpenAssociation
from dicomnode.receive.wire import PeerGone, TooSlow, Wire, WireError

CONTROL_BYTES = 64 * 1024
LINGER_S = 2.0
REFUSED_S = 10.0
"""Silence after an object that cannot be understood: an honest sender goes on, or releases, at once."""

_HEADER = struct.Struct(">BBL")
_PDV = struct.Struct(">LBB")
_NOT_STORAGE = frozenset({VERIFICATION, STORAGE_COMMITMENT_PUSH})
_log = logging.getLogger(__name__)


class ProtocolFault(Permanent):
    """The peer broke the protocol; it gets an A-ABORT with ``reason`` (None: by us as service user)."""

    def __init__(self, reason: AbortReason | None, words: str) -> None:
        super().__init__(words)
        self.reason = reason


class Sink(Protocol):
    """Where the data set of a message goes."""

    def write(self, fragment: memoryview) -> None: ...


@dataclass(slots=True)
class Discard:
    """A data set that nobody wants: counted, not kept."""

    size: int = 0

    def write(self, fragment: memoryview) -> None:
        """Count it."""
        self.size += len(fragment)


@dataclass(slots=True)
class ShortDataSet:
    """A small data set, kept in memory up to one byte more than ``limit``."""

    limit: int
    content: bytearray = field(default_factory=bytearray)
    size: int = 0

    def write(self, fragment: memoryview) -> None:
        """Keep what fits."""
        self.size += len(fragment)
        room = self.limit + 1 - len(self.content)
        self.content += fragment[: max(room, 0)]


@dataclass(frozen=True, slots=True)
class Services:
    """What a conversation needs of the node. Sizes in bytes, times in seconds."""

    register: Register
    scp: StorageScp
    reports: CommitmentReports
    max_pdu: int
    max_message_bytes: int
    acse_timeout_s: float
    dimse_timeout_s: float
    network_timeout_s: float


@dataclass(slots=True)
class _Message:
    """A DIMSE message on its way in."""

    context_id: int
    command: Command
    sink: Incoming | ShortDataSet | Discard


class Conversation:
    """Speaks with one peer. ``run`` returns when the Association is over; ``cut_off`` ends it from another thread."""

    def __init__(self, wire: Wire, services: Services) -> None:
        self._wire, self._services = wire, services
        self._contexts: dict[int, AcceptedContext] = {}
        self._max_length = 0
        self._command = bytearray()
        self._message: _Message | None = None
        self._cut = False
        self._refused = False
        self.association: OpenAssociation | None = None
        self.stopping = False

    def run(self, address: str, identities: frozenset[str] | None, settled: Callable[[], None]) -> None:
        """From the A-ASSOCIATE-RQ to the end.

        ``address``: the peer's; ``identities``: of its certificate, if any; ``settled`` is called when the request
        was judged: the connection is not pending any more.
        """
        end: End = "aborted"
        try:
            self._establish(address, identities)
            settled()
            if self.association is not None:
                end = self._converse()
        except ProtocolFault as fault:
            self._tell(abort(fault.reason))
            _log.warning("association aborted", extra={"reason": str(fault), "address": address})
        except TooSlow:
            self._tell(abort(AbortReason.NOT_SPECIFIED))
            _log.warning("association aborted", extra={"reason": "the peer is too slow or silent", "address": address})
        except PeerGone:
            _log.info("the peer closed the connection", extra={"address": address})
        finally:
            if self._message is not None and isinstance(self._message.sink, Incoming):
                self._message.sink.drop()
            if self.association is not None:
                self._services.register.end(self.association, "lost" if self._cut else end)
            self._wire.close()

    def cut_off(self) -> None:
        """End it now: A-ABORT where that is possible, then the connection ends under the reading thread."""
        self._cut = True
        if self._wire.takes_another_writer:
            self._tell(abort(None))
        self._wire.interrupt()

    def _tell(self, pdu: bytes) -> None:
        with contextlib.suppress(WireError):
            self._wire.send(pdu)

    def _establish(self, address: str, identities: frozenset[str] | None) -> None:
        self._wire.opening(self._services.acse_timeout_s)
        kind, _, length = _HEADER.unpack(self._wire.take(HEADER_BYTES))
        if kind != Kind.ASSOCIATE_RQ:
            known = kind in Kind._value2member_map_
            reason = AbortReason.UNEXPECTED_PDU if known else AbortReason.UNRECOGNIZED_PDU
            raise ProtocolFault(reason, "the first PDU is no A-ASSOCIATE-RQ")
        if length > MAX_REQUEST_BYTES:
            raise ProtocolFault(AbortReason.INVALID_PARAMETER, "A-ASSOCIATE-RQ of more than 64 KiB")
        try:
            proposal = read_request(self._wire.take(length))
        except MalformedRequest as error:
            raise ProtocolFault(AbortReason.INVALID_PARAMETER, f"malformed A-ASSOCIATE-RQ: {error}") from error
        verdict = self._judge(proposal, address, identities)
        if isinstance(verdict, Rejection):
            self._tell(reject(verdict.result, verdict.source, verdict.diagnostic))
            self._wire.finish(LINGER_S)
            return
        self.association = verdict
        admitted = Admitted(verdict.peer, may_store=verdict.may_store, may_report=verdict.may_report)
        answer, self._contexts = proposal.answer(admitted, self._services.max_pdu)
        self._max_length = proposal.max_length
        self._wire.send(answer)

    def _judge(
        self, proposal: Proposal, address: str, identities: frozenset[str] | None
    ) -> OpenAssociation | Rejection:
        if not proposal.knows_application:
            return NO_APPLICATION
        titles = proposal.CallingAETitle, proposal.CalledAETitle
        request = Request(*titles, address, not_only_storage=proposal.not_only_storage, identities=identities)
        return self._services.register.admit(request)

    def _converse(self) -> End:
        while True:
            is_between = self._message is None and not self._command
            limits = self._services
            idle_s = min(limits.network_timeout_s, REFUSED_S) if self._refused else limits.network_timeout_s
            self._wire.unit(idle_s if is_between else limits.dimse_timeout_s)
            kind, _, length = _HEADER.unpack(self._wire.take(HEADER_BYTES))
            if kind == Kind.P_DATA:
                if length > self._services.max_pdu:
                    raise ProtocolFault(AbortReason.INVALID_PARAMETER, "P-DATA longer than was negotiated")
                self._p_data(length)
                continue
            if length > CONTROL_BYTES:
                raise ProtocolFault(AbortReason.INVALID_PARAMETER, "control PDU of more than 64 KiB")
            self._wire.take(length)
            if kind == Kind.RELEASE_RQ:
                self._release()
                return "released"
            if kind == Kind.ABORT:
                return "aborted"
            known = kind in Kind._value2member_map_
            reason = AbortReason.UNEXPECTED_PDU if known else AbortReason.UNRECOGNIZED_PDU
            raise ProtocolFault(reason, "a PDU that has no place in an open association")

    def _release(self) -> None:
        """The end is on record before the peer hears of it: who asks afterwards finds it."""
        association = self.association
        if association is not None:
            self._services.register.end(association, "released")
        self._tell(RELEASE_RP)
        self._wire.finish(LINGER_S)

    def _p_data(self, left: int) -> None:
        """The Presentation Data Values of one P-DATA-TF (PS3.8 9.3.5, E.2)."""
        while left:
            if left < PDV_HEADER_BYTES:
                raise ProtocolFault(AbortReason.INVALID_PARAMETER, "P-DATA ends inside a PDV header")
            length, context_id, control = _PDV.unpack(self._wire.take(PDV_HEADER_BYTES))
            if length < 2 or length + 4 > left:
                raise ProtocolFault(AbortReason.INVALID_PARAMETER, "a PDV that does not fit its PDU")
            if context_id not in self._contexts:
                raise ProtocolFault(AbortReason.UNEXPECTED_PARAMETER, "a presentation context that was not accepted")
            left -= length + 4
            if control & IS_COMMAND:
                self._command_fragment(context_id, length - 2, last=bool(control & IS_LAST))
            else:
                self._data_fragment(context_id, length - 2, last=bool(control & IS_LAST))

    def _command_fragment(self, context_id: int, length: int, *, last: bool) -> None:
        if self._message is not None:
            raise ProtocolFault(AbortReason.UNEXPECTED_PARAMETER, "a command set in the middle of a data set")
        if len(self._command) + length > MAX_COMMAND_BYTES:
            raise ProtocolFault(AbortReason.INVALID_PARAMETER, "a command set of more than 16 KiB")
        for fragment in self._wire.fragments(length):
            self._command += fragment
        if not last:
            return
        try:
            command = decode_command(bytes(self._command))
        except MalformedCommand as error:
            raise ProtocolFault(AbortReason.INVALID_PARAMETER, f"malformed command set: {error}") from error
        self._command.clear()
        self._message = _Message(context_id, command, self._sink(self._contexts[context_id], command))
        if not command.has_data_set:
            self._complete(self._message)

    def _data_fragment(self, context_id: int, length: int, *, last: bool) -> None:
        message = self._message
        if message is None or message.context_id != context_id:
            raise ProtocolFault(AbortReason.UNEXPECTED_PARAMETER, "a data set without its command set")
        for fragment in self._wire.fragments(length):
            message.sink.write(fragment)
        if message.sink.size > self._services.max_message_bytes:
            raise ProtocolFault(None, "a data set without end")
        if last:
            self._complete(message)

    def _sink(self, context: AcceptedContext, command: Command) -> Incoming | ShortDataSet | Discard:
        association = self.association
        if association is None or not command.has_data_set:
            return Discard()
        if command.field == CommandField.C_STORE and self._stores(context) and not self.stopping:
            association.running = True
            asked = StoreRequest(
                command.SOPClassUID, command.SOPInstanceUID, context.abstract_syntax, context.transfer_syntax
            )
            return self._services.scp.begin(association, asked)
        if command.field == CommandField.N_EVENT_REPORT:
            return ShortDataSet(MAX_REPORT_BYTES)
        return Discard()

    def _stores(self, context: AcceptedContext) -> bool:
        return context.abstract_syntax not in _NOT_STORAGE

    def _complete(self, message: _Message) -> None:
        association = self.association
        if association is None:
            return
        self._message = None
        with association.storing():
            status = self._answer(association, message)
            self._refused = status & 0xF000 == Status.CANNOT_UNDERSTAND
            if message.command.is_request:
                pdus = command_pdus(message.context_id, response(message.command, status), self._max_length)
                self._wire.send(pdus)

    def _answer(self, association: OpenAssociation, message: _Message) -> int:
        """The status for a complete message (PS3.7 annex C)."""
        command, context, sink = message.command, self._contexts[message.context_id], message.sink
        if command.field == CommandField.C_STORE:
            if isinstance(sink, Incoming):
                return sink.finish()
            if self.stopping:
                return Status.OUT_OF_RESOURCES
            return Status.SOP_CLASS_NOT_SUPPORTED if not self._stores(context) else Status.CANNOT_UNDERSTAND
        if command.field == CommandField.C_ECHO:
            is_verification = context.abstract_syntax == VERIFICATION
            return Status.SUCCESS if is_verification else Status.SOP_CLASS_NOT_SUPPORTED
        if command.field == CommandField.N_EVENT_REPORT:
            content = bytes(sink.content) if isinstance(sink, ShortDataSet) else b""
            if self.stopping or not association.may_report:
                return Status.RESOURCE_LIMITATION
            return self._services.reports.take(association, _report(command, context, content))
        return Status.UNRECOGNIZED_OPERATION


def _report(command: Command, context: AcceptedContext, content: bytes) -> EventReport:
    return EventReport(
        command.SOPClassUID,
        command.SOPInstanceUID,
        command.EventTypeID,
        context.abstract_syntax,
        context.transfer_syntax,
        content,
    )
