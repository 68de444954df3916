"""A Dataset walked once: its elements by keyword, its items as further levels, each with its path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag
from pydicom.valuerep import VR


@dataclass(frozen=True, slots=True)
class Level:
    """A Dataset or an item. ``path``: attribute path with a dot at its end, "" for the Dataset itself.

    ``elements``: by keyword, or by tag where it has none. ``items``: of the sequences among them.
    """

    path: str
    elements: Mapping[str, DataElement]
    items: Mapping[str, Sequence[Level]]

    def below(self, passed: set[int] | None = None) -> list[Level]:
        """This level and all below it, depth first, but for items that ``passed`` has by their id; they are added.

        The Dataset itself is in nobody's keeping, so that its id says nothing.
        """
        found: list[Level] = []
        _gather(self, found, set() if passed is None else passed)
        return found

    def value(self, keyword: str) -> Any:
        """The value of ``keyword``, None where there is none."""
        element = self.elements.get(keyword)
        return None if element is None else element.value

    def values(self) -> Iterator[tuple[str, DataElement]]:
        """Keyword and element of everything on this level that is no sequence."""
        return ((name, element) for name, element in self.elements.items() if name not in self.items)


def _gather(level: Level, found: list[Level], passed: set[int]) -> None:
    if level.path:
        passed.add(id(level))
    found.append(level)
    for levels in level.items.values():
        for one in levels:
            if id(one) not in passed:
                _gather(one, found, passed)


Known = dict[int, tuple[Dataset, Level]]
"""Items that were walked, by their id, and the Levels that they gave."""


def walked(dataset: Dataset, path: str = "", closed: frozenset[str] = frozenset(), known: Known | None = None) -> Level:
    """``dataset`` as a Level. Iterating a Dataset sorts and looks up every tag each time; this does it once.

    ``closed``: sequences of the first level into which nobody shall look. ``known``: an item that lies in several
    places, or documents, is one Level, with the path of the first.
    """
    known = {} if known is None else known
    elements: dict[str, DataElement] = {}
    items: dict[str, Sequence[Level]] = {}
    for tag, element in _elements(dataset):
        name = _name(tag)
        elements[name] = element
        if element.VR == VR.SQ:
            opened = () if name in closed else element.value or ()
            items[name] = [_level(item, f"{path}{name}[{n}].", known) for n, item in enumerate(opened, 1)]
    return Level(path, elements, items)


def _level(item: Dataset, path: str, known: Known) -> Level:
    found = known.get(id(item))
    if found is None:
        found = known[id(item)] = (item, walked(item, path, known=known))
    return found[1]


def _elements(dataset: Dataset) -> Iterator[tuple[int, DataElement]]:
    for tag, element in dataset.items():
        yield int(tag), element if isinstance(element, DataElement) else dataset[tag]


@cache
def _name(tag: int) -> str:
    """The keyword of ``tag``, itself where it has none; a plain number is found without a call of pydicom."""
    own = BaseTag(tag)
    return (not own.is_private and keyword_for_tag(own)) or str(own)
