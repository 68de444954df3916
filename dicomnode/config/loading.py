"""Reading the TOML file; every fault names its line."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, time
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dicomnode.config.model import Config
from dicomnode.config.outside import check_outside
from dicomnode.config.peers import Peer
from dicomnode.errors import ConfigError

Location = tuple[str | int, ...]
_PART = r"""(?:"(?:[^"\\]|\\.)*"|'[^']*'|[A-Za-z0-9_-]+)"""
_DOTTED = rf"{_PART}(?:\s*\.\s*{_PART})*"
_HEADER = re.compile(rf"^\s*(\[\[|\[)\s*({_DOTTED})\s*\]")
_KEY = re.compile(rf"^\s*({_DOTTED})\s*=")
_LONG_STRING = re.compile(r'"""|\'\'\'')
_MOST_DOTS = 10_000_000
"""Squared, of all lines: what a key of tables in tables costs the parser. Lists of addresses have thousands."""
_LINE = re.compile(r"\(at line (\d+), column \d+\)")


@dataclass(frozen=True)
class ConfigSource:
    """The text that a ``Config`` was read from, to point at a line."""

    name: str
    text: str

    @property
    def sha256(self) -> str:
        """SHA-256 of the text (hex): which configuration was in force."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @cached_property
    def _lines(self) -> dict[Location, int]:
        return _line_numbers(self.text)

    def line_of(self, location: Sequence[str | int]) -> int:
        """The 1-based line of the key at ``location``, or of the nearest table that holds it."""
        for length in range(len(location), 0, -1):
            line = self._lines.get(tuple(location[:length]))
            if line is not None:
                return line
        return 1

    def fault(self, location: Sequence[str | int], message: str) -> ConfigError:
        """A ConfigError that names file, line and setting."""
        where = _spelled(location)
        return ConfigError(f"{self.name}, line {self.line_of(location)}: {where}: {message}")


def load_config(path: Path) -> tuple[Config, ConfigSource]:
    """Read and check ``path``. Raises ConfigError with the line at fault."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    return parse_config(text, str(path))


def parse_config(text: str, name: str = "configuration") -> tuple[Config, ConfigSource]:
    """Check TOML ``text``. Raises ConfigError with the line at fault."""
    source = ConfigSource(name, text)
    try:
        return _checked(text, source), source
    except RecursionError as error:
        raise ConfigError(f"{name}: tables or lists are nested too deep") from error


def _checked(text: str, source: ConfigSource) -> Config:
    raw = _read_toml(text, source.name)
    _refuse_times(raw, source)
    try:
        config = Config.model_validate_json(json.dumps(raw), strict=True)
    except ValidationError as error:
        raise ConfigError("\n".join(_faults(error, raw, source))) from error
    _check_names(config, source)
    _check_certificates(config, source)
    check_outside(config, source)
    return config


def _read_toml(text: str, name: str) -> dict[str, Any]:
    dots = [line.count(".") for line in text.split("\n")]
    if sum(count * count for count in dots) > _MOST_DOTS:
        raise ConfigError(f"{name}, line {dots.index(max(dots)) + 1}: too many dots in one line")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = _LINE.search(str(error))
        number = int(line[1]) if line else text.count("\n") + 1
        raise ConfigError(f"{name}, line {number}: not valid TOML: {error}") from error
    except ValueError as error:  # Python's limit on the digits of a number, which tomllib passes on as it is
        raise ConfigError(f"{name}: not valid TOML: a number has too many digits") from error


def _check_names(config: Config, source: ConfigSource) -> None:
    """Names are unique, and every name that is used exists."""
    names = [peer.name for peer in config.peer]
    for index, peer in enumerate(config.peer):
        if peer.name == "sender" or peer.name in names[:index]:
            raise source.fault(("peer", index, "name"), "this name is reserved or used twice")
    route_names = [route.name for route in config.route]
    for index, route in enumerate(config.route):
        if route.name in route_names[:index]:
            raise source.fault(("route", index, "name"), "this name is used twice")
        for destination in route.send_to:
            if destination != "sender" and destination not in names:
                raise source.fault(("route", index, "send_to"), f"there is no peer named {destination!r}")
    for override in config.results.peer:
        if override not in names:
            raise source.fault(("results", "peer", override), f"there is no peer named {override!r}")


def _check_certificates(config: Config, source: ConfigSource) -> None:
    """TLS has a port of its own, and a peer can only be known by its certificate where certificates are asked for."""
    tls = config.receive.tls
    if tls is not None and tls.plain and tls.port == config.node.port != 0:
        raise source.fault(("receive", "tls", "port"), "this is [node] port, which plain = true keeps open without TLS")
    for index, peer in enumerate(config.peer):
        if isinstance(peer, Peer) and peer.certificate and (tls is None or tls.client_certificate != "required"):
            message = 'nobody asks for it: [receive.tls] with client_certificate = "required" is missing'
            raise source.fault(("peer", index, "certificate"), message)


def _refuse_times(value: Any, source: ConfigSource, location: Location = ()) -> None:
    """TOML has dates and times; no setting is one, and DICOM writes them as text."""
    if isinstance(value, (date, time)):
        raise source.fault(location, "a date or time has to be a text in quotes")
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        _refuse_times(inner, source, (*location, key))


def _faults(error: ValidationError, raw: Any, source: ConfigSource) -> list[str]:
    """One fault per place in the file; a value that fits none of several types is one fault."""
    messages: dict[Location, dict[str, None]] = {}
    for item in error.errors(include_url=False, include_input=False):
        location = _toml_location(item["loc"], raw, missing=item["type"] == "missing")
        message = "unknown key" if item["type"] == "extra_forbidden" else item["msg"].removeprefix("Value error, ")
        messages.setdefault(location, {})[message] = None
    return [str(source.fault(location, "; or ".join(found))) for location, found in messages.items()]


def _toml_location(location: Sequence[str | int], raw: Any, *, missing: bool) -> Location:
    """The part of pydantic's ``location`` that stands in the file (it also names types); ``missing``: and its last."""
    found: list[str | int] = []
    for part in location:
        inner = dict(enumerate(raw)) if isinstance(raw, list) else raw
        if isinstance(inner, dict) and part in inner:
            found.append(part)
            raw = inner[part]
    return (*found, location[-1]) if missing else tuple(found)


def _spelled(location: Sequence[str | int]) -> str:
    text = ""
    for part in location:
        text += f"[{part + 1}]" if isinstance(part, int) else (f".{part}" if text else part)
    return text or "configuration"


def _line_numbers(text: str) -> dict[Location, int]:
    """Lines of every table header and of every key that starts a line."""
    found: dict[Location, int] = {}
    counts: dict[Location, int] = {}
    table: Location = ()
    within_string = False
    for number, line in enumerate(text.split("\n"), 1):
        starts_outside, within_string = not within_string, within_string ^ (len(_LONG_STRING.findall(line)) % 2 == 1)
        header, key = (_HEADER.match(line), _KEY.match(line)) if starts_outside else (None, None)
        if header:
            table = _table(_parts(header[2]), header[1] == "[[", counts)
            found.setdefault(table, number)
        elif key:
            location = (*table, *_parts(key[1]))
            for length in range(len(table) + 1, len(location) + 1):
                found.setdefault(location[:length], number)
    return found


def _parts(dotted: str) -> Location:
    return tuple(part.strip("\"'") for part in re.findall(_PART, dotted))


def _table(names: Location, array: bool, counts: dict[Location, int]) -> Location:
    """The location that a header opens: ``[route.when]`` belongs to the last ``[[route]]``."""
    if array:
        counts[names] = counts.get(names, -1) + 1
        return (*names, counts[names])
    head = names[:1]
    return (*head, counts[head], *names[1:]) if head in counts else names
