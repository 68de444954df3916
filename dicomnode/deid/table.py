"""Table E.1-1 of PS3.15 as data: the code of every attribute under the Basic Profile and under each option."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import NamedTuple

BASIC_CODE = "113100"
PIXEL_OPTIONS: Mapping[str, str] = {"clean_pixel_data": "113101", "clean_recognizable_visual_features": "113102"}
"""Options without a column: they are procedures on the pixels (PS3.15 E.3.1, E.3.2)."""
_PLAIN_TAG = re.compile(r"[0-9a-f]{8}")


class Row(NamedTuple):
    """One row. ``basic``: its Basic Profile code, such as ``X/Z/D``. ``options``: K or C by the name of the option."""

    basic: str
    options: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ActionTable:
    """``rows`` by tag number: 25 of the tags are in no dictionary of keywords. ``sha256``: of the file (hex)."""

    rows: Mapping[int, Row]
    option_codes: Mapping[str, str]
    sha256: str

    @property
    def options(self) -> frozenset[str]:
        """Every option by its name: the ten columns and the two that work on pixels."""
        return frozenset(self.option_codes) | frozenset(PIXEL_OPTIONS)

    def code_of(self, option: str) -> str:
        """The CID 7050 code of an option. Raises KeyError."""
        return PIXEL_OPTIONS.get(option) or self.option_codes[option]


@cache
def action_table() -> ActionTable:
    """The table that the package carries (see data/PROVENANCE.md). The four range rows are in ``plan.ranged``."""
    raw = (files("dicomnode.deid") / "data" / "table_e1_1.json").read_bytes()
    content = json.loads(raw)
    rows = {
        int(row["tag"], 16): Row(row["basic"], row["options"])
        for row in content["rows"]
        if _PLAIN_TAG.fullmatch(row["tag"])
    }
    return ActionTable(rows, content["option_codes"], hashlib.sha256(raw).hexdigest())
