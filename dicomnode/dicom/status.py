"""DIMSE status codes (PS3.7 annex C, PS3.4 table B.2-1) and what a Storage SCU does after each."""

from __future__ import annotations

from enum import IntEnum, StrEnum


class Status(IntEnum):
    """The codes the node sends or handles by name."""

    SUCCESS = 0x0000
    REQUESTED_OPTIONAL_ATTRIBUTES_NOT_SUPPORTED = 0x0001
    ATTRIBUTE_LIST_ERROR = 0x0107
    PROCESSING_FAILURE = 0x0110
    DUPLICATE_SOP_INSTANCE = 0x0111
    NO_SUCH_OBJECT_INSTANCE = 0x0112
    ATTRIBUTE_VALUE_OUT_OF_RANGE = 0x0116
    INVALID_SOP_INSTANCE = 0x0117
    NO_SUCH_SOP_CLASS = 0x0118
    CLASS_INSTANCE_CONFLICT = 0x0119
    SOP_CLASS_NOT_SUPPORTED = 0x0122
    NOT_AUTHORIZED = 0x0124
    DUPLICATE_INVOCATION = 0x0210
    UNRECOGNIZED_OPERATION = 0x0211
    MISTYPED_ARGUMENT = 0x0212
    RESOURCE_LIMITATION = 0x0213
    OUT_OF_RESOURCES = 0xA700
    DATA_SET_DOES_NOT_MATCH_SOP_CLASS = 0xA900
    COERCION_OF_DATA_ELEMENTS = 0xB000
    ELEMENTS_DISCARDED = 0xB006
    DATA_SET_DOES_NOT_MATCH_SOP_CLASS_WARNING = 0xB007
    CANNOT_UNDERSTAND = 0xC000
    CANCEL = 0xFE00
    PENDING = 0xFF00


class Disposition(StrEnum):
    """What a C-STORE response means for the object that was sent."""

    STORED = "stored"
    STORED_WITH_WARNING = "stored with warning"
    TRANSIENT = "transient"
    PERMANENT = "permanent"

    @property
    def accepted(self) -> bool:
        """True when the peer holds the object now."""
        return self in (Disposition.STORED, Disposition.STORED_WITH_WARNING)


_WARNINGS = frozenset(
    {
        Status.REQUESTED_OPTIONAL_ATTRIBUTES_NOT_SUPPORTED,
        Status.ATTRIBUTE_LIST_ERROR,
        Status.ATTRIBUTE_VALUE_OUT_OF_RANGE,
        Status.DUPLICATE_SOP_INSTANCE,
    }
)
_NAMES = {status.value: status.name.lower().replace("_", " ") for status in Status}
_TRANSIENT = frozenset({Status.PROCESSING_FAILURE, Status.RESOURCE_LIMITATION, Status.DUPLICATE_INVOCATION})


def storage_disposition(status: int | None) -> Disposition:
    """Classify a C-STORE response as a Storage SCU has to treat it (PS3.4 B.2.3, PS3.7 C).

    ``None`` stands for no response, or a lost association: transient, since the UIDs make sending again idempotent.
    0xA7xx, 0x0110, 0x0210 and 0x0213 may pass; 0xA9xx, 0xCxxx, 0x0122, 0x0124 and all unknown codes will not.
    0x0111 comes when the response to an earlier attempt was lost: the archive holds the object, and its UID, derived
    from its content, proves it the same.
    """
    if status is None or status >> 8 == 0xA7 or status in _TRANSIENT:
        return Disposition.TRANSIENT
    if status == Status.SUCCESS:
        return Disposition.STORED
    if status >> 12 == 0xB or status in _WARNINGS:
        return Disposition.STORED_WITH_WARNING
    return Disposition.PERMANENT


def describe_status(status: int | None) -> str:
    """Return code and name for logs and tables, for example ``0xA700 out of resources``."""
    if status is None:
        return "no response"
    return f"0x{status:04X} {_name(status)}"


def _name(status: int) -> str:
    if status in _NAMES:
        return _NAMES[status]
    ranges = {0xA7: Status.OUT_OF_RESOURCES, 0xA9: Status.DATA_SET_DOES_NOT_MATCH_SOP_CLASS}
    if status >> 8 in ranges:
        return _name(ranges[status >> 8])
    return {0xB: "warning", 0xC: _name(Status.CANNOT_UNDERSTAND)}.get(status >> 12, "unknown status")
