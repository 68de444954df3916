"""Storage SCU and Verification SCU (PS3.4 annexes B and A)."""

from __future__ import annotations

import itertools
import struct
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.dataelem import RawDataElement
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID
from pynetdicom import _config as pynetdicom_settings
from pynetdicom.association import Association
from pynetdicom.presentation import build_context

from dicomnode.config.peers import Peer
from dicomnode.deliver.association import NothingAccepted, SendLimits, association
from dicomnode.deliver.contexts import accepted_pairs, batches, contexts_for, is_convertible
from dicomnode.deliver.sending import REFUSED_CLASS, OutboundFile, SentStatus, failed, not_sent
from dicomnode.dicom.sop_classes import VERIFICATION, sop_class_name
from dicomnode.dicom.status import Disposition, describe_status, storage_disposition
from dicomnode.dicom.transfer_syntaxes import EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN
from dicomnode.errors import Permanent, Transient

# A documented setting of pynetdicom: a file given by its path is sent byte by byte, in pieces, never decoded.
pynetdicom_settings.STORE_SEND_CHUNKED_DATASET = True

_UNDEFINED_LENGTH = 0xFFFFFFFF
_ABORTED = "the peer aborted the association"
# What pydicom raises on damaged file meta information; pynetdicom reads it. The last one is a RuntimeError too.
_DAMAGED_META = (InvalidDicomError, EOFError, AttributeError, KeyError, TypeError, struct.error, NotImplementedError)
_UNREADABLE = (
    InvalidDicomError,
    OSError,
    EOFError,
    ValueError,
    AttributeError,
    KeyError,
    TypeError,
    NotImplementedError,
    struct.error,
)


@dataclass(frozen=True, slots=True)
class EchoResult:
    """Answer to C-ECHO; ``seconds`` from the Association request to the response."""

    ok: bool
    reason: str
    seconds: float


def echo(peer: Peer, calling_ae: str, limits: SendLimits | None = None) -> EchoResult:
    """Ask ``peer`` by C-ECHO whether it is there and knows us (PS3.4 annex A); network failures are answers."""
    limits, started = limits or SendLimits(dimse_s=10.0, acse_s=10.0), time.monotonic()
    try:
        with association(peer, calling_ae, [build_context(VERIFICATION)], limits) as opened:
            status = opened.send_c_echo().get("Status")
    except (Transient, NothingAccepted) as error:
        return EchoResult(False, str(error), time.monotonic() - started)  # noqa: FBT003 - a field
    return EchoResult(status == 0, describe_status(status), time.monotonic() - started)


def send_files(
    peer: Peer, calling_ae: str, files: Sequence[OutboundFile], limits: SendLimits | None = None
) -> Generator[SentStatus, None, None]:
    """Send ``files`` by C-STORE and yield one SentStatus for each, in order.

    One Association, more only when the files need over 128 Presentation Contexts. Every SOP Class is proposed in the
    file's own Transfer Syntax, by itself, and in Explicit and Implicit VR Little Endian. Where its own is accepted
    the data set leaves byte for byte; otherwise an uncompressed one is converted and a compressed one refused.
    Network failures raise nothing: the files that got no response come as transient, with the reason. Closing the
    iterator releases the Association.
    """
    limits = limits or SendLimits()
    remaining = list(batches(files))
    while remaining:
        batch = remaining.pop(0)
        with closing(_send_batch(peer, calling_ae, batch, limits)) as answers:
            lost = ""
            for answer in answers:
                lost = answer.reason if answer.lost else ""
                yield answer
        if lost:
            yield from (not_sent(file, lost) for file in itertools.chain.from_iterable(remaining))
            return


def _send_batch(
    peer: Peer, calling_ae: str, files: Sequence[OutboundFile], limits: SendLimits
) -> Generator[SentStatus, None, None]:
    position = 0
    try:
        with association(peer, calling_ae, contexts_for(files), limits) as opened:
            accepted, reason = accepted_pairs(opened), ""
            for file in files:
                if reason or not opened.is_established:
                    answer = not_sent(file, reason or _ABORTED)
                else:
                    answer = _send_one(opened, accepted, file, position % 0xFFFF + 1, limits)
                    reason = answer.reason if answer.lost else ""
                position += 1
                yield answer
    except NothingAccepted:
        yield from (_not_accepted(frozenset(), file) for file in files[position:])
    except Transient as error:
        yield from (not_sent(file, str(error)) for file in files[position:])


def _send_one(
    opened: Association, accepted: frozenset[tuple[str, str]], file: OutboundFile, message_id: int, limits: SendLimits
) -> SentStatus:
    try:
        payload = _payload(accepted, file)
        size = file.path.stat().st_size
    except OSError:
        return failed(file, "the file cannot be read")
    except Permanent as error:
        return failed(file, str(error))
    if payload is None:
        return _not_accepted(accepted, file)
    opened.dimse_timeout = limits.dimse_s + size / limits.slowest_bytes_s
    started = time.monotonic()
    try:
        answer = opened.send_c_store(payload, msg_id=message_id)
    except OSError as error:
        raise Transient("the file could not be read while it was sent") from error
    except ValueError:
        return failed(file, "the data set cannot be encoded")
    except _DAMAGED_META:
        return failed(file, "the file meta information is damaged")
    except RuntimeError:
        return not_sent(file, _ABORTED)
    status = answer.get("Status")
    if status is None:
        return SentStatus(file, Disposition.TRANSIENT, None, _silence(opened, time.monotonic() - started), tried=True)
    refused = status in REFUSED_CLASS
    return SentStatus(file, storage_disposition(status), status, describe_status(status), tried=True, refused=refused)


def _payload(accepted: frozenset[tuple[str, str]], file: OutboundFile) -> Path | Dataset | None:
    """What to give to pynetdicom: the path for byte-exact sending, a Dataset for conversion, None if unacceptable."""
    exact = (file.SOPClassUID, file.TransferSyntaxUID) in accepted
    if exact and file.meta_agrees:
        return file.path
    plain = {(file.SOPClassUID, syntax) for syntax in (EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN)}
    if not exact and not (is_convertible(file.TransferSyntaxUID) and plain & accepted):
        return None
    try:
        dataset = dcmread(file.path)
    except _UNREADABLE as error:
        raise Permanent("the file is no readable DICOM file") from error
    if any(_is_cut(dataset.get_item(tag)) for tag in dataset.keys()):  # noqa: SIM118 - no decoding
        raise Permanent("the file is cut off")
    return dataset


def _is_cut(element: Any) -> bool:
    """pydicom reads a value that ends with the file too early without a word."""
    if not isinstance(element, RawDataElement) or element.value is None:
        return False
    return element.length != _UNDEFINED_LENGTH and len(element.value) != element.length


def _silence(opened: Association, seconds: float) -> str:
    if seconds >= (opened.dimse_timeout or 0):
        return f"no response to C-STORE within {seconds:.0f} s"
    return "the peer aborted the association or closed the connection"


def _not_accepted(accepted: frozenset[tuple[str, str]], file: OutboundFile) -> SentStatus:
    """A class of which another Transfer Syntax is accepted is not refused."""
    wanted = f"{sop_class_name(file.SOPClassUID)} in {UID(file.TransferSyntaxUID).name}"
    refused = file.SOPClassUID not in {sop_class for sop_class, _ in accepted}
    return replace(failed(file, f"the peer does not accept {wanted}"), refused=refused)
