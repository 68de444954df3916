"""What a profile does with each tag: the order of decision of trust D2, worked out once per tag."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from pydicom.datadict import dictionary_has_tag

from dicomnode.deid.attribute_types import Path
from dicomnode.deid.dates import DATE_KINDS
from dicomnode.deid.profile import Profile
from dicomnode.deid.table import action_table
from dicomnode.deid.tree import dictionary_kind

DATE_OPTIONS = ("retain_full_dates", "retain_modified_dates")


class Action(StrEnum):
    """What happens to one element. The first five are the table's letters; the others are ways to clean (C)."""

    REMOVE = "X"
    EMPTY = "Z"
    DUMMY = "D"
    UID = "U"
    KEEP = "K"
    WORDS = "C"
    SHIFT = "T"  # by no day under full dates: only what is a date stays
    CONTENT = "S"
    GRAPHICS = "G"


CLASS_UIDS = frozenset({
    0x00080016, 0x0008001A, 0x0008001B, 0x00080062, 0x0008010C, 0x0008010D, 0x00080117, 0x00080118, 0x0008040E,
    0x00081150, 0x0008115A, 0x00083002, 0x00089123, 0x00340003, 0x04000010, 0x04000510, 0x30100052, 0x30100053,
})  # fmt: skip
"""UI attributes that name a kind of thing and no instance: SOP Classes, transfer syntaxes, coding schemes."""


class Plan:
    """``actions`` and ``basic`` of a tag under ``profile``; both remember what they found."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self._table = action_table()
        self._codes: dict[int, str] = {}

    def code(self, tag: int) -> str:
        """An Action, or a compound code of the table, for a tag of an even group outside 50xx and 60xx."""
        found = self._codes.get(tag)
        if found is None:
            found = self._codes[tag] = self._decided(tag)
        return found

    def basic(self, tag: int) -> str:
        """The Basic Profile code, for values that an option cannot clean."""
        row = self._table.rows.get(tag)
        return row.basic if row else Action.DUMMY

    def named(self, tag: int) -> bool:
        """Whether the table or the profile has a rule for the tag."""
        return tag in self._table.rows or tag in self.profile.rules

    def _decided(self, tag: int) -> str:
        if ranged(tag):
            return Action.REMOVE
        if tag in self.profile.rules:
            return self.profile.rules[tag]
        row = self._table.rows.get(tag)
        if row is None:
            return self._of_dictionary(tag) if dictionary_has_tag(tag) else Action.REMOVE
        asked = {code for option, code in row.options.items() if option in self.profile.options}
        if asked and dictionary_kind(tag) in DATE_KINDS and self.profile.options & set(DATE_OPTIONS):
            return Action.SHIFT
        if "K" in asked:
            return Action.KEEP
        return self._cleaning(tag, row.options, row.basic) if "C" in asked else row.basic

    def _cleaning(self, tag: int, options: Mapping[str, str], basic: str) -> str:
        """How the option that says C cleans; attributes that nothing cleans follow the Basic Profile."""
        active = {name for name, code in options.items() if code == "C"} & self.profile.options
        kind = dictionary_kind(tag)
        if "retain_modified_dates" in active:
            return Action.KEEP if kind == "SH" else basic
        if "clean_structured_content" in active:
            return Action.CONTENT
        if "clean_graphics" in active:
            return Action.GRAPHICS
        return Action.WORDS if kind in _CLEANABLE else basic

    def _of_dictionary(self, tag: int) -> str:
        """A known tag without a row: kept. Names, dates and references are none that the table meant to keep."""
        kind = dictionary_kind(tag)
        if kind == "PN":
            return Action.EMPTY
        if kind in ("DA", "DT") and "retain_full_dates" not in self.profile.options:
            return Action.SHIFT if "retain_modified_dates" in self.profile.options else Action.EMPTY
        if kind == "UI" and tag not in CLASS_UIDS and "retain_uids" not in self.profile.options:
            return Action.UID
        return Action.KEEP


_CLEANABLE = frozenset({"LO", "SH", "ST", "LT", "UT", "UC", "SQ"})


def ranged(tag: int) -> bool:
    """Groups that never stay: commands, file meta, file sets, curves, overlays, delimiters, group lengths."""
    group = tag >> 16
    if group in (0x0000, 0x0002, 0x0004, 0xFFFC, 0xFFFE) or tag & 0xFFFF == 0:
        return True
    return group & 0xFF00 in (0x5000, 0x6000)


def resolved(code: str, kind: int | None) -> str:
    """The letter of ``code`` that applies to an attribute of type ``kind`` (trust D4); None: the type is not known.

    X/Z/U* is U: the references are replaced. A Z on an attribute of type 1 becomes a dummy, which E.1 allows.
    """
    letters = code.rstrip("*").split("/")
    if "U" in letters:
        return Action.UID
    if kind is None:
        return next(letter for letter in "DZX" if letter in letters)
    wished = {1: "DZX", 2: "ZDX", 3: "XZD"}[kind]
    letter = next(letter for letter in wished if letter in letters)
    return Action.DUMMY if letter == "Z" and kind == 1 else letter


def type_at(types: Mapping[Path, int], path: Path, tag: int) -> int | None:
    """The type of ``tag`` inside the sequences of ``path``."""
    return types.get((*path, tag))
