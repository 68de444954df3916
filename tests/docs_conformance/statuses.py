"""Status codes and rejections, from dicom/status.py, receive/ and deliver/."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import dicomnode.receive
from dicomnode.assemble import finding
from dicomnode.deliver.ledger import WHOLE_AGAIN
from dicomnode.deliver.sending import REFUSED_CLASS
from dicomnode.dicom.status import Disposition, Status, describe_status, storage_disposition
from dicomnode.receive import admission
from dicomnode.receive.admission import Rejection
from tests.docs_conformance.markdown import table

_PROVIDED = {
    Status.SUCCESS: "The file is fsynced under its final name, its folder too, its database row and audit record are "
    "committed. Also for an Instance that came before with the same bytes (counted, kept once), and for one that came "
    "before with other bytes (kept beside the first as a *conflict*, shown, never analysed).",
    Status.OUT_OF_RESOURCES: "Disk below `receive.min_free_bytes`, disk or database failure, a data set of more than "
    "`receive.max_instance_bytes`, or the node is stopping. "
    "Nothing is kept; send again.",
    Status.DATA_SET_DOES_NOT_MATCH_SOP_CLASS: "SOP Instance UID or SOP Class UID of the data set is not that of the "
    "command or of the Presentation Context. Nothing is kept; audited.",
    Status.CANNOT_UNDERSTAND: "The data set cannot be parsed to its end (no length, that of Pixel Data or a fragment "
    "included, may go beyond it), or its Study, Series, SOP Class or SOP Instance UID is "
    "missing, multi-valued or not a valid UID. Nothing is kept; audited.",
    Status.SOP_CLASS_NOT_SUPPORTED: "The request is none of its Presentation Context: C-STORE in one of Verification "
    "or Storage Commitment, C-ECHO in one of Storage. Nothing is kept.",
    Status.PROCESSING_FAILURE: "An error of the node itself. Nothing is acknowledged; audited.",
}
_OF_COMMITMENT = frozenset({Status.UNRECOGNIZED_OPERATION, Status.RESOURCE_LIMITATION})
"""Answers of receive/ to storage commitment requests, which are for an SCP; see services.py."""

_ACTIONS = {
    Disposition.STORED: "Delivered; recorded and audited.",
    Disposition.STORED_WITH_WARNING: "Delivered with a warning: the status is recorded, shown and audited.",
    Disposition.TRANSIENT: "Tried again with back-off (4.4); audited.",
    Disposition.PERMANENT: "Not tried again: dead letter, shown to the operator, who can requeue it; audited.",
}
_REFUSED = "The kind of object is refused as a whole: another stands in for it (4.2.2.3); audited."
_RESULTS = {0: "none", 1: "rejected-permanent", 2: "rejected-transient"}
_SOURCES = {1: "service-user", 3: "service-provider (presentation)"}


def sections() -> dict[str, str]:
    """The tables of this module."""
    return {
        "storage-scp-status": _provided(),
        "storage-scu-status": _handled(),
        "query-scu-status": _query(),
        "association-rejections": _rejections(),
    }


def _provided() -> str:
    named = {Status[name] for name in statuses_named_in(Path(dicomnode.receive.__file__).parent)}
    if other := (named - _OF_COMMITMENT) ^ set(_PROVIDED):
        raise ValueError(f"receive/ answers with other statuses than described: {other}")
    rows = ((_class(status), f"`0x{status:04X}`", _words(status), text) for status, text in _PROVIDED.items())
    return table(("service status", "code", "meaning", "when, and what the node did"), rows)


def statuses_named_in(folder: Path) -> set[str]:
    """The members of ``Status`` that the modules of a room speak of."""
    names: set[str] = set()
    for module in sorted(folder.glob("*.py")):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Status":
                names.add(node.attr)
    return names


def _class(status: int) -> str:
    if status == Status.SUCCESS:
        return "Success"
    disposition = storage_disposition(status)
    return "Warning" if disposition is Disposition.STORED_WITH_WARNING else "Failure"


def _words(status: int | None) -> str:
    return describe_status(status).partition(" ")[2]


def _handled() -> str:
    refused = {f"0x{code:04X}" for code in REFUSED_CLASS}
    rows = [
        (f"`{code}`", words, disposition.value, _REFUSED if code in refused else _ACTIONS[disposition])
        for code, words, disposition in handled_codes()
    ]
    lost = storage_disposition(None)
    again = (
        f"{_ACTIONS[lost]} The whole batch again in the first {WHOLE_AGAIN} attempts, then only what was not "
        "acknowledged: derived UIDs make sending again harmless."
    )
    rows.append(("none", "no response in time, Association lost", lost.value, again))
    return table(("code", "meaning", "taken as", "behaviour"), rows)


def handled_codes() -> Iterator[tuple[str, str, Disposition]]:
    """Every one of the 65,536 codes, those in a row that mean the same put together: (range, words, disposition)."""
    start, previous = 0, _meaning(0)
    for code in range(1, 0x10001):
        now = _meaning(code) if code <= 0xFFFF else None
        if now != previous:
            shown = f"0x{start:04X}" if start == code - 1 else f"0x{start:04X}–0x{code - 1:04X}"
            if previous is not None and previous[0] != "unknown status":
                yield shown, *previous
            start, previous = code, now
    yield "any other", "unknown status", storage_disposition(0x0001 + 0x4000)


def _meaning(code: int) -> tuple[str, Disposition] | None:
    return _words(code), storage_disposition(code)


def _query() -> str:
    pending = ", ".join(f"`0x{code:04X}`" for code in finding.PENDING)
    counted = (
        "The number of Series Related Instances, or else of IMAGE level matches, is taken as the count of the Series; "
        "no match is no answer."
    )
    other = (
        f"No answer: the Series is decided by other evidence. The same after {finding.TIMEOUT_S:g} s and after "
        f"{finding.MAX_ANSWERS:,} matches."
    )
    rows = [
        (pending, "Pending", "The answer is counted when it is about the Series asked for."),
        (f"`0x{finding.SUCCESS:04X}`", "Success", counted),
        ("any other, or none", "", other),
    ]
    return table(("code", "service status", "behaviour"), rows)


def _rejections() -> str:
    found = [value for value in vars(admission).values() if isinstance(value, Rejection)]
    rows = (
        (f"{one.result}, {_RESULTS[one.result]}", f"{one.source}, {_SOURCES[one.source]}", one.diagnostic, one.reason)
        for one in found
    )
    return table(("result", "source", "reason/diagnostic", "when"), rows)
