"""Presentation Contexts for files to send (PS3.8 7.1.1.13, PS3.5 section 10)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, TypeVar, cast

from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context

from dicomnode.dicom.transfer_syntaxes import EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN

MAX_CONTEXTS = 128
_PLAIN = (EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN)
_DEFLATED = "1.2.840.10008.1.2.1.99"


class HasSyntax(Protocol):
    """Anything of a SOP Class in a Transfer Syntax."""

    @property
    def SOPClassUID(self) -> str: ...
    @property
    def TransferSyntaxUID(self) -> str: ...


T = TypeVar("T", bound=HasSyntax)


def is_convertible(transfer_syntax_uid: str) -> bool:
    """Can a data set in this Transfer Syntax be written as Explicit or Implicit VR Little Endian without decoding?

    Big Endian is not: its pixel data would have to be swapped.
    """
    return transfer_syntax_uid in {*_PLAIN, _DEFLATED}


def contexts_for(files: Iterable[HasSyntax]) -> list[PresentationContext]:
    """Per SOP Class one context for each Transfer Syntax of a file, alone, and one with the two plain ones.

    Alone, because an acceptor picks one syntax per context: it might prefer another one to the file's own.
    """
    return [build_context(sop_class, list(syntaxes)) for sop_class, syntaxes in _proposals(files)]


def accepted_pairs(opened: Association) -> dict[tuple[str, str], int]:
    """The (SOP Class UID, Transfer Syntax UID) that may be sent on this Association, each with its context's ID."""
    pairs: dict[tuple[str, str], int] = {}
    for context in opened.accepted_contexts:
        pair = str(context.abstract_syntax), str(context.transfer_syntax[0])
        pairs.setdefault(pair, cast("int", context.context_id))
    return pairs


def batches(files: Sequence[T], limit: int = MAX_CONTEXTS) -> Iterator[list[T]]:
    """Cut ``files``, in order, into runs that need at most ``limit`` contexts each."""
    batch: list[T] = []
    needed: dict[tuple[str, tuple[str, ...]], None] = {}
    for file in files:
        more = dict.fromkeys(_proposals([file]))
        if len(needed | more) > limit:
            yield batch
            batch, needed = [], {}
        batch.append(file)
        needed |= more
    if batch:
        yield batch


def _proposals(files: Iterable[HasSyntax]) -> list[tuple[str, tuple[str, ...]]]:
    found: dict[tuple[str, tuple[str, ...]], None] = {}
    for file in files:
        found[file.SOPClassUID, (file.TransferSyntaxUID,)] = None
        found[file.SOPClassUID, _PLAIN] = None
    return list(found)
