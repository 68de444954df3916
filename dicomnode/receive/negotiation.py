"""Association establishment (PS3.8 9.3.2, PS3.7 D.3): pynetdicom reads the request and composes the answer."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from pydicom.uid import UID
from pynetdicom import _config
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import PresentationContext, negotiate_as_acceptor

from dicomnode.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicomnode.errors import Permanent
from dicomnode.receive.admission import Admitted
from dicomnode.receive.contexts import accepted_contexts, is_not_only_storage

MAX_REQUEST_BYTES = 64 * 1024
_FIXED_BYTES = 68
_APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
_UNREADABLE = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    AssertionError,
    NotImplementedError,
    struct.error,
)


class MalformedRequest(Permanent):
    """An A-ASSOCIATE-RQ that cannot be read. Holds no values."""


@dataclass(frozen=True, slots=True)
class AcceptedContext:
    """One accepted Presentation Context."""

    abstract_syntax: str
    transfer_syntax: str


@dataclass(frozen=True, slots=True)
class Proposal:
    """A decoded A-ASSOCIATE-RQ. ``max_length``: the longest PDU that the peer takes, in bytes; 0: any."""

    primitive: A_ASSOCIATE
    CallingAETitle: str
    CalledAETitle: str
    max_length: int

    @property
    def not_only_storage(self) -> bool:
        """It proposes Verification or Storage Commitment too."""
        return is_not_only_storage(self._contexts)

    @property
    def knows_application(self) -> bool:
        """The DICOM Application Context Name is proposed (PS3.8 A.2.1); it is the only one that there is."""
        return str(self.primitive.application_context_name) == _APPLICATION_CONTEXT

    @property
    def _contexts(self) -> list[PresentationContext]:
        return list(self.primitive.presentation_context_definition_list)

    def answer(self, admitted: Admitted, max_pdu: int) -> tuple[bytes, dict[int, AcceptedContext]]:
        """The A-ASSOCIATE-AC to send, and what was accepted, by Presentation Context ID."""
        supported = accepted_contexts(self._contexts, storage=admitted.may_store, reports=admitted.may_report)
        contexts, roles = negotiate_as_acceptor(self._contexts, supported, _roles(self.primitive))
        reply = A_ASSOCIATE()
        reply.application_context_name = UID(_APPLICATION_CONTEXT)
        reply.calling_ae_title = self.primitive.calling_ae_title
        reply.called_ae_title = self.primitive.called_ae_title
        reply.result, reply.result_source = 0, 1
        reply.presentation_context_definition_results_list = contexts
        reply.user_information = [*_about_us(max_pdu), *roles]
        accepted = {
            int(context.context_id): AcceptedContext(str(context.abstract_syntax), str(context.transfer_syntax[0]))
            for context in contexts
            if context.result == 0 and context.context_id is not None
        }
        return A_ASSOCIATE_AC(reply).encode(), accepted


def read_request(pdu: bytes) -> Proposal:
    """Decode an A-ASSOCIATE-RQ with its six-byte header. Raises MalformedRequest."""
    if len(pdu) < 6 + _FIXED_BYTES:
        raise MalformedRequest("shorter than its fixed fields")
    request = A_ASSOCIATE_RQ()
    try:
        request.decode(pdu)
        primitive = request.to_primitive()
        titles = _title(pdu[26:42]), _title(pdu[10:26])
        proposal = Proposal(primitive, *titles, int(primitive.maximum_length_received or 0))
        if not proposal._contexts:  # noqa: SLF001 - its own
            raise MalformedRequest("no presentation context")
    except _UNREADABLE as error:
        raise MalformedRequest("it cannot be decoded") from error
    return proposal


def silence_library() -> None:
    """Take pynetdicom's own log handler off, whose lines hold what peers sent. The process-wide option of this room."""
    _config.LOG_HANDLER_LEVEL = "none"


def _title(raw: bytes) -> str:
    """An AE title without the outer spaces that do not count (PS3.5 6.2); other bytes than ASCII show as U+FFFD."""
    return raw.decode("ascii", "replace").strip(" ")


def _roles(primitive: A_ASSOCIATE) -> dict[UID, tuple[bool | None, bool | None]]:
    return {
        UID(str(item.sop_class_uid)): (item.scu_role, item.scp_role)
        for item in primitive.user_information
        if isinstance(item, SCP_SCU_RoleSelectionNegotiation)
    }


def _about_us(max_pdu: int) -> list[Any]:
    length, class_uid = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received = max_pdu
    class_uid.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
    version = ImplementationVersionNameNotification()
    version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    return [length, class_uid, version]
