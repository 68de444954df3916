"""How well objects were de-identified, by the ten actions of the MIDI-B challenge (Farahani et al., arXiv 2507.23608).

The challenge compares with answers of curators. Here the answers come from table E.1-1 and the options that the
result names, so the card says whether the profile was kept, not whether the profile was the right one.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydicom.datadict import dictionary_has_tag, keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset

from dicomnode.deid.identifiers import kept
from dicomnode.deid.plan import CLASS_UIDS
from dicomnode.deid.profile import FIXED
from dicomnode.deid.table import action_table

ACTIONS = (
    "tag retained", "text notnull", "text retained", "text removed", "date shifted", "uid changed", "uid consistent",
    "patid consistent", "pixels hidden", "pixels retained",
)  # fmt: skip
_BYTES = frozenset({"OB", "OW", "OD", "OF", "OL", "OV", "UN"})
_DATES = frozenset({"DA", "DT"})
_PIXELS = frozenset({0x7FE00010, 0x7FE00008, 0x7FE00009})
_ENCODING = frozenset({0x00080005, 0x00281055, 0x7FE00001, 0x7FE00002}) | FIXED
Path = tuple[int, ...]
_MOST_FAILURES = 20
_LEAST_TEXT = 4


def score_pair(before: FileDataset, after: FileDataset, options: frozenset[str], *, changed: bool) -> dict[str, Any]:
    """Right and all answers by action, the keywords of wrong ones, and which UID became which.

    ``changed``: the result says that its pixels were cleaned.
    """
    card = _Card(options)
    new = dict(_flat(after))
    for path, element in _flat(before):
        card.judge(path, element, new.get(path))
    _score_pixels(card, before, after, changed=changed)
    return {
        "scores": {action: [card.right[action], card.all[action]] for action in ACTIONS if card.all[action]},
        "wrong": sorted(card.wrong)[:_MOST_FAILURES],
        "uids": sorted(card.uids.items()),
    }


def _flat(dataset: Dataset, path: Path = ()) -> Iterator[tuple[Path, DataElement]]:
    """Leaves by the tags and item numbers that lead to them."""
    for tag in list(dataset.keys()):
        try:
            element = dataset[tag]
            if element.VR == "SQ":
                for number, item in enumerate(element.value):
                    yield from _flat(item, (*path, int(tag), number))
            else:
                yield (*path, int(tag)), element
        except (ValueError, TypeError, LookupError, NotImplementedError, AttributeError, EOFError, OSError):
            continue


class _Card:
    def __init__(self, options: frozenset[str]) -> None:
        self._options, self._table = options, action_table()
        self.right: Counter[str] = Counter()
        self.all: Counter[str] = Counter()
        self.wrong: set[tuple[str, str]] = set()
        self.uids: dict[str, str] = {}

    def count(self, action: str, tag: int, *, right: bool) -> None:
        """One answer."""
        self.all[action] += 1
        self.right[action] += right
        if not right:
            self.wrong.add((action, keyword_for_tag(tag) or f"({tag >> 16:04X},{tag & 0xFFFF:04X})"))

    def judge(self, path: Path, old: DataElement, new: DataElement | None) -> None:
        """Ask of an element of the source what is to be asked of it."""
        tag, kind = path[-1], str(old.VR)
        if tag in _PIXELS or tag in _ENCODING or tag & 0xFFFF == 0 or tag >> 16 in (0x0002, 0x0004, 0xFFFC):
            return
        if kind == "UI":
            self._uid(tag, old, new)
        elif self._kept(path, kind):
            self._retained(tag, old, new)
        elif kind not in _BYTES and _said(old):
            self._removed(path, kind, old, new)

    def _kept(self, path: Path, kind: str) -> bool:
        return self._stays(path) and kept(path[-1], kind, self._options, self._table)

    def _stays(self, path: Path) -> bool:
        """Whether every sequence on the way stays; of one with U only the UIDs change."""
        rows = self._table.rows
        return all(
            kept(tag, "SQ", self._options, self._table) or (tag in rows and "U" in rows[tag].basic)
            for tag in path[:-1:2]
        )

    def _retained(self, tag: int, old: DataElement, new: DataElement | None) -> None:
        self.count("tag retained", tag, right=new is not None)
        if _said(old) and str(old.VR) not in _BYTES:
            self.count("text retained", tag, right=new is not None and _said(new) == _said(old))

    def _removed(self, path: Path, kind: str, old: DataElement, new: DataElement | None) -> None:
        tag = path[-1]
        if kind != "CS":
            self.count("date shifted" if kind in _DATES else "text removed", tag, right=_gone(old, new))
        row = self._table.rows.get(tag)
        if row is not None and row.basic == "D" and self._stays(path):
            self.count("text notnull", tag, right=new is not None and bool(_said(new)))

    def _uid(self, tag: int, old: DataElement, new: DataElement | None) -> None:
        values = _said(old).split("\\")
        if tag in CLASS_UIDS or not _said(old) or all(value.startswith("1.2.840.10008.") for value in values):
            return
        if kept(tag, "UI", self._options, self._table) or not dictionary_has_tag(tag):
            return
        self.count("uid changed", tag, right=new is None or not set(values) & set(_said(new).split("\\")))
        if new is not None and _said(new):
            self.uids.update(zip(values, _said(new).split("\\"), strict=False))


def _said(element: DataElement) -> str:
    value = element.value
    if value is None:
        return ""
    many = hasattr(value, "__iter__") and not isinstance(value, (str, bytes)) and element.VR != "PN"
    return ("\\".join(map(str, value)) if many else str(value)).strip(" \0")


def _gone(old: DataElement, new: DataElement | None) -> bool:
    """Whether the text is not there any more; a short one may be part of what stands there instead."""
    before, after = _said(old), _said(new) if new is not None else ""
    return _means_nothing(old) or (before not in after if len(before) >= _LEAST_TEXT else before != after)


def _means_nothing(element: DataElement) -> bool:
    """Zero is no identity, nor is what a dummy says itself."""
    return _said(element).strip("0.:") in ("", "REMOVED", "Y")


def _score_pixels(card: _Card, before: FileDataset, after: FileDataset, *, changed: bool) -> None:
    for tag in _PIXELS:
        if tag not in before:
            continue
        same = tag in after and _digest(before, tag) == _digest(after, tag)
        card.count("pixels hidden" if changed else "pixels retained", tag, right=same != changed)


def _digest(dataset: Dataset, tag: int) -> bytes:
    return hashlib.sha256(dataset[tag].value.rstrip(b"\0") if isinstance(dataset[tag].value, bytes) else b"").digest()


def pixel_digest(dataset: Dataset) -> bytes:
    """SHA-256 of the pixels as they are encoded; the same for all objects without any."""
    return b"".join(_digest(dataset, tag) for tag in sorted(_PIXELS) if tag in dataset)


def consistency(pairs: Sequence[tuple[str, str]], wanted: Mapping[str, str]) -> tuple[int, int]:
    """Right and all of ``pairs`` (old, new): each old value always has one new one, and the one ``wanted`` if known."""
    first: dict[str, str] = {}
    right = 0
    for old, new in pairs:
        right += first.setdefault(old, new) == new and wanted.get(old, new) == new
    return right, len(pairs)
