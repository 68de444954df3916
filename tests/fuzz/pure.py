"""Targets that are functions: readers of headers, settings, rules, reports and answers."""

from __future__ import annotations

import json
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from random import Random

from dicomnode.config import Condition, Config, load_config, parse_config
from dicomnode.config.matching import unmet
from dicomnode.deliver.sending import OutboundFile
from dicomnode.deliver.stow_answer import Told, describe_http, judge, told, unexplained
from dicomnode.deliver.web import HttpAnswer
from dicomnode.dicom.commitment import decode_report
from dicomnode.dicom.header import (
    ROUTING_KEYWORDS,
    MalformedHeader,
    part10_offset,
    read_header,
    read_header_bytes,
    require_whole,
)
from dicomnode.dicom.references import SeriesReference
from dicomnode.dicom.status import Status
from dicomnode.dicom.summary import Header, summarise
from dicomnode.errors import ConfigError, Refusal
from dicomnode.route.rules import decide
from dicomnode.route.urgency import urgency
from tests.fuzz.seeds import data_sets, element_explicit, files
from tests.fuzz.target import Finding, Target
from tests.fuzz.wire import BIG, DEFLATED, EXPLICIT, IMPLICIT, element

ROOT = Path(__file__).parents[2]
_SYNTAXES = (IMPLICIT, EXPLICIT, BIG, DEFLATED, b"1.2.840.10008.1.2.4.50", b"1.2.3")
DICOM_WORDS = (
    b"\xfe\xff\x00\xe0\xff\xff\xff\xff",
    b"\xfe\xff\x00\xe0\x00\x00\x00\x00",
    b"\xfe\xff\x0d\xe0\x00\x00\x00\x00",
    b"\xfe\xff\xdd\xe0\x00\x00\x00\x00",
    b"\x08\x00\x40\x11SQ\x00\x00\xff\xff\xff\xff",
    b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 192",
    b"\x08\x00\x05\x00CS\x16\x00\\ISO 2022 IR 87\\GB18030",
    b"UN\x00\x00\xff\xff\xff\xff",
    b"\xe0\x7f\x10\x00OB\x00\x00\xff\xff\xff\xff",
    b"\x00\x00\x00\x00\xff\xff\xff\xff",
    b"IS\x10\x00" + b"9" * 16,
    b"DS\x10\x00" + b"1e999999999999  ",
    b"\xff" * 8,
    b"\\" * 64,
)


def plain(header: Header) -> Header:
    """``header`` holds what it may hold: values of plain types, none empty."""
    for values in header.values():
        assert values
        assert all(type(value) in (str, int, float) for value in values)
    return header


def _own_file(owner: Target) -> Path:
    """A file that goes with ``owner``."""
    folder = tempfile.mkdtemp(prefix="dicomnode-fuzz-")
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    return Path(folder) / "input"


class HeaderBytes(Target):
    """A bare data set ends in a header or in MalformedHeader, and rules can be asked about the header."""

    name = "header"
    words = DICOM_WORDS

    def seeds(self) -> Sequence[bytes]:
        """One byte for the transfer syntax, then the data set."""
        known = {syntax: index for index, syntax in enumerate(_SYNTAXES)}
        return [bytes((known.get(seed.transfer_syntax, 4),)) + seed.data for seed in data_sets()]

    @cached_property
    def config(self) -> Config:
        """The configuration that is shipped, and rules on everything."""
        asked = "".join(
            f'[[route]]\nname = "{keyword}"\nwhen = {{ {keyword} = {{ min = 1, max = 9 }} }}\n'
            f'detector = "none"\nsend_to = ["sender"]\n'
            for keyword in sorted(ROUTING_KEYWORDS)
        )
        return parse_config(asked)[0]

    def check(self, data: bytes) -> None:
        """Every reader that meets a received data set."""
        syntax = _SYNTAXES[data[0] % len(_SYNTAXES)].decode() if data else IMPLICIT.decode()
        body = data[1:]
        with suppress(MalformedHeader):
            require_whole(body, syntax)
        try:
            header = plain(read_header_bytes(body, syntax, ROUTING_KEYWORDS))
        except MalformedHeader:
            return
        summary = summarise(SeriesReference("1.2", "1.3"), [header, header])
        assert decide(self.config, {}, summary).summary is not None if not header else True
        for route in self.config.route:
            for keyword, condition in route.when.items():
                assert isinstance(unmet(condition, summary.values(keyword)), str)
        assert isinstance(urgency(summary), int)
        json.dumps(dict(header))


class HeaderFile(Target):
    """A file ends in a header or in MalformedHeader, with and without preamble and file meta."""

    name = "file"
    words = (*DICOM_WORDS, b"DICM", b"\x02\x00\x10\x00UI", b"MZ", b"\x7fELF")

    def __init__(self) -> None:
        self._path = _own_file(self)

    def seeds(self) -> Sequence[bytes]:
        return files()

    def check(self, data: bytes) -> None:
        """The readers of files that lie somewhere."""
        self._path.write_bytes(data)
        with suppress(MalformedHeader):
            plain(read_header(self._path, {*ROUTING_KEYWORDS, "TransferSyntaxUID"}))
        with suppress(MalformedHeader):
            assert part10_offset(data)[1] >= 0


class Settings(Target):
    """A configuration is read, or refused with ConfigError: nothing else, whatever the file holds."""

    name = "config"
    words = (
        b"[[peer]]\n", b"[[route]]\n", b"[node]\n", b"[receive.tls]\n", b"[hosted.x]\n", b"= [", b"= {", b'"""', b"'''",
        b"= nan\n", b"= inf\n", b"= -0.0\n", b"= 1e999\n", b"= 0x" + b"f" * 40 + b"\n", b"= " + b"9" * 5000 + b"\n",
        b"= 1979-05-27T07:32:00Z\n", b"= 07:32:00\n", b"= true\n", b"= []\n", b"= {}\n", b"= " + b"[" * 3000,
        b"a." * 600 + b"b = 1\n", b"\\u0000", b"\\uD800", b"\xff\xfe", b"\r", b"\x00", b"not = { not = { ",
        b'{ regex = "(" }', b'{ regex = "(a+)+$" }', b'{ regex = "' + b"(" * 500 + b'" }', b'ae_title = "\\n"\n',
        b"-1", b'""', b"= { min = 5, max = 1 }\n", b"e" * 300, b"#", b"]", b"}", b"..", b"\xc3\xa9",
    )  # fmt: skip

    def __init__(self) -> None:
        self._path = _own_file(self)

    def seeds(self) -> Sequence[bytes]:
        """The files that are shipped, without comments too, and each table by itself."""
        whole = [path.read_bytes() for path in (ROOT / "conf/dicomnode.toml", ROOT / "deploy/dicomnode.toml")]
        bare = [b"\n".join(line for line in text.splitlines() if line[:1] not in b"#") for text in whole]
        tables = [b"[" + part for part in bare[0].split(b"\n[") if part]
        spoken = [line.removeprefix(b"# ") for line in whole[0].splitlines() if b" = " in line or b"# [" in line]
        return [*whole, *bare, *tables, b"\n".join(spoken)]

    def check(self, data: bytes) -> None:
        """As a file and as text; a configuration that was read can be asked for what it holds."""
        self._path.write_bytes(data)
        for read in (lambda: load_config(self._path), lambda: parse_config(data.decode("utf-8", "replace"))):
            with suppress(ConfigError):
                config, source = read()
                assert len(source.sha256) == 64
                assert config.rule_keywords is not None


class Rules(Target):
    """A rule that was accepted can be asked about any values."""

    name = "rules"
    words = (b'"equals"', b'"regex"', b'"min"', b'"max"', b'"not"', b'"exists"', b"null", b"1e308", b"-0.0", b"true",
             b"[[", b'"\\ud800"', b"9" * 400, b'"(?i)x*"', b'"\\u0000"', b'"nan"', b'"inf"')  # fmt: skip

    def seeds(self) -> Sequence[bytes]:
        """A condition and the values that it meets."""
        made = (
            ({"equals": ["CT", "mr", 5]}, ["CT"]),
            ({"regex": r"\b(bone|knochen)\b"}, ["Bone 2.0 H60s", 7, 1.5]),
            ({"min": 1, "max": 5.5}, ["3", 4, "x"]),
            ({"not": {"exists": True}}, []),
            ({"not": {"not": {"equals": "a"}}}, ["a", "b", 10**300]),
        )
        return [json.dumps(pair).encode() for pair in made]

    def check(self, data: bytes) -> None:
        """Every condition that the settings would take."""
        try:
            condition, values = json.loads(data)
            settled = Condition.model_validate_json(json.dumps(condition), strict=True)
        except (ValueError, TypeError, RecursionError):
            return
        if isinstance(values, list) and not _may_run_away(settled):
            kept = tuple(value for value in values if type(value) in (str, int, float))
            assert isinstance(unmet(settled, kept), str)


class Commitment(Target):
    """A report of storage commitment is understood or refused with a status."""

    name = "commitment"
    words = (*DICOM_WORDS, b"\x08\x00\x99\x11", b"\x08\x00\x98\x11", b"\x08\x00\x55\x11", b"\x08\x00\x97\x11")

    def seeds(self) -> Sequence[bytes]:
        """One byte: event type and syntax; then the Event Information in both encodings."""
        item = element(0x00081150, b"1.2.840.10008.5.1.4.1.1.7") + element(0x00081155, b"1.2.3.4")
        failed = item + element(0x00081197, b"\x12\x01")
        found = []
        for inner, tag in ((item, 0x00081199), (failed, 0x00081198)):
            boxed = b"\xfe\xff\x00\xe0" + len(inner).to_bytes(4, "little") + inner
            body = element(0x00081195, b"1.2.3") + element(tag, boxed)
            found += [b"\0" + body, b"\1" + body]
            explicit = element_explicit(8, 0x1195, b"UI", b"1.2.3") + b"\x08\x00" + tag.to_bytes(4, "little")[:2]
            found.append(b"\2" + explicit + b"SQ\0\0" + len(boxed).to_bytes(4, "little") + boxed)
        return found

    def check(self, data: bytes) -> None:
        """In both encodings that are negotiated."""
        kind = data[0] if data else 0
        try:
            report = decode_report(1 + kind % 2, data[1:], (EXPLICIT if kind & 2 else IMPLICIT).decode())
        except Refusal as refused:
            if not 0x0100 <= refused.status <= 0x0300:
                raise Finding(f"a report is refused with {refused.status}") from refused
            return
        assert all(isinstance(reason, int) for reason in report.reasons.values())


class StowAnswer(Target):
    """Whatever a web server answers becomes a status for each file, and never "stored" without its saying so."""

    name = "stow"
    words = (b'"00081198"', b'"00081199"', b'"Value"', b'"00081155"', b'"00081197"', b"[", b"{", b"null", b"1e999",
             b"65536", b"99999", b"-1", b'"\\ud800"', b"NaN", b"[" * 2000, b"true", b'""', b"\xef\xbb\xbf",
             b"\xff\xfe")  # fmt: skip
    statuses = (200, 202, 204, 299, 302, 400, 401, 404, 409, 413, 500, 503, 999)

    def seeds(self) -> Sequence[bytes]:
        """One byte for the HTTP status, then the payload."""
        stored = {"00081155": {"vr": "UI", "Value": ["1.2.3"]}}
        failed = {"00081155": {"vr": "UI", "Value": ["1.2.4"]}, "00081197": {"vr": "US", "Value": [272]}}
        both = {"00081199": {"vr": "SQ", "Value": [stored]}, "00081198": {"vr": "SQ", "Value": [failed]}}
        found = [b"", b"[]", b"{}", b"<html>", json.dumps(both).encode(), json.dumps([both]).encode()]
        return [bytes((index,)) + payload for index, payload in enumerate(found * 2)]

    def check(self, data: bytes) -> None:
        """As the worker asks."""
        status = self.statuses[data[0] % len(self.statuses)] if data else 200
        answer = HttpAnswer(status, data[1:], 0.0, "application/dicom+json")
        sent = [OutboundFile(Path("x"), "1.2", uid, IMPLICIT.decode(), True) for uid in ("1.2.3", "1.2.4", "1.2.5")]
        named = told(answer)
        unexplained(answer, named, sent)
        for file in sent:
            given = judge(answer, named, file)
            assert given.file is file
            assert isinstance(given.reason, str)
            if given.accepted:
                assert 200 <= status < 300 or file.SOPInstanceUID in _said_to_be_there(named)
        describe_http(status)


def _said_to_be_there(named: Told | None) -> set[str]:
    if named is None:
        return set()
    return {*named.stored, *(uid for uid, reason in named.failed.items() if reason == Status.DUPLICATE_SOP_INSTANCE)}


def _may_run_away(condition: Condition) -> bool:
    """An operator's own expression may take for ever on his own data; that is no question of received bytes."""
    inner: Condition | None = condition
    while inner is not None:
        if inner.regex is not None and sum(inner.regex.count(sign) for sign in "*+{") > 1:
            return True
        inner = inner.not_
    return False


class AnyBytes(Target):
    """Bytes that were never valid, for every reader above."""

    name = "noise"

    def __init__(self) -> None:
        self._readers = [HeaderBytes(), HeaderFile(), Settings(), Commitment(), StowAnswer()]

    def seeds(self) -> Sequence[bytes]:
        return (b"",)

    def draw(self, random: Random) -> bytes:
        return random.randbytes(random.choice((0, 1, 8, 200, 4000)))

    def check(self, data: bytes) -> None:
        for reader in self._readers:
            reader.check(data)


PURE: tuple[type[Target], ...] = (HeaderBytes, HeaderFile, Settings, Rules, Commitment, StowAnswer, AnyBytes)
