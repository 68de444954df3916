"""Items made after a pattern: what is the same in hundreds of them is shared, and nobody may change it."""

from __future__ import annotations

from functools import cache
from typing import Any

from pydicom import config
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag, Tag


@cache
def _tag(keyword: str) -> BaseTag:
    return Tag(keyword)


def element(keyword: str, vr: str, value: Any) -> DataElement:
    """An element by its keyword; a sequence of ``value`` for SQ. The self-check judges it, not pydicom."""
    content = Sequence(value) if vr == "SQ" else value
    return DataElement(_tag(keyword), vr, content, validation_mode=config.IGNORE)


def like(pattern: Dataset | None, *own: DataElement) -> Dataset:
    """A Dataset with the very elements of ``pattern``, and ``own`` beside them or in their place."""
    elements: dict[BaseTag, Any] = {} if pattern is None else dict(pattern.items())
    elements.update((one.tag, one) for one in own)
    return Dataset(elements)
