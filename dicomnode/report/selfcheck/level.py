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

    def below(self) -> Iterator[Level]:
        """This level and all below it, depth first."""
        yield self
        for levels in self.items.values():
            for level in levels:
                yield from level.below()

    def values(self) -> Iterator[tuple[str, DataElement]]:
        """Keyword and element of everything on this level that is no sequence."""
        return ((name, element) for name, element in self.elements.items() if name not in self.items)


def walked(dataset: Dataset, path: str = "", closed: frozenset[str] = frozenset()) -> Level:
    """``dataset`` as a Level. Iterating a Dataset sorts and looks up every tag each time; this does it once.

    ``closed``: sequences of the first level into which nobody shall look.
    """
    elements: dict[str, DataElement] = {}
    items: dict[str, Sequence[Level]] = {}
    for element in _elements(dataset):
        name = _name(element.tag)
        elements[name] = element
        if element.VR == VR.SQ:
            opened = () if name in closed else element.value or ()
            items[name] = [walked(item, f"{path}{name}[{n}].") for n, item in enumerate(opened, 1)]
    return Level(path, elements, items)


def _elements(dataset: Dataset) -> Iterator[DataElement]:
    for tag, element in dataset.items():
        yield element if isinstance(element, DataElement) else dataset[tag]


@cache
def named(tag: BaseTag) -> str:
    """The keyword of ``tag``, "" where it has none; looked up once."""
    return keyword_for_tag(tag)


def _name(tag: Any) -> str:
    return (not tag.is_private and named(tag)) or str(tag)
