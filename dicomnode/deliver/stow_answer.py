"""What the answer to a Store request says about each Instance (PS3.18 10.5.3 and annex I)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from dicomnode.deliver.sending import REFUSED_CLASS, OutboundFile, SentStatus, stored
from dicomnode.deliver.web import HttpAnswer
from dicomnode.dicom.status import Disposition, Status, describe_status, storage_disposition

_FAILED_SOP_SEQUENCE, _REFERENCED_SOP_SEQUENCE = "00081198", "00081199"
_REFERENCED_SOP_INSTANCE_UID = "00081155"
_WARNING_REASON, _FAILURE_REASON = "00081196", "00081197"

_ALL_STORED = frozenset({200, 201, 204})
_JUDGED = _ALL_STORED | {202, 400, 409}
"""Those whose payload may tell of each Instance; with 400 Orthanc's does."""
_NEVER = frozenset({400, 406, 409, 411, 413, 415, 422, 501})
"""About the request itself: the same one meets the same answer."""
_SOME = frozenset({202, 400, 409, 413, 422})
"""One Instance may have spoiled the request."""
_WEB_PAGES = frozenset({"text/html", "application/xhtml+xml"})
"""What a login page or a web site in the wrong place answers, 200 too, and a DICOMweb server never."""
_HINTS = {
    401: "its token is missing, expired or wrong",
    403: "its token does not allow storing",
    404: "check its URL",
    405: "check its URL",
    409: "a conflict that it does not explain",
    413: "too large for it",
}


@dataclass(frozen=True, slots=True)
class Told:
    """The Instances that an answer names, by SOP Instance UID: with WarningReason, with FailureReason, if any."""

    stored: Mapping[str, int | None]
    failed: Mapping[str, int | None]

    @property
    def anything(self) -> bool:
        """True when the answer names an Instance at all."""
        return bool(self.stored or self.failed)


def told(answer: HttpAnswer) -> Told | None:
    """The Store Instances Response Module of ``answer`` in JSON (PS3.18 F.2); None when there is none."""
    if answer.status not in _JUDGED:
        return None
    try:
        payload = json.loads(answer.content or b"")
    except (ValueError, RecursionError):
        return None
    dataset = (payload or [{}])[0] if isinstance(payload, list) else payload
    if not isinstance(dataset, dict):
        return None
    return Told(
        _reasons(dataset, _REFERENCED_SOP_SEQUENCE, _WARNING_REASON),
        _reasons(dataset, _FAILED_SOP_SEQUENCE, _FAILURE_REASON),
    )


def unexplained(answer: HttpAnswer, named: Told | None, files: Sequence[OutboundFile]) -> list[OutboundFile]:
    """Those of ``files`` that another one may have spoiled the request for: sent alone they may be good."""
    if len(files) == 1 or answer.status not in _SOME:
        return []
    return [file for file in files if named is None or file.SOPInstanceUID not in {*named.stored, *named.failed}]


def judge(answer: HttpAnswer, named: Told | None, file: OutboundFile) -> SentStatus:
    """What ``answer``, in which ``told`` found ``named``, means for ``file``."""
    uid = file.SOPInstanceUID
    if named is not None and uid in named.failed:
        return _failed(file, named.failed[uid])
    if named is not None and uid in named.stored:
        return _stored(file, named.stored[uid])
    if named is not None and named.anything and answer.status not in _NEVER:
        return SentStatus(file, Disposition.TRANSIENT, None, "the answer does not name this instance", tried=True)
    return _as_a_whole(file, answer, readable=named is not None or answer.content == b"")


def _stored(file: OutboundFile, warning: int | None) -> SentStatus:
    if not warning:
        return stored(file)
    return SentStatus(file, Disposition.STORED_WITH_WARNING, warning, describe_status(warning), tried=True)


def _failed(file: OutboundFile, failure: int | None) -> SentStatus:
    """Failure Reason has the values of a C-STORE status (PS3.18 table I.2-2).

    A warning among the failures is a failure: only 0x0111 says that the peer holds the Instance.
    """
    if not failure:
        return SentStatus(file, Disposition.PERMANENT, None, "not stored, and the peer gives no reason", tried=True)
    disposition, refused = storage_disposition(failure), failure in REFUSED_CLASS
    if disposition.accepted and failure != Status.DUPLICATE_SOP_INSTANCE:
        disposition = Disposition.PERMANENT
    return SentStatus(file, disposition, failure, describe_status(failure), tried=True, refused=refused)


def _as_a_whole(file: OutboundFile, answer: HttpAnswer, *, readable: bool) -> SentStatus:
    """The status line alone; 200 means that all Instances are stored (PS3.18 table 10.5.3-1)."""
    reason = describe_http(answer.status)
    if answer.status in _ALL_STORED and answer.content != b"" and answer.media_type in _WEB_PAGES:
        reason = f"{reason}, with a web page: it is no DICOMweb server, check its URL"
        return SentStatus(file, Disposition.TRANSIENT, None, reason, tried=True)
    if answer.status in _ALL_STORED:
        if readable:
            return stored(file)
        reason = f"{reason}, in an answer that cannot be read"
        return SentStatus(file, Disposition.STORED_WITH_WARNING, 0, reason, tried=True)
    if answer.status in _NEVER:
        return SentStatus(file, Disposition.PERMANENT, None, reason, tried=True)
    wait = answer.retry_after_s
    return SentStatus(file, Disposition.TRANSIENT, None, reason, tried=True, retry_after_s=wait)


def describe_http(status: int) -> str:
    """For example ``HTTP 401 Unauthorized: its token is missing, expired or wrong``."""
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else "unknown"
    hint = "it redirects, correct its URL" if 300 <= status < 400 else _HINTS.get(status, "")
    return f"HTTP {status} {phrase}: {hint}" if hint else f"HTTP {status} {phrase}"


def _reasons(dataset: Any, sequence: str, reason: str) -> dict[str, int | None]:
    items = _values(dataset, sequence)
    uids = [(_values(item, _REFERENCED_SOP_INSTANCE_UID), _values(item, reason)) for item in items]
    return {str(uid[0]).strip(): _code(codes) for uid, codes in uids if uid}


def _values(dataset: Any, tag: str) -> list[Any]:
    element = dataset.get(tag) if isinstance(dataset, dict) else None
    value = element.get("Value") if isinstance(element, dict) else None
    return value if isinstance(value, list) else []


def _code(values: list[Any]) -> int | None:
    """Some peers write the number as text."""
    text = str(values[0]).strip() if values else ""
    return int(text) if text.isdecimal() and len(text) <= 5 else None
