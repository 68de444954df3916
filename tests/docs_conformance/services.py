"""Storage commitment, STOW-RS, profiles of results and what stands in: from dicom/, deliver/, receive/, config/."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path

from pydicom.uid import UID
from pynetdicom.presentation import build_context

from dicomnode.config.results import NEEDS, PROFILES, SEND_ORDER, STANDBY, ResultSettings, stand_ins
from dicomnode.deliver.sending import OutboundFile
from dicomnode.deliver.stow_answer import judge, told
from dicomnode.deliver.web import HttpAnswer
from dicomnode.dicom.commitment import EventStatus, FailureReason, Remedy, describe_reason, remedy
from dicomnode.dicom.sop_classes import STORAGE_COMMITMENT_PUSH
from dicomnode.dicom.status import Status
from dicomnode.dicom.transfer_syntaxes import EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN
from dicomnode.receive.contexts import supported_syntaxes
from tests.docs_conformance.markdown import table
from tests.docs_conformance.samples import samples

_EVENTS = {
    EventStatus.SUCCESS: "The report is durable.",
    EventStatus.NO_SUCH_SOP_INSTANCE: "The report is not about the well-known SOP Instance.",
    EventStatus.NO_SUCH_EVENT_TYPE: "Event Type ID is neither 1 nor 2.",
    EventStatus.INVALID_ARGUMENT_VALUE: "It cannot be understood, or its transaction is not one of the peer's.",
    EventStatus.NO_SUCH_SOP_CLASS: "It is about another SOP Class.",
    EventStatus.RESOURCE_LIMITATION: "It is too large, or it cannot be kept now: send it again.",
}
_REMEDIES = {
    Remedy.SEND_AGAIN: "The Instance is sent again, then asked about again.",
    Remedy.ASK_AGAIN: "Asked about again.",
    Remedy.NONE: "Given up: shown to the operator, audited.",
}
_HTTP = (200, 202, 204, 400, 401, 403, 404, 405, 406, 409, 411, 413, 415, 422, 429, 500, 501, 503)


def sections() -> dict[str, str]:
    """The tables of this module."""
    return {
        "commitment-contexts": _commitment_contexts(),
        "commitment-event-status": _events(),
        "commitment-failure-reasons": _reasons(),
        "stow-status": _stow(),
        "result-profiles": _profiles(),
        "result-stand-ins": _stand_ins(),
    }


def _commitment_contexts() -> str:
    asked = build_context(STORAGE_COMMITMENT_PUSH, [EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN])
    heard = build_context(STORAGE_COMMITMENT_PUSH, list(supported_syntaxes(STORAGE_COMMITMENT_PUSH, reports=True)))
    rows = [
        ("the node asks (N-ACTION), may be answered on it", "requestor, SCU (default roles)", _names(asked)),
        ("the peer reports (N-EVENT-REPORT)", "acceptor, SCU; role selection accepted, not required", _names(heard)),
    ]
    return table(("Association", "role of the node", "Transfer Syntaxes"), rows)


def _names(context: object) -> str:
    return "<br>".join(str(UID(uid).name) for uid in context.transfer_syntax)  # type: ignore[attr-defined]


def _events() -> str:
    refused = (f"`0x{Status.UNRECOGNIZED_OPERATION:04X}`", "unrecognized operation", "N-ACTION: the node is no SCP.")
    rows = ((f"`0x{status:04X}`", status.name.lower().replace("_", " "), _EVENTS[status]) for status in EventStatus)
    return table(("code", "meaning", "when"), [*rows, refused])


def _reasons() -> str:
    reasons = (*FailureReason, None)
    rows = ((f"`{describe_reason(one)}`" if one else describe_reason(None), _REMEDIES[remedy(one)]) for one in reasons)
    return table(("Failure Reason (0008,1197)", "behaviour"), [*rows, ("any other", _REMEDIES[remedy(0x0001)])])


def _stow() -> str:
    rows = ((f"{code} {HTTPStatus(code).phrase}", _taken_as(code)) for code in _HTTP)
    return table(("HTTP status, when the answer names no Instance", "taken as"), rows)


def _taken_as(code: int) -> str:
    answer = HttpAnswer(code, b"", 0.0)
    file = OutboundFile(Path("any"), "1.2.3", "1.2.3.4", EXPLICIT_LITTLE_ENDIAN)
    return judge(answer, told(answer), file).disposition.value


def _profiles() -> str:
    default = ResultSettings()
    usual = [name for name, kinds in PROFILES.items() if set(kinds) == set(default.objects_for("any"))]
    rows = (
        (
            f"`{name}`" + (" (default)" if name in usual else ""),
            ", ".join(ResultSettings(profile=name).objects_for("any")),
        )  # type: ignore[arg-type]
        for name in PROFILES
    )
    return table(("profile", "objects, in the order of sending"), rows)


def _stand_ins() -> str:
    classes = {one.kind: str(UID(one.dataset.SOPClassUID).name) for one in samples()}
    rows = (
        (kind, classes[kind], ", then ".join(stand_ins(kind)), " and ".join(NEEDS.get(kind, ())) or "nothing")
        for kind in SEND_ORDER
        if kind in STANDBY
    )
    return table(("object", "SOP Class", "where a peer does not take it, in its place", "needs at the peer"), rows)
