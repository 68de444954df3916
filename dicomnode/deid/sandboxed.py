"""De-identification of files nobody vouches for: a child process reads and decides, the parent only copies bytes.

The child answers with the new header and with the places of the pixels in the source; it cannot write any file. A file
that breaks its limits on memory, computing time or wall clock costs one child and is held back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dicomnode.deid.engine import Applied
from dicomnode.deid.files import FileOutcome, copied, file_sha256, place, written
from dicomnode.deid.profile import Profile
from dicomnode.deid.refusal import Quarantined, Reason
from dicomnode.deid.tree import Span
from dicomnode.errors import Permanent, Transient
from dicomnode.sandbox import Answer, Sandbox, SandboxLimits

_FUNCTION = "dicomnode.deid.sandboxed_child:deidentify_in_child"
_ATTEMPTS = 2
_Uid = Annotated[str, Field(pattern=r"^[0-9][0-9.]{0,63}$")]
_OptionalUid = Annotated[str, Field(pattern=r"^([0-9][0-9.]{0,63})?$")]
_Word = Annotated[str, Field(max_length=200)]
_Length = Annotated[int, Field(ge=0)]


class _Said(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class _SaidApplied(_Said):
    patient: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")]
    study: _OptionalUid
    series: _OptionalUid
    instance: _Uid
    sop_class: _Uid
    actions: dict[_Word, _Length]
    codes: list[Annotated[str, Field(pattern=r"^1131[01][0-9]$")]]
    notes: dict[_Word, _Length]
    warnings: list[_Word]
    uids: dict[str, str]


class _SaidFile(_Said):
    held: Reason | None = Field(default=None, strict=False)
    detail: _Word = ""
    layout: list[tuple[bool, _Length, _Length]] = []
    applied: _SaidApplied | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """How files are de-identified: everything that a child needs. The key stays in its file until a child reads it.

    ``faces``: folder of what ``find_faces`` kept of these files, or None.
    """

    profile: Profile
    key_file: Path
    prefix: str = "ANON-"
    faces: Path | None = None

    def said(self) -> dict[str, Any]:
        """As JSON for the child."""
        profile = self.profile
        return {
            "key_file": str(self.key_file),
            "prefix": self.prefix,
            "faces": str(self.faces) if self.faces else "",
            "name": profile.name,
            "version": profile.version,
            "options": sorted(profile.options),
            "rules": sorted(profile.rules.items()),
            "values": sorted(profile.values.items()),
            "safe_private": sorted(profile.safe_private),
            "words": sorted(profile.words),
            "pixels": profile.pixels.model_dump_json(),
        }


class SandboxedFiles:
    """De-identifies files in ``jobs`` children at once; may be called by as many threads. Ends them with itself."""

    def __init__(self, task: Task, limits: SandboxLimits | None = None, jobs: int = 1) -> None:
        self._task = task.said()
        self._sandbox = Sandbox((_FUNCTION,), limits or SandboxLimits(), jobs)

    def __enter__(self) -> SandboxedFiles:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the children."""
        self._sandbox.close()

    def deidentify(
        self,
        source: Path,
        target: Callable[[Applied], Path],
        temporary: Path,
        before_release: Callable[[FileOutcome], None] | None = None,
    ) -> FileOutcome:
        """De-identify ``source`` into the file that ``target`` names.

        ``temporary``: folder for unfinished files, on the same file system. ``before_release``: see
        ``deidentify_file``. Raises Quarantined; Transient when a disk fails or no child can be had.
        """
        try:
            before, found = file_sha256(source), _state(source)
            answer = self._answer(source)
            said = _checked(answer.content, found[0])
            applied = said.applied
            if applied is None:
                raise Quarantined(said.held or Reason.READER, said.detail)
            tuples = {"codes": tuple(applied.codes), "warnings": tuple(applied.warnings)}
            done = Applied(**{**applied.model_dump(), **tuples})
            with written(_pieces(source, said, answer), temporary) as (unfinished, after, length):
                outcome = FileOutcome(done, before, after, length)
                if _state(source) != found:
                    raise Quarantined(Reason.CHANGED)
                path = target(done)
                if before_release is not None:
                    before_release(outcome)
                place(unfinished, path)
            return outcome
        except OSError as error:
            raise Transient(f"de-identification: disk error {error.errno}") from error

    def _answer(self, source: Path) -> Answer:
        request = {"source": str(source), "task": self._task}
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return self._sandbox.call(_FUNCTION, request)
            except Permanent as error:
                raise Quarantined(Reason.READER, str(error)) from error
            except Transient:
                if attempt == _ATTEMPTS:
                    raise
        raise AssertionError


def _state(path: Path) -> tuple[int, int, int]:
    """What changes when somebody writes to the file."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ino


def _checked(content: bytes, source_size: int) -> _SaidFile:
    try:
        said = _SaidFile.model_validate_json(content)
    except ValidationError:
        raise Quarantined(Reason.READER, "the reader gave an answer that makes no sense") from None
    for copy, start, length in said.layout:
        if copy and start + length > source_size:
            raise Quarantined(Reason.CHANGED)
    return said


def _pieces(source: Path, said: _SaidFile, answer: Answer) -> Iterator[bytes | memoryview]:
    block = memoryview(answer.blocks[0]) if answer.blocks else memoryview(b"")
    for copy, start, length in said.layout:
        if copy:
            yield from copied(source, Span(start, length))
        else:
            yield block[start : start + length]
