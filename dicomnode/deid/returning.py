"""A file that came back: a child reads it, the reading of the vault is written down before it happens."""

from __future__ import annotations

import hashlib
import warnings
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydicom import Dataset, dcmwrite

from dicomnode.audit import append
from dicomnode.audit.events import Event
from dicomnode.deid.files import file_sha256
from dicomnode.deid.refusal import Quarantined, Reason
from dicomnode.deid.reidentify import Asked, Identified, Reidentifier
from dicomnode.deid.vault import Kind, Vault
from dicomnode.dicom.header import MalformedHeader, part10_offset, read_header_bytes
from dicomnode.errors import Permanent, Transient
from dicomnode.sandbox import Answer, Sandbox, SandboxLimits
from dicomnode.store.engine import Store

_ASK, _PUT_BACK = (f"dicomnode.deid.returning_child:{name}_in_child" for name in ("ask", "put_back"))
_UNWRITABLE = (ValueError, TypeError, AttributeError, KeyError, NotImplementedError, OverflowError)
_OWN = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "StudyInstanceUID", "PatientID")
_Text = Annotated[str, Field(max_length=10_000)]
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Said(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    held: Reason | None = Field(default=None, strict=False)
    detail: Annotated[str, Field(max_length=200)] = ""
    sha256: _Sha256 | None = None


class _SaidAsked(_Said):
    study: _Text = ""
    patient: _Text = ""
    instance: _Text = ""
    names: list[tuple[Kind, Annotated[str, Field(max_length=200)]]] = []


class _SaidBack(_Said):
    translated: Annotated[int, Field(ge=0)] = 0


S = TypeVar("S", bound=_Said)


@dataclass(frozen=True, slots=True, eq=False)
class Returned:
    """A result under its patient's identity as a file. ``before``, ``after``: SHA-256 of both files.

    ``translated``: how many UIDs were put back; ``originals``: those that they stand for.
    """

    content: memoryview
    before: str
    after: str
    StudyInstanceUID: str
    PatientID: str
    SeriesInstanceUID: str
    SeriesNumber: int | None
    SOPClassUID: str
    SOPInstanceUID: str
    translated: int
    originals: frozenset[str]

    @property
    def line(self) -> dict[str, Any]:
        """For an audit body."""
        hashes = {"sha256_before": self.before, "sha256_after": self.after}
        return {"SOPInstanceUID": self.SOPInstanceUID, **hashes, "uids_translated": self.translated}


class Returner:
    """Gives results back to their patients. Its child starts with the first of them and ends with this object."""

    def __init__(self, reidentifier: Reidentifier, limits: SandboxLimits | None = None) -> None:
        self._reidentifier = reidentifier
        self._sandbox = Sandbox((_ASK, _PUT_BACK), limits or SandboxLimits())

    def __enter__(self) -> Returner:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the child."""
        self._sandbox.close()

    def give_back(self, path: Path, tell: Callable[[Sequence[int]], None]) -> Returned:
        """Re-identify a file that came back. ``tell``: as for ``Reidentifier.identify``.

        Raises Quarantined when it is not known beyond doubt whose it is, or is not readable; Transient when the disk
        fails or no child can be had.
        """
        before = _digest(path)
        said, _ = self._ask(_ASK, {"path": str(path)}, _SaidAsked)
        asked = Asked(said.study, said.patient, said.instance, tuple(said.names))
        identified = self._reidentifier.identify(asked, tell)
        request = {
            "path": str(path),
            "study": asked.StudyInstanceUID,
            "found": [[kind, name, content] for (kind, name), content in identified.found.items()],
            "identity": b64encode(_encoded(identified.identity)).decode(),
        }
        back, answer = self._ask(_PUT_BACK, request, _SaidBack)
        if not before == said.sha256 == back.sha256:
            raise Quarantined(Reason.CHANGED)
        return _returned(answer, before, back.translated, asked, identified)

    def _ask(self, function: str, request: Mapping[str, Any], form: type[S]) -> tuple[S, Answer]:
        try:
            answer = self._sandbox.call(function, request)
        except Permanent as error:
            raise Quarantined(Reason.READER, str(error)) from error
        try:
            said = form.model_validate_json(answer.content)
        except ValidationError:
            raise _senseless() from None
        if said.held is not None or said.sha256 is None:
            raise Quarantined(said.held or Reason.READER, said.detail)
        return said, answer


def reader_of(vault: Vault, store: Store, facts: Mapping[str, Any]) -> Callable[[Sequence[int]], None]:
    """What commits the audit row about reading ``vault``, with ``facts``: who reads and what for (trust D19)."""

    def tell(rows: Sequence[int]) -> None:
        with store.write() as session:
            append(session, Event.VAULT_READ, {**facts, "vault_key": vault.key_id, "rows": list(rows)})

    return tell


def _digest(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise Transient(f"a result cannot be read: error {error.errno}") from error


def _encoded(identity: Dataset) -> bytes:
    buffer = BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom quotes element values in its warnings
        try:
            dcmwrite(buffer, identity, implicit_vr=False, little_endian=True)
        except _UNWRITABLE as error:
            raise Quarantined(Reason.NO_SOURCE, f"its patient cannot be written: {type(error).__name__}") from None
    return buffer.getvalue()


def _returned(answer: Answer, before: str, translated: int, asked: Asked, identified: Identified) -> Returned:
    """What the child made, read again by the bounded reader: it is that result, and the patient's."""
    if len(answer.blocks) != 1:
        raise _senseless()
    content = memoryview(answer.blocks[0])
    try:
        syntax, offset = part10_offset(content)
        header = read_header_bytes(content[offset:], syntax, _OWN)
    except MalformedHeader:
        raise _senseless() from None
    sop_class, instance, series, number, study, patient = (next(iter(header.get(word, ())), None) for word in _OWN)
    expected = identified.StudyInstanceUID, identified.PatientID, asked.SOPInstanceUID
    if (str(study), str(patient or "").strip(), str(instance)) != expected:
        raise _senseless()
    return Returned(
        content,
        before,
        hashlib.sha256(content).hexdigest(),
        *expected[:2],
        str(series or ""),
        number if isinstance(number, int) else None,
        str(sop_class or ""),
        str(instance),
        translated,
        identified.originals,
    )


def _senseless() -> Quarantined:
    return Quarantined(Reason.READER, "the reader gave an answer that makes no sense")
