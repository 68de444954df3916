"""What each kind of row is in PS3.15 A.5: its code, action and the shape of its message.

Codes of DICOM are those of PS3.16 CID 400 to 403; where the standard has no event there is one of the scheme
``99DICOMNODE``, which the conformance statement lists.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dicomnode.audit.events import Event

OWN_SCHEME = "99DICOMNODE"
Shape = Literal["application", "log", "received", "sent", "analysis", "copied", "deleted", "alert", "operation"]
Action = Literal["C", "R", "U", "D", "E"]
Outcome = Literal["0", "4", "8", "12"]


@dataclass(frozen=True, slots=True)
class Code:
    """A coded concept."""

    value: str
    meaning: str
    scheme: str = "DCM"


@dataclass(frozen=True, slots=True)
class Mapped:
    """How a kind of row is told.

    ``shape``: who takes part and what it is about. ``outcome``: when nothing in the row says otherwise.
    """

    event: Code
    action: Action
    shape: Shape
    type: Code | None = None
    outcome: Outcome = "0"


def own(value: str, meaning: str) -> Code:
    """A code of ours."""
    return Code(value, meaning, OWN_SCHEME)


_APPLICATION = Code("110100", "Application Activity")
_LOG_USED = Code("110101", "Audit Log Used")
_BEGIN = Code("110102", "Begin Transferring DICOM Instances")
_TRANSFERRED = Code("110104", "DICOM Instances Transferred")
_DELETED = Code("110105", "DICOM Study Deleted")
_EXPORT = Code("110106", "Export")
_QUERY = Code("110112", "Query")
_ALERT = Code("110113", "Security Alert")
SOURCE = Code("110153", "Source Role ID")
DESTINATION = Code("110152", "Destination Role ID")
APPLICATION = Code("110150", "Application")
STUDY = Code("110180", "Study Instance UID")
_SOFTWARE = Code("110131", "Software Configuration")
NODE_AUTHENTICATION = Code("110126", "Node Authentication")
SECURITY_CONFIGURATION = Code("110129", "Security Configuration")
OBJECT_CHANGED = Code("110135", "Object Security Attributes Changed")


def _image(value: str, meaning: str, action: Action, outcome: Outcome = "0") -> Mapped:
    return Mapped(_TRANSFERRED, action, "received", own(value, meaning), outcome)


def _own(shape: Shape, value: str, meaning: str, outcome: Outcome = "0", action: Action = "E") -> Mapped:
    return Mapped(own(value, meaning), action, shape, None, outcome)


MAPPING: dict[str, Mapped] = {
    Event.APPLICATION_START: Mapped(_APPLICATION, "E", "application", Code("110120", "Application Start")),
    Event.APPLICATION_STOP: Mapped(_APPLICATION, "E", "application", Code("110121", "Application Stop")),
    Event.NODE_RECOVERED: Mapped(
        _APPLICATION, "E", "application", own("node-recovered", "Application recovered after a kill"), "4"
    ),
    Event.CONFIGURATION_CHANGED: Mapped(_ALERT, "U", "alert", _SOFTWARE),
    Event.MODEL_CHANGED: Mapped(_ALERT, "U", "alert", _SOFTWARE),
    Event.SECURITY_ALERT: Mapped(_ALERT, "E", "alert", None, "4"),
    Event.CLOCK_CHANGED: Mapped(_ALERT, "U", "alert", own("clock-changed", "Clock of the machine changed"), "4"),
    Event.AUDIT_LOG_USED: Mapped(_LOG_USED, "R", "log"),
    Event.AUDIT_ARCHIVED: Mapped(own("audit-archived", "Part of the audit log moved to an archive"), "D", "log", None),
    Event.QUERY: Mapped(_QUERY, "E", "sent"),
    Event.BEGIN_TRANSFERRING: Mapped(_BEGIN, "E", "received"),
    Event.INSTANCES_TRANSFERRED: Mapped(_TRANSFERRED, "C", "received"),
    Event.INSTANCE_STORED: _image("instance-stored", "Instance stored", "C"),
    Event.INSTANCE_REPEATED: _image("instance-repeated", "Instance sent again", "R"),
    Event.INSTANCE_CONFLICT: _image("instance-conflict", "Other bytes under a known SOP Instance UID", "U", "4"),
    Event.SERIES_COMPLETE: _own("analysis", "series-complete", "Series taken as complete"),
    Event.SERIES_REOPENED: _own("analysis", "series-reopened", "Series opened again by a late image", action="U"),
    Event.ROUTED: _own("analysis", "routed", "Series given to detectors by rules"),
    Event.NOT_ANALYSED: _own("analysis", "not-analysed", "Series not analysed"),
    Event.INFERENCE: _own("analysis", "inference", "Analysis by a model"),
    Event.STAND_INS: _own("analysis", "stand-ins", "Other objects for the same result made", action="C"),
    Event.STATUS_PAGE: _own("analysis", "status-page", "Page about a series without a result made", action="C"),
    Event.DELIVERED: Mapped(_TRANSFERRED, "R", "sent", own("delivered", "Result delivered")),
    Event.DELIVERY_FAILED: Mapped(_TRANSFERRED, "R", "sent", own("delivery-failed", "Result not delivered"), "4"),
    Event.FELL_BACK: _own("sent", "fell-back", "Destination refuses a kind of object", "4"),
    Event.COMMITMENT_REQUESTED: _own("sent", "commitment-requested", "Storage commitment requested"),
    Event.COMMITTED: _own("sent", "committed", "Storage commitment received"),
    Event.COMMITMENT_FAILED: _own("sent", "commitment-failed", "Storage commitment not received", "4"),
    Event.DRIFT: _own("operation", "drift", "Scores of one place have drifted", "4"),
    Event.DRIFT_ENDED: _own("operation", "drift-ended", "Scores of one place are as before"),
    Event.DEAD_LETTER: _own("operation", "dead-letter", "Job given up", "8"),
    Event.REQUEUED: _own("operation", "requeued", "Job revived by hand"),
    Event.STUDY_DELETED: Mapped(_DELETED, "D", "deleted"),
    Event.EXPORT: Mapped(_EXPORT, "R", "sent", own("export-de-identified", "De-identified copies sent")),
    Event.DEIDENTIFICATION: _own("copied", "de-identification", "De-identified copy made", action="C"),
    Event.RE_IDENTIFICATION: _own("received", "re-identification", "Identity given back to a result", action="U"),
    Event.QUARANTINE: _own("operation", "quarantine", "Held back in doubt", "4"),
    Event.CONSOLE_VIEWED: _own("operation", "console-viewed", "State of the node looked at", action="R"),
    Event.VAULT_READ: _own("operation", "vault-read", "Identities read from the vault", action="R"),
    Event.BACKUP: _own("operation", "backup", "Backup written", action="R"),
    Event.RESTORED: _own("operation", "restored", "Backup became the data of the node", action="U"),
}
"""Every kind of row; ``tests/unit/test_audit_xml.py`` fails when one is missing."""

LOOKED_CODES = ("110101", "110103", "110106", "110114")
"""PS3.15 A.5 events of somebody who saw or took something: audit log used, access, export, login."""


def mapped(kind: str) -> Mapped:
    """How ``kind`` is told; what this version does not know is an operation of that name."""
    found = MAPPING.get(kind)
    return found or _own("operation", kind.replace(" ", "-")[:64] or "unknown", kind[:64] or "unknown")


def looked_kinds() -> tuple[str, ...]:
    """The kinds of row that say who looked: by the standard's codes, at the console, into the vault of identities."""
    standard = (str(kind) for kind, entry in MAPPING.items() if entry.event.value in LOOKED_CODES)
    return (*standard, Event.CONSOLE_VIEWED.value, Event.VAULT_READ.value)
