"""Storage Commitment Push Model: the words of its request and of its report (PS3.4 annex J, PS3.3 C.14)."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from io import BytesIO
from typing import Any, cast

from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.sequence import Sequence
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.dsutils import decode
from pynetdicom.events import Event

from dicomnode.dicom.faults import PYDICOM_FAULTS
from dicomnode.dicom.header import require_whole
from dicomnode.dicom.header_source import MalformedHeader
from dicomnode.dicom.references import require_uid
from dicomnode.dicom.sop_classes import STORAGE_COMMITMENT_PUSH
from dicomnode.dicom.transfer_syntaxes import IMPLICIT_LITTLE_ENDIAN
from dicomnode.errors import Refusal

PUSH_MODEL_INSTANCE = "1.2.840.10008.1.20.1.1"
"""The well-known SOP Instance that every request and report is about (PS3.4 J.3.5)."""

REQUEST_ACTION = 1
"""Action Type ID of "Request Storage Commitment" (PS3.4 J.3.2.1)."""

COMMITTED = 0
MAX_REPORT_BYTES = 2 * 1024 * 1024
_EVENT_TYPES = frozenset({1, 2})
_UNREADABLE = (
    MalformedHeader,
    *PYDICOM_FAULTS,
    EOFError,
    OSError,
    ValueError,
    AttributeError,
    KeyError,
    TypeError,
    NotImplementedError,
    RecursionError,
    struct.error,
)


class FailureReason(IntEnum):
    """Failure Reason (0008,1197) of an Instance that is not committed (PS3.3 C.14.1.1)."""

    PROCESSING_FAILURE = 0x0110
    NO_SUCH_OBJECT_INSTANCE = 0x0112
    CLASS_INSTANCE_CONFLICT = 0x0119
    REFERENCED_SOP_CLASS_NOT_SUPPORTED = 0x0122
    DUPLICATE_TRANSACTION_UID = 0x0131
    RESOURCE_LIMITATION = 0x0213


class EventStatus(IntEnum):
    """The answers to an N-EVENT-REPORT that the node gives (PS3.7 10.1.1.1.8)."""

    SUCCESS = 0x0000
    NO_SUCH_SOP_INSTANCE = 0x0112
    NO_SUCH_EVENT_TYPE = 0x0113
    INVALID_ARGUMENT_VALUE = 0x0115
    NO_SUCH_SOP_CLASS = 0x0118
    RESOURCE_LIMITATION = 0x0213


class Remedy(StrEnum):
    """What to do about an Instance that is not committed."""

    SEND_AGAIN = "send again"
    ASK_AGAIN = "ask again"
    NONE = "give up"


_REMEDIES: dict[int, Remedy] = {
    FailureReason.PROCESSING_FAILURE: Remedy.SEND_AGAIN,
    FailureReason.NO_SUCH_OBJECT_INSTANCE: Remedy.SEND_AGAIN,
    FailureReason.RESOURCE_LIMITATION: Remedy.SEND_AGAIN,
    FailureReason.DUPLICATE_TRANSACTION_UID: Remedy.ASK_AGAIN,
}
_NAMES = {reason.value: reason.name.lower().replace("_", " ") for reason in FailureReason}
_WARNINGS = frozenset({0x0001, 0x0107, 0x0116})


@dataclass(frozen=True, slots=True)
class CommitmentReport:
    """An N-EVENT-REPORT. ``reasons``: SOP Instance UID to Failure Reason, 0 for committed."""

    TransactionUID: str
    reasons: Mapping[str, int]


def remedy(reason: int | None) -> Remedy:
    """What helps against ``reason``, None for an Instance that the report does not mention."""
    return Remedy.ASK_AGAIN if reason is None else _REMEDIES.get(reason, Remedy.NONE)


def describe_reason(reason: int | None) -> str:
    """Code and name for logs and tables, for example ``0x0112 no such object instance``."""
    if reason is None:
        return "not mentioned in the report"
    return f"0x{reason:04X} {_NAMES.get(reason, 'unknown reason')}"


def is_accepted(status: int | None) -> bool:
    """Does this N-ACTION response mean that a report will come? Success or a warning (PS3.7 annex C)."""
    return status is not None and (status == 0 or status >> 12 == 0xB or status in _WARNINGS)


def request_dataset(transaction: str, instances: Iterable[tuple[str, str]]) -> Dataset:
    """The Action Information (PS3.4 table J.3-1) for ``instances``: (SOP Class UID, SOP Instance UID)."""
    dataset = Dataset()
    dataset.TransactionUID = transaction
    dataset.ReferencedSOPSequence = Sequence(_reference(*pair) for pair in instances)
    return dataset


@dataclass(frozen=True, slots=True)
class EventReport:
    """An N-EVENT-REPORT-RQ as it came (PS3.7 10.1.1). ``content``: its Event Information, undecoded."""

    SOPClassUID: str
    SOPInstanceUID: str
    EventTypeID: int
    abstract_syntax: str
    transfer_syntax: str
    content: bytes


def read_report(event: Event) -> CommitmentReport:
    """The report in pynetdicom's N-EVENT-REPORT ``event``. Raises Refusal with the status to answer."""
    asked = cast("N_EVENT_REPORT", event.request)
    content = asked.EventInformation.getbuffer() if asked.EventInformation is not None else b""
    titles = str(asked.AffectedSOPClassUID), str(asked.AffectedSOPInstanceUID), asked.EventTypeID or 0
    context = str(event.context.abstract_syntax), str(event.context.transfer_syntax)
    return read_event_report(EventReport(*titles, *context, bytes(content[: MAX_REPORT_BYTES + 1])))


def read_event_report(asked: EventReport) -> CommitmentReport:
    """The report in ``asked``. Raises Refusal with the status to answer."""
    if {asked.SOPClassUID, asked.abstract_syntax} != {STORAGE_COMMITMENT_PUSH}:
        raise Refusal(EventStatus.NO_SUCH_SOP_CLASS, "event report that is not of storage commitment")
    if asked.SOPInstanceUID != PUSH_MODEL_INSTANCE:
        raise Refusal(EventStatus.NO_SUCH_SOP_INSTANCE, "event report of an unknown SOP Instance")
    return decode_report(asked.EventTypeID, asked.content, asked.transfer_syntax)


def decode_report(event_type: int, content: bytes, transfer_syntax: str) -> CommitmentReport:
    """Decode the Event Information (PS3.4 tables J.3-2 and J.3-3), in a plain Little Endian ``transfer_syntax``.

    The content decides, not ``event_type``: an Instance in both sequences, and one that failed for no valid reason,
    counts as failed. Raises Refusal: 0x0113 for another event, 0x0115 for a report that cannot be understood,
    0x0213 for one of more than MAX_REPORT_BYTES.
    """
    if event_type not in _EVENT_TYPES:
        raise Refusal(EventStatus.NO_SUCH_EVENT_TYPE, "storage commitment event of an unknown type")
    if len(content) > MAX_REPORT_BYTES:
        raise Refusal(EventStatus.RESOURCE_LIMITATION, "storage commitment report is too large")
    try:
        require_whole(content, transfer_syntax)
        return _report(decode(BytesIO(content), transfer_syntax == IMPLICIT_LITTLE_ENDIAN, True))  # noqa: FBT003 - the library's argument
    except _UNREADABLE as error:
        raise Refusal(EventStatus.INVALID_ARGUMENT_VALUE, "malformed storage commitment report") from error


def _report(dataset: Dataset) -> CommitmentReport:
    transaction = _uid(dataset, "TransactionUID")
    if not ("ReferencedSOPSequence" in dataset or "FailedSOPSequence" in dataset):
        raise ValueError("it names no Instance")
    committed = (_uid(item, "ReferencedSOPInstanceUID") for item in _items(dataset, "Referenced"))
    reasons = dict.fromkeys(committed, COMMITTED)
    for item in _items(dataset, "Failed"):
        reasons[_uid(item, "ReferencedSOPInstanceUID")] = _reason(item)
    return CommitmentReport(transaction, reasons)


def _items(dataset: Dataset, which: str) -> Iterator[Dataset]:
    keyword = f"{which}SOPSequence"
    if keyword in dataset:
        yield from dataset[keyword].value or ()


def _uid(dataset: Dataset, keyword: str) -> str:
    """As it was sent: pydicom would warn, with the value, of one that is not valid."""
    value = _raw(dataset, keyword)
    text = value.decode("ascii") if isinstance(value, bytes) else str(value or "")
    return require_uid(text.strip("\0 "))


def _reason(item: Dataset) -> int:
    value = _raw(item, "FailureReason")
    if isinstance(value, bytes):
        value = int.from_bytes(value, "little") if len(value) == 2 else 0
    return value if isinstance(value, int) and value else FailureReason.PROCESSING_FAILURE


def _raw(dataset: Dataset, keyword: str) -> Any:
    element = dataset.get_item(tag_for_keyword(keyword) or 0)
    return None if element is None else element.value


def _reference(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
    return item
