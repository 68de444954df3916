"""What each IOD of ours may and must hold (PS3.3 Annex A): modules and attribute types, from highdicom's tables.

This is the only place that knows where highdicom keeps them: they are no public interface of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from dicomnode.errors import ConfigError

_PACKAGE, _FOLDER = "highdicom", "_standard"
_SPECIALIZED = {"FrameIncrementPointer": "sc-multi-frame-image"}
"""Attributes whose type in one module replaces a stricter one (PS3.3 C.8.6.3: 1C overrides that of C.7.6.6)."""

_STRICTEST_FIRST = ("1", "2", "1C", "2C", "3")

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
MULTI_FRAME_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7.4"
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
PARAMETRIC_MAP = "1.2.840.10008.5.1.4.1.1.30"
PRESENTATION_STATE = "1.2.840.10008.5.1.4.1.1.11.1"
KEY_OBJECTS = "1.2.840.10008.5.1.4.1.1.88.59"
COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"
ENCAPSULATED_PDF = "1.2.840.10008.5.1.4.1.1.104.1"
OURS = (
    SECONDARY_CAPTURE,
    MULTI_FRAME_SECONDARY_CAPTURE,
    SEGMENTATION,
    PARAMETRIC_MAP,
    PRESENTATION_STATE,
    KEY_OBJECTS,
    COMPREHENSIVE_3D_SR,
    ENCAPSULATED_PDF,
)
"""The SOP classes of Derived Instances. Any other one is a mistake."""


@dataclass(slots=True)
class Attribute:
    """One attribute of a module: its type ("1", "1C", "2", "2C", "3") and, of a sequence, what its items hold."""

    type: str
    items: dict[str, Attribute] = field(default_factory=dict)


Attributes = Mapping[str, Attribute]


@dataclass(frozen=True, slots=True)
class Module:
    """A module of an IOD; ``usage``: "M", "C" or "U"."""

    key: str
    usage: str
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class IOD:
    """The modules of one SOP class; ``owner``: the one module that has an attribute, for those that only one has."""

    modules: tuple[Module, ...]
    owner: Mapping[str, str]


@cache
def iods() -> Mapping[str, IOD]:
    """The IOD of every SOP class in ``OURS``. Raises ConfigError when highdicom has no such tables (any more)."""
    names, modules, attributes = (
        _table(name) for name in ("sop_class_iod_map", "iod_module_map", "module_attribute_map")
    )
    trees: dict[str, Attributes] = {}
    found: dict[str, IOD] = {}
    try:
        for uid in OURS:
            listed = modules[names[uid]]
            for one in listed:
                if one["key"] not in trees:
                    trees[one["key"]] = _tree(attributes[one["key"]])
            found[uid] = _iod(tuple(Module(one["key"], one["usage"], trees[one["key"]]) for one in listed))
    except (KeyError, TypeError) as error:
        raise ConfigError("the tables of the standard in highdicom have another form than expected") from error
    return found


def _table(name: str) -> Any:
    try:
        text = resources.files(_PACKAGE).joinpath(_FOLDER, f"{name}.json").read_text(encoding="utf-8")
    except (OSError, ModuleNotFoundError) as error:
        raise ConfigError(f"highdicom does not come with {_FOLDER}/{name}.json: another version is needed") from error
    return json.loads(text)


def _tree(rows: list[dict[str, Any]]) -> Attributes:
    root: dict[str, Attribute] = {}
    for row in rows:
        level = root
        for keyword in row["path"]:
            level = level.setdefault(keyword, Attribute("3")).items
        known = level.get(row["keyword"])
        if known is None:
            level[row["keyword"]] = Attribute(row["type"])
        else:
            known.type = _stricter(known.type, row["type"])
    return root


def _stricter(one: str, other: str) -> str:
    return min(one, other, key=_STRICTEST_FIRST.index)


def _iod(modules: tuple[Module, ...]) -> IOD:
    owners: dict[str, list[str]] = {}
    for module in modules:
        for keyword in module.attributes:
            owners.setdefault(keyword, []).append(module.key)
    return IOD(modules, {keyword: keys[0] for keyword, keys in owners.items() if len(keys) == 1})


@cache
def merged(sop_class: str, optional: frozenset[str]) -> Attributes:
    """All attributes of the class; the types are those of its mandatory modules and of ``optional`` ones.

    What only other modules have is of type 3: a module that is not there demands nothing. Inside a sequence that is
    there, all of its types hold.
    """
    root: dict[str, Attribute] = {}
    for module in iods()[sop_class].modules:
        _merge(root, module.attributes, counts=module.usage == "M" or module.key in optional)
        for keyword, special in _SPECIALIZED.items():
            if module.key == special:
                root[keyword].type = module.attributes[keyword].type
    return root


def _merge(target: dict[str, Attribute], source: Attributes, *, counts: bool) -> None:
    for keyword, attribute in source.items():
        own = target.setdefault(keyword, Attribute("3"))
        if counts:
            own.type = _stricter(own.type, attribute.type)
        _merge(own.items, attribute.items, counts=True)
