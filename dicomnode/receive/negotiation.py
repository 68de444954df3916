"""Which Presentation Contexts of a proposal the node accepts, and in which roles (PS3.8 7.1.1.13, PS3.7 D.3.3.4)."""

from __future__ import annotations

from dataclasses import dataclass

from dicomnode.dicom.sop_classes import STORAGE_COMMITMENT_PUSH, VERIFICATION
from dicomnode.receive.admission import Admitted
from dicomnode.receive.associate import (
    APPLICATION_CONTEXT,
    Answered,
    AssociateRequest,
    Proposed,
    Role,
    decode_request,
    encode_accept,
)
from dicomnode.receive.contexts import supported_syntaxes

MAX_REQUEST_BYTES = 64 * 1024
ACCEPTED, USER_REJECTION, NO_ABSTRACT_SYNTAX, NO_TRANSFER_SYNTAX = 0, 1, 3, 4
"""Results of a Presentation Context (PS3.8 table 9-18)."""


@dataclass(frozen=True, slots=True)
class AcceptedContext:
    """One accepted Presentation Context."""

    abstract_syntax: str
    transfer_syntax: str


@dataclass(frozen=True, slots=True)
class Proposal:
    """A decoded A-ASSOCIATE-RQ. ``max_length``: the longest PDU that the peer takes, in bytes; 0: any."""

    request: AssociateRequest
    CallingAETitle: str
    CalledAETitle: str
    max_length: int

    @property
    def not_only_storage(self) -> bool:
        """It proposes Verification or Storage Commitment too."""
        other = {VERIFICATION, STORAGE_COMMITMENT_PUSH}
        return any(context.abstract_syntax in other for context in self.request.contexts)

    @property
    def knows_application(self) -> bool:
        """The DICOM Application Context Name is proposed (PS3.8 A.2.1); it is the only one that there is."""
        return self.request.application == APPLICATION_CONTEXT

    def answer(self, admitted: Admitted, max_pdu: int) -> tuple[bytes, dict[int, AcceptedContext]]:
        """The A-ASSOCIATE-AC to send, and what was accepted, by Presentation Context ID."""
        answers = [_judge(context, self.request, admitted) for context in self.request.contexts]
        accepted = {
            answer.id: AcceptedContext(context.abstract_syntax, answer.transfer_syntax)
            for context, answer in zip(self.request.contexts, answers, strict=True)
            if answer.result == ACCEPTED
        }
        answers.sort(key=lambda answer: answer.id)
        return encode_accept(self.request, answers, _roles(self.request, accepted), max_pdu), accepted


def read_request(body: bytes) -> Proposal:
    """Decode what follows the header of an A-ASSOCIATE-RQ. Raises MalformedRequest."""
    request = decode_request(body)
    return Proposal(request, request.CallingAETitle, request.CalledAETitle, request.max_length)


def _judge(context: Proposed, request: AssociateRequest, admitted: Admitted) -> Answered:
    known = supported_syntaxes(context.abstract_syntax, storage=admitted.may_store, reports=admitted.may_report)
    syntax = next((each for each in known if each in context.transfer_syntaxes), None)
    if syntax is None:
        return Answered(context.id, NO_TRANSFER_SYNTAX if known else NO_ABSTRACT_SYNTAX, context.transfer_syntaxes[0])
    role = request.roles.get(context.abstract_syntax)
    in_no_role = context.abstract_syntax == STORAGE_COMMITMENT_PUSH and role == Role(scu=False, scp=False)
    return Answered(context.id, USER_REJECTION if in_no_role else ACCEPTED, syntax)


def _roles(request: AssociateRequest, accepted: dict[int, AcceptedContext]) -> list[tuple[str, Role]]:
    """Storage Commitment alone is answered: the requestor reports as SCP. For all else the default roles hold."""
    role = request.roles.get(STORAGE_COMMITMENT_PUSH)
    takes_reports = any(context.abstract_syntax == STORAGE_COMMITMENT_PUSH for context in accepted.values())
    return [(STORAGE_COMMITMENT_PUSH, role)] if role is not None and takes_reports else []
