"""One pass over a tree: every element of every item of every kept sequence meets its action (trust D2-D8, D11-D12)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from dicomnode.deid import dummies
from dicomnode.deid.attribute_types import Path
from dicomnode.deid.characters import TEXT_KINDS, fits, in_set, legible, to_unicode
from dicomnode.deid.dates import DATE_KINDS, capped_age, shifted
from dicomnode.deid.parse import PIXEL_TAGS
from dicomnode.deid.plan import DATE_OPTIONS, Action, Plan, resolved, type_at
from dicomnode.deid.pseudonyms import PADDING, Pseudonyms
from dicomnode.deid.refusal import Quarantined, Reason
from dicomnode.deid.tree import Element, Form, Items, Span, dictionary_kind, most_values, text_element
from dicomnode.deid.words import cleaned, tells_identity
from dicomnode.dicom.header_values import DEFAULT_ENCODINGS, decode_value, encodings_of

_CHARACTER_SET, _PATIENT_NAME, _PATIENT_ID, _ISSUER = 0x00080005, 0x00100010, 0x00100020, 0x00100021
_ACCESSION, _STUDY_ID = 0x00080050, 0x00200010
_TEXT_VALUE, _CODE_MEANING, _SCHEME = 0x0040A160, 0x00080104, 0x00080102
_SAYS_WHAT = frozenset({0x00080070, 0x00081090, 0x00080100, 0x00080102, 0x00080103, 0x00080104, 0x00080119, 0x00080120})
"""Device and codes: their words are common to all objects, also where a patient has the same name."""
_STRINGS = TEXT_KINDS | {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI", "UR"}
_SWALLOWED = re.compile(rb"\0[^\0 \\]")
"""A zero that pads nothing: with a wrong length a value holds the heads of the elements behind it, and these zeros."""
_UID = re.compile(r"[0-9.]{1,64}")
STANDARD_SCHEMES = frozenset({
    "DCM", "SCT", "SRT", "SNM3", "99SDM", "LN", "UCUM", "RADLEX", "FMA", "UMLS", "BARI", "ACR", "I10", "I9", "ICDO",
    "ICDO3", "NICIP", "MSH", "NEU", "NYUMCCG", "MAYOASRG", "PUBCHEM_CID", "NCIT", "IBSI", "RFC5646", "ISO3166_1",
})  # fmt: skip
"""Coding schemes whose meanings are published and name no patient (PS3.16 table 8-1)."""


class Mode(Enum):
    """What becomes of values that no rule of their own takes away."""

    PLAIN = "plain"
    DUMMIES = "dummies"
    CONTENT = "content"
    GRAPHICS = "graphics"
    CODES = "codes"


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose object it is. ``names``: parts of names and identifiers, lower case. ``shift_days``: 0 without shift."""

    pseudonym: str
    patient_id: str
    issuer: str
    shift_days: int
    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an element stands: tags of the sequences around it, the codecs there, and the issuer of its Patient ID."""

    path: Path
    encodings: tuple[str, ...]
    mode: Mode
    issuer: str = ""
    private_scheme: bool = False


class Walk:
    """``actions`` and ``notes`` count; ``uids``: old to new."""

    def __init__(
        self, plan: Plan, pseudonyms: Pseudonyms, form: Form, types: Mapping[Path, int], subject: Subject
    ) -> None:
        self._plan, self._pseudonyms, self._form = plan, pseudonyms, form
        self._types, self._subject = types, subject
        self._options = plan.profile.options
        self._safe = "retain_safe_private" in self._options and bool(plan.profile.safe_private)
        self.actions: Counter[str] = Counter()
        self.notes: Counter[str] = Counter()
        self.uids: dict[str, str] = {}
        self._handlers: dict[str, Callable[[Element, _Place], Element | None]] = {
            Action.REMOVE: lambda _element, _place: None,
            Action.EMPTY: self._empty,
            Action.DUMMY: self._dummy,
            Action.UID: self._uid,
            Action.KEEP: self._keep,
            Action.WORDS: self._words,
            Action.SHIFT: self._shift,
            Action.CONTENT: lambda element, place: self._within(element, place, Mode.CONTENT),
            Action.GRAPHICS: lambda element, place: self._within(element, place, Mode.GRAPHICS),
        }

    def root(self, elements: list[Element], encodings: tuple[str, ...]) -> list[Element]:
        """The elements that stay; in ISO_IR 192 when a text of the profile does not fit ``encodings`` (trust D11)."""
        if not fits(self._plan.profile.values.values(), encodings):
            self.notes["converted to ISO_IR 192"] += 1
            elements = to_unicode(elements)
        return self._item(elements, _Place((), DEFAULT_ENCODINGS, Mode.PLAIN, self._subject.issuer))

    def _item(self, elements: list[Element], place: _Place) -> list[Element]:
        place = self._inside(elements, place)
        kept = []
        creators = self._creators(elements) if self._safe and place.mode is Mode.PLAIN else {}
        for element in elements:
            new = self._private(element, creators, place) if element.tag & 0x10000 else self._standard(element, place)
            if new is not None:
                kept.append(new)
        return kept

    def _inside(self, elements: list[Element], place: _Place) -> _Place:
        """``place`` with what the item itself says: its character set, the issuer of an identifier, a code's scheme."""
        encodings, issuer, private = place.encodings, self._subject.issuer, False
        for element in elements:
            if isinstance(element.value, bytes):
                if element.tag == _CHARACTER_SET:
                    encodings = encodings_of(element.value)
                elif element.tag == _ISSUER:
                    issuer = self._text(element, encodings)
                elif element.tag == _SCHEME:
                    private = element.value.decode("latin-1").strip(PADDING) not in STANDARD_SCHEMES
        return _Place(place.path, encodings, place.mode, issuer, private)

    # -- standard elements ---------------------------------------------------------------------------------------------

    def _standard(self, element: Element, place: _Place) -> Element | None:
        tag = element.tag
        if tag & 0xFFFF == 0:
            return None
        if tag in self._plan.profile.values:
            return self._replaced(element, place)
        action = self._action(tag, place)
        if element.vr == "PN" and action == Action.KEEP:
            action = Action.EMPTY
        if tag in PIXEL_TAGS and place.path:  # only icons have pixels of their own, and nobody has looked at these
            action = Action.REMOVE
        if action != Action.KEEP or self._plan.named(tag):
            self.actions[_LETTERS.get(action, str(action))] += 1
        return self._handlers[action](element, place)

    def _action(self, tag: int, place: _Place) -> str:
        code = self._plan.code(tag)
        action = code
        if len(code) > 1 or code == Action.EMPTY:
            action = resolved(code, type_at(self._types, place.path, tag))
        if action == Action.KEEP:
            return self._kept_in(tag, place)
        return action

    def _kept_in(self, tag: int, place: _Place) -> str:
        """What Keep means where a sequence is replaced or cleaned as a whole."""
        mode = place.mode
        if mode is Mode.PLAIN or tag == _CHARACTER_SET:
            return Action.KEEP
        if mode is Mode.DUMMIES:
            asked_for = self._plan.named(tag) or tag in dummies.STRUCTURE
            return Action.KEEP if asked_for or self._retained_uid(tag) else Action.DUMMY
        if tag == _TEXT_VALUE and mode is Mode.CONTENT:
            return Action.DUMMY
        if tag == _CODE_MEANING:
            return Action.WORDS if place.private_scheme else Action.KEEP
        if mode is Mode.GRAPHICS and dictionary_kind(tag) in TEXT_KINDS:
            return Action.DUMMY
        return Action.KEEP

    def _retained_uid(self, tag: int) -> bool:
        return "retain_uids" in self._options and dictionary_kind(tag) == "UI"

    def _empty(self, element: Element, place: _Place) -> Element | None:
        identity = self._identity(element, place)
        if identity is not None:
            return identity
        return Element(element.tag, _own_vr(element), Items(()) if _is_sequence(element) else b"")

    def _dummy(self, element: Element, place: _Place) -> Element | None:
        identity = self._identity(element, place)
        if identity is not None:
            return identity
        if isinstance(element.value, Items):
            if dummies.is_code(element.value):
                return element._replace(value=Items((dummies.removed_code(),), alien=element.value.alien))
            return self._recursed(element, place, Mode.DUMMIES)
        if _is_sequence(element):
            return Element(element.tag, _own_vr(element), Items(()))
        if element.kind == "UI":
            return self._uid(element, place)
        return dummies.dummy(element.tag, element.vr, element)

    def _uid(self, element: Element, place: _Place) -> Element | None:
        if isinstance(element.value, Items):
            return self._recursed(element, place, place.mode)
        if _is_sequence(element) or not isinstance(element.value, bytes):
            self.notes["sequences that cannot be read"] += 1
            return None
        values = [self._mapped(value.strip(PADDING)) for value in element.value.decode("latin-1").split("\\")]
        value = "\\".join(values).encode()
        return element._replace(value=value + b"\0" * (len(value) % 2))

    def _mapped(self, value: str) -> str:
        new = self._pseudonyms.uid(value if _UID.fullmatch(value) else f"no UID: {value}" if value else "")
        if new != value:
            self.uids[value] = new
        return new

    def _keep(self, element: Element, place: _Place) -> Element | None:
        value = element.value
        if isinstance(value, Items):
            return self._recursed(element, place, place.mode)
        if _is_sequence(element) and value:
            self.notes["sequences that cannot be read"] += 1
            return None
        if isinstance(value, Span):
            return element
        kind = element.kind
        if kind in dummies.NUMBER_BYTES:
            return _number(element, value, dummies.NUMBER_BYTES[kind])
        if kind in _STRINGS and _SWALLOWED.search(value):
            raise Quarantined(Reason.MALFORMED, "a text that stays holds bytes that no text has")
        if kind == "AS":
            age = value.decode("latin-1")
            capped = capped_age(age)
            return element if capped == age else text_element(element.tag, capped)._replace(vr=element.vr)
        if self._tells_identity(element, place):
            self.notes["identity in a text that stays"] += 1
            return dummies.dummy(element.tag, element.vr, element)
        fitting = value if value.isascii() or kind not in TEXT_KINDS else legible(value, place.encodings)
        if fitting is not value:
            self.notes["text outside its character set"] += 1
            return element._replace(value=fitting)
        return element

    def _tells_identity(self, element: Element, place: _Place) -> bool:
        """Whether a text that no rule asks to keep holds a name or an identifier of this very object."""
        if element.kind not in TEXT_KINDS or element.tag in _SAYS_WHAT or self._plan.named(element.tag):
            return False
        return tells_identity(self._text(element, place.encodings), self._subject.names)

    def _words(self, element: Element, place: _Place) -> Element | None:
        """Clean Descriptors: known words stay; when none does, the Basic Profile decides."""
        if isinstance(element.value, Items):
            return self._recursed(element, place, Mode.CODES)
        if not element.value:
            return element
        if isinstance(element.value, bytes) and element.kind in TEXT_KINDS:
            text = cleaned(self._text(element, place.encodings), self._plan.profile.words, self._subject.names)
            if text:
                return _written(element, text, place)
        return self._fallen_back(element, place)

    def _shift(self, element: Element, place: _Place) -> Element | None:
        """Dates that stay: what parses goes back by the days of the patient, the rest follows the Basic Profile."""
        value = element.value
        if isinstance(value, bytes):
            text = value.decode("latin-1").strip(PADDING)
            kind = element.kind if element.kind in DATE_KINDS else dictionary_kind(element.tag)
            earlier = shifted(kind, text, self._subject.shift_days)
            if earlier == text:
                return element
            if earlier is not None:
                return text_element(element.tag, earlier)._replace(vr=element.vr)
        self.notes["dates that do not parse"] += 1
        return self._fallen_back(element, place)

    def _within(self, element: Element, place: _Place, mode: Mode) -> Element | None:
        if isinstance(element.value, Items):
            return self._recursed(element, place, mode)
        return self._fallen_back(element, place)

    def _fallen_back(self, element: Element, place: _Place) -> Element | None:
        code = resolved(self._plan.basic(element.tag), type_at(self._types, place.path, element.tag))
        return self._handlers[code](element, place)

    def _recursed(self, element: Element, place: _Place, mode: Mode) -> Element:
        value = element.value
        assert isinstance(value, Items)  # noqa: S101 - every caller has looked
        path = (*place.path, element.tag)
        inner = _Place(path, place.encodings, mode)
        return element._replace(value=Items(tuple(self._item(item, inner) for item in value.items), value.alien))

    def _replaced(self, element: Element, place: _Place) -> Element:
        self.actions[Action.DUMMY] += 1
        return _written(element, self._plan.profile.values[element.tag], place)

    # -- identity ------------------------------------------------------------------------------------------------------

    def _identity(self, element: Element, place: _Place) -> Element | None:
        """The pseudonym in place of an identifier; None for any other attribute, and for an empty one."""
        tag = element.tag
        if tag not in (_PATIENT_NAME, _PATIENT_ID, _ACCESSION, _STUDY_ID) or not isinstance(element.value, bytes):
            return None
        if tag == _PATIENT_NAME:
            return None if place.path else text_element(tag, self._subject.pseudonym)._replace(vr=element.vr)
        text = self._text(element, place.encodings)
        if not text:
            return None
        if tag == _PATIENT_ID:
            new = self._subject.pseudonym if not place.path else self._pseudonyms.patient_id(text, place.issuer)
        else:
            new = self._pseudonyms.accession(text) if tag == _ACCESSION else self._pseudonyms.study_id(text)
        return text_element(tag, new)._replace(vr=element.vr)

    def _text(self, element: Element, encodings: tuple[str, ...]) -> str:
        value = element.value
        if not isinstance(value, bytes):
            return ""
        kind = element.kind if element.kind in TEXT_KINDS else "LO"
        found = decode_value(kind, value, big_endian=self._form.big_endian, encodings=encodings)
        return str(found[0]) if len(found) == 1 else "\\".join(map(str, found))

    # -- private elements ----------------------------------------------------------------------------------------------

    def _creators(self, elements: list[Element]) -> dict[int, str]:
        """Group and block to creator; of the blocks of which something stays."""
        creators = {
            element.tag >> 16 << 8 | element.tag & 0xFF: self._text(element, DEFAULT_ENCODINGS)
            for element in elements
            if element.tag & 0x10000 and 0x10 <= element.tag & 0xFFFF <= 0xFF
        }
        present = {element.tag >> 8 for element in elements if self._listed(element, creators)}
        return {block: creator for block, creator in creators.items() if block in present}

    def _listed(self, element: Element, creators: Mapping[int, str]) -> bool:
        creator = creators.get(element.tag >> 8)
        if creator is None or not element.tag & 0x10000 or element.tag & 0xFFFF < 0x1000:
            return False
        return (element.tag >> 16, creator, element.tag & 0xFF) in self._plan.profile.safe_private

    def _private(self, element: Element, creators: Mapping[int, str], place: _Place) -> Element | None:
        number = element.tag & 0xFFFF
        if number and number <= 0xFF and creators.get(element.tag >> 16 << 8 | number):
            return element
        if self._listed(element, creators):
            kept = self._safe_private(element, place)
            if kept is not None:
                self.actions[Action.KEEP] += 1
                return kept
        self.actions[Action.REMOVE] += 1
        return None

    def _safe_private(self, element: Element, place: _Place) -> Element | None:
        """A listed element. Names go all the same; dates and UIDs follow the options."""
        kind = element.vr
        if kind == "PN" or (kind in ("DA", "DT") and not self._options & set(DATE_OPTIONS)):
            return None
        if kind in ("DA", "DT") and isinstance(element.value, bytes):
            earlier = shifted(kind, element.value.decode("latin-1").strip(PADDING), self._subject.shift_days)
            return None if earlier is None else Element(element.tag, kind, _even(earlier.encode()))
        if kind == "UI" and "retain_uids" not in self._options:
            return self._uid(element, place)
        return self._keep(element, place)


def _number(element: Element, value: bytes, width: int) -> Element:
    """A number that stays. What is longer than numbers are has other elements in it, which no rule has met."""
    count, rest = divmod(len(value), width)
    if rest or (count > most_values(element.tag) > 0):
        raise Quarantined(Reason.MALFORMED, "a number has a length that no number of its attribute has")
    return element


def _is_sequence(element: Element) -> bool:
    return isinstance(element.value, Items) or dictionary_kind(element.tag) == "SQ" or element.vr == "SQ"


def _own_vr(element: Element) -> str:
    """How an emptied element is written: a sequence that came as UN is one again."""
    return "SQ" if element.vr == "UN" and _is_sequence(element) else element.vr


def _even(value: bytes) -> bytes:
    return value + b" " * (len(value) % 2)


def _written(element: Element, text: str, place: _Place) -> Element:
    """``text`` in the character set of its item; the words of it that do not fit there are left out."""
    value = in_set(text, place.encodings)
    if value is None:
        value = " ".join(word for word in text.split() if word.isascii()).encode()
    return Element(element.tag, element.vr, _even(value))


_LETTERS: Mapping[str, str] = {Action.SHIFT: "C", Action.CONTENT: "C", Action.GRAPHICS: "C"}
