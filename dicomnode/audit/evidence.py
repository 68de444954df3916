"""All that can be asked of the log as evidence: the chain, its archives, its checkpoints, its indexes. Reads only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from dicomnode.audit.anchor import anchors
from dicomnode.audit.archive_files import ArchivedPart, check_files
from dicomnode.audit.chain import GENESIS
from dicomnode.audit.checkpoint import Checkpoint, Comparison, compare, forged
from dicomnode.audit.events import Event
from dicomnode.audit.signing import PublicKey
from dicomnode.audit.verification import Progress, Verdict, verify
from dicomnode.errors import Permanent
from dicomnode.store.snapshot import damage

_ARCHIVED = text("SELECT seq, CAST(body AS TEXT) AS body FROM audit WHERE kind = :kind ORDER BY seq")


@dataclass(frozen=True, slots=True)
class Asked:
    """What the log is held against. ``files``: of checkpoints; ``archives``: folders; ``origin``: the node's AE title.

    ``strict``: at least one checkpoint has to be signed by one of ``keys``.
    """

    files: Sequence[Path] = ()
    archives: Sequence[Path] = ()
    keys: Sequence[PublicKey] = ()
    origin: str | None = None
    strict: bool = False


@dataclass(slots=True)
class Findings:
    """The answer. ``fault``: what is wrong apart from the rows themselves; ``lines``: checkpoints that were read.

    ``from_genesis``: the archives that were given lead back to the first row that ever was.
    """

    verdict: Verdict
    fault: str = ""
    lines: int = 0
    checkpoints: Comparison = field(default_factory=Comparison)
    from_genesis: bool = False

    @property
    def ok(self) -> bool:
        """True when nothing was found."""
        return self.verdict.ok and not self.fault

    @property
    def reason(self) -> str:
        """What was found first."""
        return self.verdict.reason or self.fault


def examine(session: Session, asked: Asked, progress: Progress | None = None) -> Findings:
    """Verify the chain, then everything that ``asked`` names; stops at the first thing that is wrong."""
    found = Findings(verify(session, progress))
    if not found.verdict.ok:
        return found
    try:
        lines = {path: _lines(path) for path in asked.files}
        parts = _archives(session, asked, lines)
        found.from_genesis = not found.verdict.archived or (bool(parts) and parts[0].first == 1)
        found.fault = _anchor_fault(session, asked.keys)
        for path, text_lines in lines.items():
            found.fault = found.fault or _compare(session, asked, path, text_lines, parts, found)
    except Permanent as error:
        found.fault = str(error)
    found.fault = found.fault or _hidden(session)
    return found


def _lines(path: Path) -> list[str]:
    """The checkpoints in ``path``; a file without any proves nothing. Raises Permanent."""
    try:
        lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    except OSError as error:
        raise Permanent(f"checkpoints {path}: {error.strerror}") from error
    if not lines:
        raise Permanent(f"checkpoints {path}: the file is empty")
    return lines


def _compare(
    session: Session, asked: Asked, path: Path, lines: list[str], parts: list[ArchivedPart], found: Findings
) -> str:
    archived = {seq: value for part in parts for seq, value in part.hashes.items()}
    one = compare(session, lines, asked.keys, origin=asked.origin, archived=archived)
    found.lines += len(lines)
    found.checkpoints = found.checkpoints.plus(one)
    if one.fault:
        return one.fault if len(asked.files) == 1 else f"{path}: {one.fault}"
    if not one.agree and not one.archived:
        return f"checkpoints {path}: none is of this log"
    if asked.strict and not one.signed:
        return f"checkpoints {path}: none is signed by the key that was given"
    return ""


def _archives(session: Session, asked: Asked, lines: dict[Path, list[str]]) -> list[ArchivedPart]:
    """The archives in their order, each proved, continuing the one before it and ending at an anchor."""
    wanted = {Checkpoint.parse(line).size for each in lines.values() for line in each} if asked.archives else set()
    found = [(check_files(folder, asked.keys, wanted), folder) for folder in asked.archives]
    parts = sorted(found, key=lambda item: item[0].first)
    ends = {anchor.seq: anchor for anchor in anchors(session)}
    starts = {0: GENESIS} | {seq: anchor.hash for seq, anchor in ends.items()}
    for part, folder in parts:
        anchor = ends.get(part.last)
        if anchor is None or (anchor.hash, anchor.manifest_sha256) != (part.head, part.manifest_sha256):
            raise Permanent(f"archive {folder}: it is not of this log")
        if starts.get(part.first - 1) != part.prev:
            raise Permanent(f"archive {folder}: it does not continue what was archived before it")
    return [part for part, _ in parts]


def _anchor_fault(session: Session, keys: Sequence[PublicKey]) -> str:
    """With ``keys``: each row that records an archive bears a checkpoint that one of them signed."""
    known = {key.id: key for key in keys}
    for row in session.execute(_ARCHIVED, {"kind": Event.AUDIT_ARCHIVED.value}) if known else ():
        body: dict[str, Any] = json.loads(row.body)
        checkpoint = Checkpoint.parse(str(body.get("checkpoint", "")))
        why = "it is not signed" if not checkpoint.key else forged(checkpoint, known)
        if (checkpoint.size, checkpoint.hash.hex()) != (body.get("last"), body.get("head")):
            why = why or "it is not of the rows that were archived"
        if why:
            return f"row {row.seq}: the checkpoint of its archive: {why}"
    return ""


def _hidden(session: Session) -> str:
    """What an index of the log does not tell: a question by patient or study would miss those rows."""
    faults = damage(session, "audit")
    return f"the rows are as they were written, an index of them is not: {'; '.join(faults)}" if faults else ""
