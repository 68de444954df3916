"""Profiles of de-identification in TOML: options of PS3.15 E.3, rules of a site, the safe private list, known words."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydicom.datadict import tag_for_keyword

from dicomnode.deid.masks import PixelSettings, pixel_settings
from dicomnode.deid.table import ActionTable, action_table
from dicomnode.deid.tree import dictionary_kind
from dicomnode.errors import ConfigError

FIXED = frozenset({0x00080016, 0x00080018, 0x00080005, 0x00120062, 0x00120063, 0x00120064, 0x00280303})
"""What the engine itself answers for; a rule on it could only make the object wrong."""
_NAME = re.compile(r"[a-z][a-z0-9-]{0,63}")
_TAG = re.compile(r"\(?([0-9A-Fa-f]{4}),?\s?([0-9A-Fa-f]{4})\)?")
_TABLES = frozenset({
    "name", "version", "description", "extends", "options", "rules", "values", "safe_private", "words", "pixels",
    "mask",
})  # fmt: skip
_TEXT_KINDS = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT", "DA", "DT", "TM", "AS", "DS", "IS"})
_WORD = re.compile(r"[^\W\d_]+|[0-9A-Za-z.]+")
_MOST_EXTENDED = 8

SafePrivate = tuple[int, str, int]
"""Group, private creator, and the last two digits of the element."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What to do beyond and instead of the Basic Profile.

    ``options``: names of table E.1-1's columns, and clean_pixel_data, clean_recognizable_visual_features. ``rules``:
    tag to action (X, Z, D, U, C, K); ``values``: tag to the text that stands there instead; ``safe_private``: what
    Retain Safe Private keeps; ``words``: lower-case words that a cleaned text may hold; ``pixels``: see there.
    """

    name: str = "basic"
    version: str = "1"
    description: str = ""
    options: frozenset[str] = frozenset()
    rules: Mapping[int, str] = field(default_factory=dict)
    values: Mapping[int, str] = field(default_factory=dict)
    safe_private: frozenset[SafePrivate] = frozenset()
    words: frozenset[str] = frozenset()
    pixels: PixelSettings = field(default_factory=PixelSettings)

    @property
    def sha256(self) -> str:
        """SHA-256 (hex) of everything that the profile says: two profiles with one digest do the same."""
        said = [
            sorted(self.options), sorted(self.rules.items()), sorted(self.values.items()), sorted(self.safe_private),
            sorted(self.words), action_table().sha256, self.pixels.model_dump(mode="json"),
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(said, separators=(",", ":")).encode()).hexdigest()

    def with_options(self, options: frozenset[str]) -> Profile:
        """The same with more options. Raises ConfigError for an unknown one, or two that exclude each other."""
        return _checked(
            Profile(
                self.name, self.version, self.description, self.options | options, self.rules, self.values,
                self.safe_private, self.words, self.pixels,
            ),
            "--option",
        )  # fmt: skip


def shipped() -> tuple[str, ...]:
    """The names of the profiles that the package carries."""
    return tuple(sorted(item.name.removesuffix(".toml") for item in _folder().iterdir() if item.name.endswith(".toml")))


def load_profile(name: str) -> Profile:
    """A shipped profile by its name, or a file by its path. Raises ConfigError with file, table and key."""
    if _NAME.fullmatch(name):
        if name not in shipped():
            raise ConfigError(f"there is no profile {name!r}; there are {', '.join(shipped())}, or give a file")
        return _read_shipped(name, ())
    return _read_file(Path(name), ())


def _folder() -> Any:
    return files("dicomnode.deid") / "profiles"


def _read_shipped(name: str, extended: tuple[str, ...]) -> Profile:
    source = _folder() / f"{name}.toml"
    return _build(source.read_text(encoding="utf-8"), f"profile {name}", None, (*extended, name))


def _read_file(path: Path, extended: tuple[str, ...]) -> Profile:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigError(f"{path}: the profile cannot be read: {reason}") from error
    return _build(text, str(path), path.parent, (*extended, str(path.resolve())))


def _build(text: str, where: str, folder: Path | None, extended: tuple[str, ...]) -> Profile:
    try:
        content = tomllib.loads(text)
    except ValueError as error:
        raise ConfigError(f"{where}: not valid TOML: {error}") from error
    for key in content:
        if key not in _TABLES:
            raise ConfigError(f"{where}: {key}: unknown key; a profile has {', '.join(sorted(_TABLES))}")
    below = _extended(content.get("extends"), where, folder, extended)
    own_words = {
        word.lower() for text in _list(content, "words", where) for word in _WORD.findall(_text(text, "words", where))
    }
    profile = Profile(
        name=_text(content.get("name", Path(where).stem), "name", where),
        version=_text(content.get("version", "1"), "version", where),
        description=_text(content.get("description", ""), "description", where),
        options=below.options | {_text(option, "options", where) for option in _list(content, "options", where)},
        rules={**below.rules, **_rules(content, where)},
        values={**below.values, **_values(content, where)},
        safe_private=below.safe_private | _safe_private(content, where),
        words=below.words | own_words,
        pixels=_pixels(content, below.pixels, where, folder),
    )
    return _checked(profile, where)


def _pixels(content: dict[str, Any], below: PixelSettings, where: str, folder: Path | None) -> PixelSettings:
    """The table stands in place of the one below it; rules are added to those below."""
    own = pixel_settings(_table(content, "pixels", where), _list(content, "mask", where), where, folder)
    kept = below if "pixels" not in content else own
    return kept.model_copy(update={"masks": below.masks + own.masks})


def _extended(name: Any, where: str, folder: Path | None, extended: tuple[str, ...]) -> Profile:
    if name is None:
        return Profile()
    name = _text(name, "extends", where)
    if len(extended) > _MOST_EXTENDED:
        raise ConfigError(f"{where}: extends: profiles extend each other in a circle, or too deep")
    if name in shipped():
        return _read_shipped(name, extended)
    if folder is None or _NAME.fullmatch(name):
        raise ConfigError(f"{where}: extends: there is no profile {name!r}; there are {', '.join(shipped())}")
    return _read_file(folder / name, extended)


def _rules(content: dict[str, Any], where: str) -> dict[int, str]:
    found = {}
    for key, action in _table(content, "rules", where).items():
        if action not in ("X", "Z", "D", "U", "C", "K"):
            raise ConfigError(f"{where}: rules.{key}: has to be X, Z, D, U, C or K")
        found[_tag(key, "rules", where)] = action
    return found


def _values(content: dict[str, Any], where: str) -> dict[int, str]:
    found = {}
    for key, value in _table(content, "values", where).items():
        tag = _tag(key, "values", where)
        text = _text(value, f"values.{key}", where)
        if not text or dictionary_kind(tag) not in _TEXT_KINDS:
            raise ConfigError(f"{where}: values.{key}: has to be a text, of an attribute that holds text")
        _require_valid(tag, text, f"{where}: values.{key}")
        found[tag] = text
    return found


def _require_valid(tag: int, text: str, where: str) -> None:
    from pydicom import config
    from pydicom.valuerep import validate_value

    try:
        validate_value(dictionary_kind(tag), text, config.RAISE)
    except ValueError:
        raise ConfigError(f"{where}: is no valid {dictionary_kind(tag)} value (PS3.5 6.2)") from None


def _safe_private(content: dict[str, Any], where: str) -> frozenset[SafePrivate]:
    found = set()
    for number, entry in enumerate(_list(content, "safe_private", where), 1):
        place = f"safe_private[{number}]"
        if not isinstance(entry, dict) or set(entry) != {"group", "creator", "elements"}:
            raise ConfigError(f"{where}: {place}: has to have group, creator and elements, and nothing else")
        group = _hex(entry["group"], 4, f"{place}.group", where)
        creator = _text(entry["creator"], f"{place}.creator", where).strip()
        if group % 2 == 0 or group <= 8 or not creator:
            raise ConfigError(f"{where}: {place}: has to name an odd group above 0008 and a creator")
        found |= {(group, creator, _hex(one, 2, f"{place}.elements", where)) for one in _list(entry, "elements", where)}
    return frozenset(found)


def _checked(profile: Profile, where: str) -> Profile:
    table = action_table()
    for option in sorted(profile.options - table.options):
        known = ", ".join(sorted(table.options))
        raise ConfigError(f"{where}: options: there is no option {option!r}; there are {known}")
    if {"retain_full_dates", "retain_modified_dates"} <= profile.options:
        raise ConfigError(f"{where}: options: retain_full_dates and retain_modified_dates exclude each other")
    for tag, action in profile.rules.items():
        _check_rule(tag, action, profile, table, where)
    for tag in profile.values:
        if tag in FIXED:
            raise ConfigError(f"{where}: values: {_spelled(tag)} is not for a profile to decide")
    return profile


def _check_rule(tag: int, action: str, profile: Profile, table: ActionTable, where: str) -> None:
    """A rule may take more away than the standard, never less: the object would be marked as what it is not."""
    place = f"{where}: rules: {_spelled(tag)}"
    if tag in FIXED or tag >> 16 & 1 or tag >> 16 <= 4:
        raise ConfigError(f"{place} is not for a rule to decide; private elements belong into safe_private")
    if action == "U" and dictionary_kind(tag) != "UI":
        raise ConfigError(f"{place} holds no UID, so U makes no sense")
    row = table.rows.get(tag)
    if row is None or action not in ("K", "C"):
        return
    active = {row.options[option] for option in profile.options if option in row.options}
    if not (active >= {"K"} or (action == "C" and "C" in active)):
        raise ConfigError(
            f"{place}: {action} would keep what the Basic Profile takes away ({row.basic}); only an option may do that"
        )


def _tag(key: str, table: str, where: str) -> int:
    number = tag_for_keyword(key)
    found = _TAG.fullmatch(key)
    if number is None and found is None:
        raise ConfigError(f"{where}: {table}.{key}: is neither a keyword of PS3.6 nor a tag such as (0018,1030)")
    return number if number is not None else int(key.strip("()").replace(",", "").replace(" ", ""), 16)


def _spelled(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def _hex(value: Any, digits: int, place: str, where: str) -> int:
    if not isinstance(value, str) or not re.fullmatch(f"[0-9A-Fa-f]{{{digits}}}", value):
        raise ConfigError(f"{where}: {place}: has to be {digits} hexadecimal digits in quotes")
    return int(value, 16)


def _text(value: Any, place: str, where: str) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{where}: {place}: has to be a text")
    return value


def _list(content: dict[str, Any], key: str, where: str) -> list[Any]:
    value = content.get(key, [])
    if not isinstance(value, list):
        raise ConfigError(f"{where}: {key}: has to be a list")
    return value


def _table(content: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    value = content.get(key, {})
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: {key}: has to be a table")
    return value
