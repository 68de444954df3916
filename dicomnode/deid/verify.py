"""Proof of a de-identification: no identifying value of the sources stands anywhere in the bytes of the results.

What counts as identifying, how it may be spelled and what is too short to be looked for: ``identifiers``. The answer
names places, attributes and a digest that means nothing outside of it, never a value.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom.datadict import keyword_for_tag

from dicomnode.deid.byte_search import ByteSearch
from dicomnode.deid.identifiers import Identifier, kept, spellings
from dicomnode.deid.pseudonyms import Pseudonyms
from dicomnode.deid.scorecard import ACTIONS, consistency
from dicomnode.deid.table import action_table
from dicomnode.deid.verify_child import READ_PAIR, READ_RESULT, READ_SOURCE
from dicomnode.deid.way_back import mapped_uid
from dicomnode.errors import Permanent
from dicomnode.sandbox import Sandbox, SandboxLimits

_LEAST_IN_PIXELS = 6
"""Bytes: of shorter values some stand by chance in 100 MB of pixels."""
_MOST_INFLATED = 1 << 30
_PREAMBLE = 128
_VR = {"name": "PN", "date": "DA", "time": "TM", "uid": "UI", "id": "LO", "text": "LO", "word": "LO"}
_STRONG = frozenset({
    0x00100020, 0x00101000, 0x00101001, 0x00100010, 0x00080050, 0x00101040, 0x00102154, 0x00080080, 0x00080081,
    0x00181000, 0x00380010, 0x00401001, 0x00402016, 0x00402017,
})  # fmt: skip
"""Looked for even where an attribute that stays has the same text."""


@dataclass(frozen=True, slots=True)
class Leak:
    """``file``: path below the results. ``source``: keyword of the attribute that the value came from; ``kind`` of it.
    ``place``: where it stands: path, preamble, header, pixels. ``digest``: the same for the same value in one run."""

    file: str
    source: str
    kind: str
    place: str
    offset: int
    digest: str


@dataclass(slots=True)
class Verification:
    """``sources``, ``results``: how many files. ``unread``: sources that pydicom cannot read and that say nothing.
    ``values``: how many values were looked for; ``short``: how many are too short for it. ``paired``: results whose
    source is known. ``scores``: action to right and all; ``wrong``: action and keyword to the number of files."""

    sources: int = 0
    results: int = 0
    unread: int = 0
    values: int = 0
    short: int = 0
    paired: int = 0
    leaks: list[Leak] = field(default_factory=list)
    scores: dict[str, tuple[int, int]] = field(default_factory=dict)
    wrong: Counter[tuple[str, str]] = field(default_factory=Counter)


@dataclass(slots=True)
class _Source:
    path: Path
    instance: str
    patient: str
    issuer: str


class Verifier:
    """Compares the files below ``results`` with those below ``sources``, ``jobs`` at once.

    ``pseudonyms``: of the key that made the results; without it a result is paired with its source by nothing, dates
    are looked for in all results, and there is no scorecard.
    """

    def __init__(self, sources: Path, results: Path, pseudonyms: Pseudonyms | None = None, jobs: int = 1) -> None:
        self._roots, self._pseudonyms, self._jobs = (sources, results), pseudonyms, jobs
        self._salt = secrets.token_bytes(16)
        self._table = action_table()

    def run(self, *, scorecard: bool = False) -> Verification:
        """Raises Permanent when there is nothing to compare, Transient when no child process can be had."""
        answer = Verification()
        functions = (READ_SOURCE, READ_RESULT, READ_PAIR)
        with Sandbox(functions, SandboxLimits(), self._jobs) as box, ThreadPoolExecutor(self._jobs) as workers:

            def ask(function: str, requests: Sequence[Any]) -> Iterator[dict[str, Any] | None]:
                return workers.map(lambda request: _asked(box, function, request), requests)

            sources, wanted = self._sources(ask, answer)
            files = list(_files(self._roots[1]))
            if not files or not sources:
                raise Permanent("there are no files to compare")
            said = list(ask(READ_RESULT, [str(path) for path in files]))
            pairs = self._pairs(sources, said)
            search = (ByteSearch(wanted), ByteSearch(_for_pixels(wanted), _LEAST_IN_PIXELS))
            scans = workers.map(lambda job: self._scan(job[0], job[1], search, wanted), zip(files, said, strict=True))
            answer.leaks = [leak for leaks in scans for leak in leaks]
            answer.results, answer.paired = len(files), sum(bool(found) for found in pairs)
            answer.values = len({one.text for group in wanted.values() for one, _ in group})
            if scorecard:
                self._score(ask, answer, files, said, pairs)
        return answer

    def _sources(
        self, ask: Callable[..., Iterable[dict[str, Any] | None]], answer: Verification
    ) -> tuple[list[_Source], dict[bytes, list[tuple[Identifier, str]]]]:
        """The sources, and each spelling with whose it is: identifier and pseudonym of the patient."""
        files = list(_files(self._roots[0]))
        sources, found = [], set()
        vocabulary: set[str] = set()
        plain: set[str] = set()
        for path, said in zip(files, ask(READ_SOURCE, [str(path) for path in files]), strict=True):
            answer.sources += 1
            if said is None:
                answer.unread += 1
                continue
            sources.append(_Source(path, said["instance"], said["patient"], said["issuer"]))
            owner = self._pseudonym(said["patient"], said["issuer"])
            found |= {(Identifier(*one), owner) for one in said["identifiers"]}
            vocabulary.update(said["vocabulary"])
            plain.update(said["plain"])
            answer.short += said["short"]
        wanted: dict[bytes, list[tuple[Identifier, str]]] = {}
        for one, patient in found:
            if _means_somebody(one, vocabulary, plain):
                for spelling in spellings(one.text):
                    wanted.setdefault(spelling.lower(), []).append((one, patient))
        return sources, wanted

    def _pseudonym(self, patient: str, issuer: str) -> str:
        """Of a patient in the results; empty where none can be known."""
        return self._pseudonyms.patient_id(patient, issuer) if self._pseudonyms and patient else ""

    def _pairs(self, sources: Sequence[_Source], said: Sequence[Mapping[str, Any] | None]) -> list[list[_Source]]:
        """By the pseudonym of the SOP Instance UID, or by the UID itself where it was retained."""
        by_instance: dict[str, list[_Source]] = {}
        for source in sources:
            names = {source.instance}
            if self._pseudonyms is not None and source.instance:
                names.add(mapped_uid(source.instance, self._pseudonyms))
            for name in names - {""}:
                by_instance.setdefault(name, []).append(source)
        return [by_instance.get(one["instance"], []) if one else [] for one in said]

    def _scan(
        self, path: Path, said: Mapping[str, Any] | None, search: tuple[ByteSearch, ByteSearch],
        wanted: Mapping[bytes, list[tuple[Identifier, str]]],
    ) -> list[Leak]:  # fmt: skip
        name = str(path.relative_to(self._roots[1]))
        options = frozenset(said["options"] if said else ())
        spans = said["bulk"] if said else []
        content = path.read_bytes()
        leaks = list(self._judged(name, "path", os.fsencode(name), search, wanted, options, said))
        for place, data, base in _parts(content, spans, inflate=bool(said and said["deflated"])):
            leaks += self._judged(name, place, data, search, wanted, options, said, base)
        return leaks

    def _judged(
        self, name: str, place: str, data: bytes, search: tuple[ByteSearch, ByteSearch],
        wanted: Mapping[bytes, list[tuple[Identifier, str]]], options: frozenset[str],
        said: Mapping[str, Any] | None, base: int = 0,
    ) -> Iterator[Leak]:  # fmt: skip
        for hit in search[place == "pixels"].hits(data):
            whose = self._leaking(wanted[hit.value], options, said)
            if whose is not None:
                digest = hashlib.blake2b(hit.value, key=self._salt, digest_size=6).hexdigest()
                source = keyword_for_tag(whose.tag) or f"({whose.tag >> 16:04X},{whose.tag & 0xFFFF:04X})"
                yield Leak(name, source, whose.kind, place, base + hit.offset, digest)

    def _leaking(
        self, whose: Iterable[tuple[Identifier, str]], options: frozenset[str], said: Mapping[str, Any] | None
    ) -> Identifier | None:
        """The identifier that must not stand there; None when an option keeps one with this text."""
        found = list(whose)
        if any(kept(one.tag, _VR[one.kind], options, self._table) for one, _ in found):
            return None
        shifted = "retain_modified_dates" in options
        for one, patient in found:
            if one.kind in ("date", "time") and shifted and not (one.kind == "date" and self._same(patient, said)):
                continue
            return one
        return None

    def _same(self, patient: str, said: Mapping[str, Any] | None) -> bool:
        """Whether a result is of ``patient``: the shifted date of one is the true date of somebody else."""
        if self._pseudonyms is None or said is None:
            return True
        return said["patient"] in (patient, "")

    def _score(
        self, ask: Callable[..., Iterable[dict[str, Any] | None]], answer: Verification, files: Sequence[Path],
        said: Sequence[Mapping[str, Any] | None], pairs: Sequence[list[_Source]],
    ) -> None:  # fmt: skip
        known = [(path, one, found) for path, one, found in zip(files, said, pairs, strict=True) if found and one]
        jobs = [([str(each.path) for each in found], str(path), one["options"]) for path, one, found in known]
        totals: dict[str, list[int]] = {action: [0, 0] for action in ACTIONS}
        uids: list[tuple[str, str]] = []
        patients: list[tuple[str, str]] = []
        wished: dict[str, str] = {}
        for scored in ask(READ_PAIR, jobs):
            if scored is None:
                continue
            for action, (right, every) in scored["scores"].items():
                totals[action][0] += right
                totals[action][1] += every
            answer.wrong.update(map(tuple, scored["wrong"]))
            uids += map(tuple, scored["uids"])
            issuer, patient, pseudonym = scored["patient"]
            patients.append((f"{issuer}\0{patient}", pseudonym))
            if self._pseudonyms is not None and patient:
                wished[f"{issuer}\0{patient}"] = self._pseudonyms.patient_id(patient, issuer)
        key = self._pseudonyms
        totals["uid consistent"] = list(
            consistency(uids, {old: mapped_uid(old, key) for old, _ in uids} if key else {})
        )
        totals["patid consistent"] = list(consistency(patients, wished))
        answer.scores = {action: (right, every) for action, (right, every) in totals.items()}


def _asked(box: Sandbox, function: str, request: Any) -> dict[str, Any] | None:
    """What the child says, or None when it cannot read the file."""
    try:
        answer: dict[str, Any] = json.loads(box.call(function, request).content)
        return answer
    except Permanent:
        return None


def _files(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(root, name) for name in sorted(names))


def _means_somebody(one: Identifier, vocabulary: set[str], plain: set[str]) -> bool:
    """Not when the text is a word of codes or of a device, nor when an attribute that stays says the same."""
    text = one.text.lower()
    if one.kind in ("name", "text", "word", "id") and text in vocabulary:
        return False
    if text.isdigit() and one.kind == "id" and text in plain:
        return False
    if one.kind == "word":
        return one.tag in _STRONG
    return one.kind not in ("id", "text") or one.tag in _STRONG or text not in plain


def _for_pixels(values: Iterable[bytes]) -> list[bytes]:
    """Those that do not stand in 100 MB of pixels by chance: six bytes and more, three different ones, no zeros."""
    return [value for value in values if len(value) >= _LEAST_IN_PIXELS and len(set(value)) > 2 and 0 not in value]


def _parts(content: bytes, spans: Sequence[Sequence[int]], *, inflate: bool) -> Iterator[tuple[str, bytes, int]]:
    """Preamble, header, and values of bytes such as pixels; of a deflated data set what it holds."""
    yield "preamble", content[:_PREAMBLE], 0
    at = _PREAMBLE
    for start, length in sorted((int(start), int(length)) for start, length in spans):
        end = min(len(content), start + length)
        if at <= start <= end:
            yield "header", content[at:start], at
            yield "pixels", content[start:end], start
            at = end
    yield "header", content[at:], at
    if inflate and content[132:140] == b"\x02\x00\x00\x00UL\x04\x00":
        begin = 144 + int.from_bytes(content[140:144], "little")
        try:
            yield "header", zlib.decompressobj(-zlib.MAX_WBITS).decompress(content[begin:], _MOST_INFLATED), 0
        except zlib.error:
            return
