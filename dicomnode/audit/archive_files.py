"""The files of an archive of audit rows: written once, proved by reading, checked by anybody without dicomnode."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from dicomnode.audit.chain import canonical, row_hash
from dicomnode.audit.checkpoint import Checkpoint
from dicomnode.audit.signing import PublicKey, SigningKey
from dicomnode.errors import Permanent, Transient
from dicomnode.store.spool import sync_folder

TYPE = "dicomnode audit archive"
ROWS, MANIFEST, SIGNATURE, KEY, CHECKPOINT, SCRIPT = (
    "rows.jsonl",
    "manifest.json",
    "manifest.sig",
    "public-key.pem",
    "checkpoint.jsonl",
    "verify.py",
)
Line = tuple[int, str, str, str, str, str]
"""A row: seq, ts, kind, body, prev and hash, these two in hexadecimal digits."""


@dataclass(frozen=True, slots=True)
class ArchivedPart:
    """What an archive holds: rows ``first`` to ``last``; ``prev`` comes before them, ``head`` is their last hash.

    ``hashes``: of the rows that were asked for.
    """

    first: int
    last: int
    prev: bytes
    head: bytes
    manifest_sha256: str
    hashes: dict[int, bytes]


def write_files(
    folder: Path, rows: Iterable[Line], facts: dict[str, Any], checkpoint: Checkpoint, key: SigningKey
) -> str:
    """Write the archive into the empty ``folder``, fsynced; returns the SHA-256 of its manifest.

    The manifest is ``facts`` and the digest of the rows, signed as it lies there. Raises Transient when the disk is
    full or fails.
    """
    try:
        digest, count = _write_rows(folder / ROWS, rows)
        whole = {**facts, "type": TYPE, "rows": count, "sha256": digest, "key": key.public.id}
        manifest = (canonical(whole) + "\n").encode()
        _write(folder / MANIFEST, manifest)
        _write(folder / SIGNATURE, key.sign(manifest))
        _write(folder / KEY, key.public.pem.encode())
        _write(folder / CHECKPOINT, (checkpoint.line() + "\n").encode())
        _write(folder / SCRIPT, resources.files("dicomnode.audit").joinpath("archive_check.py").read_bytes())
        sync_folder(folder)
    except OSError as error:
        raise Transient(f"{folder}: {error.strerror}") from error
    return hashlib.sha256(manifest).hexdigest()


def check_files(folder: Path, keys: Sequence[PublicKey], wanted: Collection[int] = ()) -> ArchivedPart:
    """Prove an archive to its last byte. ``wanted``: rows whose hashes to return.

    Without ``keys`` the key that lies in the archive is believed: that finds damage, no forgery. Raises Permanent with
    what is wrong.
    """
    try:
        manifest = (folder / MANIFEST).read_bytes()
        signature = (folder / SIGNATURE).read_bytes()
        believed = keys or [PublicKey.load(folder / KEY)]
        facts = _facts(manifest, signature, {key.id: key for key in believed})
        hashes = _check_rows(folder / ROWS, facts, frozenset(wanted))
    except OSError as error:
        raise Permanent(f"archive {folder}: {error.strerror}") from error
    except Permanent as error:
        raise Permanent(f"archive {folder}: {error}") from error
    ends = (bytes.fromhex(facts["prev"]), bytes.fromhex(facts["head"]))
    return ArchivedPart(facts["first"], facts["last"], *ends, hashlib.sha256(manifest).hexdigest(), hashes)


def _facts(manifest: bytes, signature: bytes, keys: dict[str, PublicKey]) -> dict[str, Any]:
    try:
        facts = json.loads(manifest)
        if facts["type"] != TYPE or not all(isinstance(facts[name], int) for name in ("first", "last", "rows")):
            raise ValueError
        bytes.fromhex(facts["prev"] + facts["head"])
        key = keys.get(facts["key"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Permanent("its manifest is none") from error
    if key is None:
        raise Permanent("it is signed by another key")
    if not key.verifies(manifest, signature):
        raise Permanent("the signature of its manifest is wrong: it is forged or was altered")
    return dict(facts)


def _check_rows(path: Path, facts: dict[str, Any], wanted: frozenset[int]) -> dict[int, bytes]:
    digest, hashes = hashlib.sha256(), {}
    prev, expected = bytes.fromhex(facts["prev"]), facts["first"]
    for line in _lines(path, digest):
        try:
            seq, ts, kind, body, _, said = json.loads(line)
            computed = row_hash(prev, seq, ts, kind, body)
        except (ValueError, TypeError, RecursionError) as error:
            raise Permanent(f"row {expected} is no row") from error
        if seq != expected or computed.hex() != said:
            raise Permanent(f"row {expected} is not as it was written")
        if seq in wanted:
            hashes[seq] = computed
        prev, expected = computed, expected + 1
    if expected != facts["last"] + 1 or prev.hex() != facts["head"] or digest.hexdigest() != facts["sha256"]:
        raise Permanent("its rows are not those of its manifest")
    return hashes


def _lines(path: Path, digest: Any) -> Iterator[bytes]:
    with path.open("rb") as file:
        for line in file:
            digest.update(line)
            yield line


def _write_rows(path: Path, rows: Iterable[Line]) -> tuple[str, int]:
    digest, count = hashlib.sha256(), 0
    with path.open("xb") as file:
        for row in rows:
            line = (canonical(list(row)) + "\n").encode()
            digest.update(line)
            file.write(line)
            count += 1
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest(), count


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
