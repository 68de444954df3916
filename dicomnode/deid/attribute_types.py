"""Attribute types (1, 1C, 2, 2C, 3) by IOD and path: they say which letter of a compound code applies (E.1, trust D4).

1C and 2C count as 1 and 2: their conditions are not in the data, and the attribute is there.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from pydicom.datadict import tag_for_keyword

Path = tuple[int, ...]
"""Tags of the sequences around an attribute, the outermost first, and its own."""


@cache
def attribute_types(sop_class_uid: str) -> Mapping[Path, int]:
    """Type 1, 2 or 3 of the attributes that the table names, in the IOD of ``sop_class_uid``; empty when unknown.

    Where several modules of an IOD have the attribute, the strictest of them counts.
    """
    data = _data()
    iod = data["sop_class_to_iod"].get(sop_class_uid)
    found: dict[Path, int] = {}
    for module, _, _ in data["iod_to_modules"].get(iod, ()):
        for kind, paths in data["module_types"].get(module, {}).items():
            number = int(kind[0])
            for path in paths:
                tags = _tags(path)
                if tags is not None and number < found.get(tags, 4):
                    found[tags] = number
    return found


@cache
def _data() -> dict[str, Any]:
    raw = (files("dicomnode.deid") / "data" / "iod_types.json.xz").read_bytes()
    content: dict[str, Any] = json.loads(lzma.decompress(raw))
    return content


@cache
def _tags(path: str) -> Path | None:
    tags = tuple(_tag(keyword) for keyword in path.split("."))
    return None if None in tags else tags  # type: ignore[return-value]


@cache
def _tag(keyword: str) -> int | None:
    return tag_for_keyword(keyword)
