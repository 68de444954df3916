"""Evidence that leaves the house: rows of the log, where they lie in the chain, a signature, and how to check it.

What a bundle proves is in its README (``_README``). Rows that were not asked for stay here: of them the bundle has the
hash alone, which tells nothing of their content and lets two bundles, or a checkpoint kept elsewhere, be compared.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import IO, Any

from sqlalchemy import LargeBinary, cast, select
from sqlalchemy.orm import Session

import dicomnode
from dicomnode.audit.chain import canonical, row_hash
from dicomnode.audit.checkpoint import Checkpoint
from dicomnode.audit.query import AuditFilter, find_raw
from dicomnode.audit.signing import SigningKey
from dicomnode.errors import Permanent
from dicomnode.store.tables import AuditRow

FORMAT = "dicomnode audit evidence 1"
_STAMP = (1980, 1, 1, 0, 0, 0)
SCRIPT = "verify_bundle.py"
_KEPT = ("seq", "ts", "kind", "body", "prev", "hash")


@dataclass(frozen=True, slots=True)
class Bundle:
    """What was written. ``rows``: asked for and told; ``withheld``: rows of the segment whose hash alone is told."""

    path: Path
    rows: int
    withheld: int
    first: int
    last: int
    key: str


def write_bundle(
    session: Session, wanted: AuditFilter, path: Path, key: SigningKey, origin: str, checkpoints: list[str]
) -> Bundle:
    """Write the bundle ``path`` (a new ZIP file, mode 0600); ``checkpoints``: lines of the second place.

    Raises Permanent when no row fits, when the chain is broken from the first of them on, or when the file is there.
    """
    chosen = {row["seq"]: row for row in find_raw(session, wanted)}
    if not chosen:
        raise Permanent("no row of the log fits: there is nothing to give evidence of")
    with ExitStack() as stack:
        files = _Files(path)
        stack.callback(files.discard)
        head = _write_content(session, files, chosen, wanted, key, origin, checkpoints)
        files.finish()
        stack.pop_all()
    first = min(chosen)
    return Bundle(path, len(chosen), head[0] - first + 1 - len(chosen), first, head[0], key.public.id)


def _write_content(
    session: Session,
    files: _Files,
    chosen: dict[int, dict[str, Any]],
    wanted: AuditFilter,
    key: SigningKey,
    origin: str,
    checkpoints: list[str],
) -> tuple[int, str]:
    """Every file of the bundle; returns number and hash of the last row of the log."""
    first, now = min(chosen), datetime.now(UTC).isoformat(timespec="seconds")
    with files.open("links.txt") as links:
        head = _write_links(session, first, chosen, links)
    with files.open("rows.jsonl") as rows:
        for seq in sorted(chosen):
            rows.write((canonical({name: chosen[seq][name] for name in _KEPT}) + "\n").encode())
    signed = Checkpoint(origin, head[0], bytes.fromhex(head[1]), now).signed(key)
    files.add("checkpoint.json", f"{signed.line()}\n".encode())
    files.add("checkpoints.jsonl", "".join(f"{line}\n" for line in checkpoints if _size(line) >= first).encode())
    files.add("public_key.pem", key.public.pem.encode())
    files.add("verify.py", resources.files("dicomnode.audit").joinpath(SCRIPT).read_bytes())
    files.add("README.txt", _readme(wanted, chosen, head, key, now).encode())
    manifest = {
        "format": FORMAT,
        "origin": origin,
        "made_at": now,
        "software_version": dicomnode.__version__,
        "key": key.public.id,
        "first": first,
        "head": {"seq": head[0], "hash": head[1]},
        "rows": len(chosen),
        "files": dict(files.digests),
    }
    content = canonical(manifest).encode()
    files.add("manifest.json", content)
    files.add("manifest.sig", key.sign(content))
    return head


class _Files:
    """The files of a bundle with their SHA-256; stamped alike, so that equal bundles are equal bytes."""

    def __init__(self, path: Path) -> None:
        self.digests: dict[str, str] = {}
        self._path = path
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError as error:
            raise Permanent(f"{path} is there already") from error
        except OSError as error:
            raise Permanent(f"{path}: {error.strerror}") from error
        self._file = os.fdopen(descriptor, "wb")
        self._zip = zipfile.ZipFile(self._file, "w", zipfile.ZIP_DEFLATED)

    def add(self, name: str, content: bytes) -> None:
        """Write a whole file."""
        with self.open(name) as target:
            target.write(content)

    def open(self, name: str) -> _Member:
        """A file to write to."""
        info = zipfile.ZipInfo(name, _STAMP)
        info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o600 << 16
        return _Member(self._zip.open(info, "w", force_zip64=True), name, self.digests)

    def finish(self) -> None:
        """Make it durable."""
        self._zip.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def discard(self) -> None:
        """Remove what was begun."""
        self._zip.close()
        self._file.close()
        self._path.unlink(missing_ok=True)


class _Member:
    """One file of the bundle while it is written."""

    def __init__(self, target: IO[bytes], name: str, digests: dict[str, str]) -> None:
        self._target, self._name, self._digests, self._hash = target, name, digests, hashlib.sha256()

    def __enter__(self) -> _Member:
        return self

    def __exit__(self, *_: object) -> None:
        self._target.close()
        self._digests[self._name] = self._hash.hexdigest()

    def write(self, content: bytes) -> None:
        """Append."""
        self._hash.update(content)
        self._target.write(content)


def _write_links(session: Session, first: int, chosen: dict[int, dict[str, Any]], target: _Member) -> tuple[int, str]:
    """One line ``seq hash`` for each row from the one before ``first`` to the end; returns the last.

    Every row is checked on the way. Raises Permanent when one is not as it was written.
    """
    prev = bytes.fromhex(chosen[first]["prev"])
    target.write(f"{first - 1} {prev.hex()}\n".encode())
    expected = first
    for seq, ts, kind, body, digest in _segment(session, first):
        computed = row_hash(prev, seq, _text(ts), _text(kind), _text(body))
        if seq != expected or computed != digest:
            raise Permanent(f"row {expected} is not as it was written: run dicomnode audit verify")
        target.write(f"{seq} {digest.hex()}\n".encode())
        prev, expected = digest, expected + 1
    return expected - 1, prev.hex()


def _segment(session: Session, first: int) -> Iterator[Any]:
    columns = (cast(column, LargeBinary) for column in (AuditRow.ts, AuditRow.kind, AuditRow.body, AuditRow.hash))
    query = select(AuditRow.seq, *columns).where(AuditRow.seq >= first).order_by(AuditRow.seq)
    return iter(session.execute(query.execution_options(yield_per=2000)))


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "replace")


def _size(line: str) -> int:
    try:
        return Checkpoint.parse(line).size
    except Permanent:
        return -1


def _readme(wanted: AuditFilter, chosen: dict[int, Any], head: tuple[int, str], key: SigningKey, now: str) -> str:
    asked = {name: value for name in wanted.__slots__ if (value := getattr(wanted, name)) not in (None, False)}
    return _README.format(
        now=now,
        asked=json.dumps(asked, ensure_ascii=False, default=list),
        rows=len(chosen),
        first=min(chosen),
        last=head[0],
        head=head[1],
        key=key.public.id,
    )


_README = """\
Evidence from the audit log of a dicomnode, made at {now} (UTC)

Asked for: {asked}
{rows} rows, from row {first} on; the log had {last} rows, the last with hash {head}.
Signed with the Ed25519 key {key} (public_key.pem). This bundle holds patient identifiers: keep it as such.

HOW TO CHECK IT WITHOUT DICOMNODE
  1. Get the public key, or its SHA-256 (sha256sum public_key.pem), from the hospital by another way than this bundle,
     and compare: a forger could put a key of his own into a bundle.
  2. Unpack the bundle and run: python3 verify.py
     (Python 3.8 or newer with the package cryptography, or with the program openssl 3.0 or newer.)
     It prints OK and ends with status 0, or says what is wrong and ends with status 1.
  By hand: openssl pkeyutl -verify -pubin -inkey public_key.pem -rawin -in manifest.json -sigfile manifest.sig
           then compare the SHA-256 of each file with manifest.json.

FILES
  rows.jsonl         the rows that were asked for: seq, ts, kind, body (the text that was hashed), prev, hash
  links.txt          "seq hash" of every row from the one before the first to the last of the log
  checkpoint.json    size and head of the log when this bundle was made, signed
  checkpoints.jsonl  checkpoints that the node wrote to its second place (signed where they bear a signature)
  manifest.json      SHA-256 of each file; manifest.sig is its signature
  A row's hash is SHA-256(0x00 || hash of the row before || canonical JSON [seq, ts, kind, body]).

WHAT IT PROVES
  - The holder of the key vouches for all of it, and nothing was changed since.
  - Each row in rows.jsonl has the hash that stands at its place in links.txt: not one character of it, nor its time
    or number, can be another.
  - The place of these hashes in the log: whoever holds a checkpoint or another bundle with a number that is in
    links.txt finds the same hash there, or the log was rewritten in between.
WHAT IT DOES NOT PROVE
  - The rows in between are withheld, because they are about other patients. Their hashes stand in links.txt, but that
    these follow from their content can be shown by the full log alone (dicomnode audit verify at the hospital).
  - That these are all the rows about the subject: another row about it could be among those withheld. The holder of
    the key says that there is none.
  - That a row was true when it was written.
"""
