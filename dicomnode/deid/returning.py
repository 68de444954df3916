"""A file that came back: bytes in, bytes out, the reading of the vault written down before it happens."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from pydicom import Dataset, dcmread, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID

from dicomnode.audit import append
from dicomnode.audit.events import Event
from dicomnode.deid.part10 import parse_part10
from dicomnode.deid.refusal import Quarantined, Reason
from dicomnode.deid.reidentify import Reidentified, Reidentifier
from dicomnode.deid.vault import Vault
from dicomnode.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicomnode.store.engine import Store

_UNWRITABLE = (ValueError, TypeError, AttributeError, KeyError, NotImplementedError, OverflowError)


@dataclass(frozen=True, slots=True)
class Returned:
    """A result under its patient's identity as a file. ``before``, ``after``: SHA-256 of both files."""

    content: bytes
    result: Reidentified
    before: str
    after: str

    @property
    def line(self) -> dict[str, Any]:
        """For an audit body."""
        uid = str(self.result.dataset.SOPInstanceUID)
        hashes = {"sha256_before": self.before, "sha256_after": self.after}
        return {"SOPInstanceUID": uid, **hashes, "uids_translated": self.result.translated}


def give_back(reidentifier: Reidentifier, content: bytes, tell: Callable[[Sequence[int]], None]) -> Returned:
    """Re-identify a file that came back. ``tell``: as for ``Reidentifier.apply``.

    Raises Quarantined when it is not known beyond doubt whose it is, or is not readable.
    """
    part = parse_part10(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom quotes element values in its warnings
        try:
            result = reidentifier.apply(dcmread(BytesIO(content), force=True), tell)
            written = _written(result.dataset, part.transfer_syntax)
        except _UNWRITABLE as error:
            raise Quarantined(Reason.MALFORMED, f"it cannot be decoded: {type(error).__name__}") from None
    return Returned(written, result, hashlib.sha256(content).hexdigest(), hashlib.sha256(written).hexdigest())


def reader_of(vault: Vault, store: Store, facts: Mapping[str, Any]) -> Callable[[Sequence[int]], None]:
    """What commits the audit row about reading ``vault``, with ``facts``: who reads and what for (trust D19)."""

    def tell(rows: Sequence[int]) -> None:
        with store.write() as session:
            append(session, Event.VAULT_READ, {**facts, "vault_key": vault.key_id, "rows": list(rows)})

    return tell


def _written(dataset: Dataset, transfer_syntax: str) -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = UID(transfer_syntax)
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    dataset.file_meta = meta
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()
