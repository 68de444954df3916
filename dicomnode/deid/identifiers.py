"""Which values of an object say who the patient is, and how they may be spelled: what must not survive.

Read by pydicom and not by the parser of the engine: the proof does not rest on what it proves.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field

from pydicom._uid_dict import UID_dictionary
from pydicom.datadict import dictionary_has_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from dicomnode.deid.plan import CLASS_UIDS
from dicomnode.deid.table import ActionTable, action_table

_NAME_LETTERS, _WORD_LETTERS, _NAME_SIGNS, _ID_SIGNS, _TEXT_SIGNS, _TIME_SIGNS = 3, 4, 2, 4, 6, 9
_WITHOUT_ROW = {"PN": "", "DA": "retain_full_dates", "DT": "retain_full_dates", "UI": "retain_uids"}
"""Kinds that go even where the table has no row for the tag, and the option that keeps them."""
_TEXT = frozenset({"LO", "SH", "ST", "LT", "UT", "UC", "AE", "UR"})
_BYTES = frozenset({"OB", "OW", "OD", "OF", "OL", "OV"})
_PIXEL_GROUP = 0x7FE0
_PLAIN = _TEXT | {"IS", "DS", "CS"}
_LOOKED_FOR = _TEXT | {"PN", "DA", "DT", "UI"}
_STANDARD = "1.2.840.10008"
_DATE = re.compile(r"(\d{4})[.\-]?(\d{2})[.\-]?(\d{2})")
_WORD = re.compile(r"[^\W_]+", re.UNICODE)
_WIDE_SIGNS = 6
_CODECS = ("utf-8", "latin-1", "utf-16-le", "utf-16-be")
_OTHER_CODECS = (
    "gb18030", "euc_kr", "euc_jp", "shift_jis", "iso2022_jp", "iso2022_jp_2", "iso2022_kr", "iso8859_2", "iso8859_3",
    "iso8859_4", "iso8859_5", "iso8859_6", "iso8859_7", "iso8859_8", "iso8859_9", "iso8859_15", "iso_ir_166",
)  # fmt: skip
_ESCAPE = re.compile(rb"\x1b[$(),\-.][@-~A-Z0-9()]?[@-~]?|[\x0e\x0f]")
_VOCABULARY = frozenset({0x00080070, 0x00081090})
"""Manufacturer and its model name: kept, and made of words that are names of people as well."""
_OURS = frozenset({
    "removed", "anon", "anonymous", "anonymized", "anonymised", "unknown", "none", "null", "unnamed", "patient", "test",
    "deidentified", "yes", "not", "the",
})  # fmt: skip
"""Words that stand for nobody; the engine's own dummies among them."""
_PLACEHOLDER_DATES = frozenset({"19000101", "00000000", "00010101", "11111111", "99991231"})


@dataclass(frozen=True, slots=True)
class Identifier:
    """``text``: what is looked for; ``kind``: name, id, text, word, date, time, uid; ``tag``: where it came from."""

    text: str
    kind: str
    tag: int


@dataclass(slots=True)
class Found:
    """What one object says. ``vocabulary``: lower-case words of codes and device names, which identify nobody;
    ``plain``: lower-case texts that the profile keeps. ``short``: how many values are too short to be looked for."""

    identifiers: set[Identifier] = field(default_factory=set)
    vocabulary: set[str] = field(default_factory=set)
    plain: set[str] = field(default_factory=set)
    short: int = 0


def identifiers_of(dataset: Dataset) -> Found:
    """All identifying values of ``dataset``, at every depth, that the Basic Profile has to take away."""
    found, table = Found(), action_table()
    for element in elements_of(dataset):
        tag = int(element.tag)
        if element.VR == "CS" or tag in _VOCABULARY:
            said = {text.lower() for text in _texts(element)}
            found.vocabulary |= said | {word for text in said for word in _WORD.findall(text)}
        if kept(tag, str(element.VR), frozenset(), table):
            found.plain |= {text.lower() for text in _texts(element)} if element.VR in _PLAIN else set()
            continue
        own = set(_of_element(element, tag))
        found.short += not own and element.VR in _LOOKED_FOR and bool(_texts(element))
        found.identifiers |= own
    return found


def elements_of(dataset: Dataset, depth: int = 0) -> Iterator[DataElement]:
    """Every element that pydicom can make sense of, at every depth; the others have no text to look for."""
    for tag in list(dataset.keys()):
        try:
            raw = dataset.get_item(tag, keep_deferred=True)
            if raw.VR in _BYTES or tag >> 16 == _PIXEL_GROUP:
                continue
            element = dataset[tag]
            if element.VR == "SQ" and depth < 32:
                for item in element.value:
                    yield from elements_of(item, depth + 1)
            else:
                yield element
        except (ValueError, TypeError, LookupError, NotImplementedError, AttributeError, EOFError, OSError):
            continue


def kept(tag: int, kind: str, options: frozenset[str], table: ActionTable) -> bool:
    """Whether a profile with ``options`` leaves the values of ``tag`` as they are."""
    if tag >> 16 & 1 or tag >> 16 & 0xFF00 in (0x5000, 0x6000):
        return False
    row = table.rows.get(tag)
    if row is not None:
        return "K" in {code for option, code in row.options.items() if option in options}
    option = _WITHOUT_ROW.get(kind)
    return dictionary_has_tag(tag) and (option is None or option in options)


def _of_element(element: DataElement, tag: int) -> Iterator[Identifier]:
    kind = element.VR
    if kind == "PN":
        yield from (Identifier(text, "name", tag) for value in _texts(element) for text in _name_parts(value))
    elif kind in ("DA", "DT"):
        yield from (Identifier(text, "date", tag) for value in _texts(element) for text in _dates(value))
    elif kind == "TM":
        yield from (Identifier(v, "time", tag) for v in _texts(element) if len(v) >= _TIME_SIGNS and int_or_none(v))
    elif kind == "UI" and tag not in CLASS_UIDS:
        yield from (Identifier(v, "uid", tag) for v in _texts(element) if _own_uid(v))
    elif kind in _TEXT and not tag >> 16 & 1:
        yield from (Identifier(text, sort, tag) for value in _texts(element) for text, sort in _plain(value))


def int_or_none(text: str) -> int | None:
    """Of a time with fraction: a number other than zero."""
    digits = re.sub(r"\D", "", text)
    return int(digits) or None if digits else None


def _name_parts(value: str) -> Iterator[str]:
    """Family, given and middle name of each group, whole and by word (PS3.5 6.2.1); no titles."""
    for group in value.split("="):
        for part in group.split("^")[:3]:
            whole = part.strip()
            words = {word for word in _WORD.findall(whole) if len(word) >= _WORD_LETTERS}
            for text in {whole, *words}:
                if _long_enough(text) and text.lower() not in _OURS and not text.isdigit():
                    yield text


def _long_enough(text: str) -> bool:
    signs = sum(unicodedata.category(letter) == "Lo" for letter in text)
    return len(text) >= (_NAME_SIGNS if signs == len(text) and signs else _NAME_LETTERS)


def _dates(value: str) -> Iterator[str]:
    for year, month, day in _DATE.findall(value):
        if 1 <= int(month) <= 12 and 1 <= int(day) <= 31 and year + month + day not in _PLACEHOLDER_DATES:
            yield from (year + month + day, f"{year}-{month}-{day}", f"{year}.{month}.{day}")
            yield from (f"{day}.{month}.{year}", f"{month}/{day}/{year}", f"{day}/{month}/{year}")


def _own_uid(value: str) -> bool:
    return len(value) >= 6 and value not in UID_dictionary and not f"{value}.".startswith(f"{_STANDARD}.")


def _plain(value: str) -> Iterator[tuple[str, str]]:
    """Signs with a digit, four and more and not all the same; texts of two words and six letters and more."""
    text = value.strip()
    words = text.split()
    if text.lower() in _OURS or len(set(text)) < 2:
        return
    if len(text) >= _ID_SIGNS and any(letter.isdigit() for letter in text) and len(words) == 1:
        yield text, "id"
    elif len(text) >= _TEXT_SIGNS:
        yield text, "text" if len(words) > 1 else "word"


def _texts(element: DataElement) -> list[str]:
    value = element.value
    if value is None or isinstance(value, (bytes, bytearray)):
        return []
    values = value if isinstance(value, (list, tuple, MultiValue)) else [value]
    return [str(one).strip(" \0") for one in values if str(one).strip(" \0")]


def spellings(text: str) -> Iterator[bytes]:
    """The bytes of ``text`` in UTF-8, UTF-16, Latin-1 and the other character sets of PS3.3 C.12.1.1.2.

    Without escape sequences, which stand around the bytes of a text and depend on what came before it.
    """
    codecs = _CODECS if text.isascii() else (*_CODECS, *_OTHER_CODECS)
    for codec in codecs:
        if codec.startswith("utf-16") and len(text) < _WIDE_SIGNS:
            continue
        try:
            yield _ESCAPE.sub(b"", text.encode(codec))
        except UnicodeEncodeError:
            continue
