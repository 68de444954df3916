"""What the child of ``returning`` does: it alone parses what came back."""

from __future__ import annotations

import hashlib
import warnings
from base64 import b64decode
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID

from dicomnode.deid.part10 import parse_part10
from dicomnode.deid.refusal import Quarantined, Reason
from dicomnode.deid.reidentify import asked_of, put_back
from dicomnode.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicomnode.errors import Transient
from dicomnode.sandbox import Room

_UNREADABLE = (ValueError, TypeError, AttributeError, KeyError, NotImplementedError, OverflowError)
_LONGEST_NAME = 128
"""No pseudonym, and no Study's UID with a day, is longer."""


def ask_in_child(request: Any, room: Room) -> dict[str, Any]:
    """Runs in the child: ``asked_of`` of the file ``request["path"]``."""
    del room
    return _guarded(lambda: _ask(request))


def put_back_in_child(request: Any, room: Room) -> dict[str, Any]:
    """Runs in the child: ``put_back`` of the file ``request["path"]``; the new file fills a block."""
    return _guarded(lambda: _put_back(request, room))


def _ask(request: Any) -> dict[str, Any]:
    dataset, _, sha256 = _read(Path(request["path"]))
    asked = asked_of(dataset)
    return {
        "sha256": sha256,
        "study": asked.StudyInstanceUID,
        "patient": asked.PatientID,
        "instance": asked.SOPInstanceUID,
        "names": [name for name in asked.names if len(name[1]) <= _LONGEST_NAME],
    }


def _put_back(request: Any, room: Room) -> dict[str, Any]:
    dataset, syntax, sha256 = _read(Path(request["path"]))
    found = {(kind, name): content for kind, name, content in request["found"]}
    identity = dcmread(BytesIO(b64decode(request["identity"])), force=True)
    result, translated = put_back(dataset, found, request["study"], identity)
    content = _written(result, syntax)
    room.block(len(content)).write(0, content)
    return {"sha256": sha256, "translated": translated}


def _guarded(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom quotes element values in its warnings
        try:
            return work()
        except Quarantined as refusal:
            return {"held": refusal.reason, "detail": refusal.detail[:200]}
        except _UNREADABLE as error:
            return {"held": Reason.MALFORMED, "detail": f"it cannot be decoded: {type(error).__name__}"}
        except OSError as error:
            raise Transient(f"the file cannot be read: error {error.errno}") from error


def _read(path: Path) -> tuple[Dataset, str, str]:
    """The data set, its Transfer Syntax UID, the SHA-256 of the file. Raises Quarantined, OSError."""
    content = path.read_bytes()
    syntax = parse_part10(content).transfer_syntax
    return dcmread(BytesIO(content), force=True), syntax, hashlib.sha256(content).hexdigest()


def _written(dataset: Dataset, transfer_syntax: str) -> memoryview:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = UID(transfer_syntax)
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    dataset.file_meta = meta
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getbuffer()
