"""Every row of table E.1-1 with a sentinel of its own: at the top of an image, and deep in a sequence that stays."""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import re
from importlib.resources import files
from typing import Any

import pydicom
import pytest
from pydicom import Dataset, config
from pydicom.dataelem import DataElement
from pydicom.sequence import Sequence
from pydicom.valuerep import validate_value

from dicomnode.deid.attribute_types import attribute_types
from dicomnode.deid.plan import Plan, resolved
from dicomnode.deid.profile import Profile
from dicomnode.deid.table import action_table
from tests.unit.deid_objects import elements, file_of, image, nested, new_of, transformed

DATA = files("dicomnode.deid") / "data"
ROWS: list[dict[str, Any]] = [
    row
    for row in json.loads((DATA / "table_e1_1.json").read_text())["rows"]
    if re.fullmatch("[0-9a-f]{8}", row["tag"]) and row["tag"][:4] not in ("0000", "0002")
]
_NUMBERS = {"US", "UL", "SS", "SL", "UV", "SV", "IS"}
_BYTES = {"OB", "OW", "UN"}


def _kind(row: dict[str, Any]) -> str:
    if row["vr"]:
        return str(row["vr"]).split(" or ")[0]
    name = row["name"].lower()
    return "SQ" if "sequence" in name else "DT" if "datetime" in name else "LO"


def _sentinel(kind: str, index: int, *, deep: bool) -> Any:
    mark = f"W{index}{'D' if deep else 'S'}W"
    if kind in _NUMBERS:
        return 6543 if deep else 5432
    if kind in _BYTES:
        return mark.encode() + b" " * (len(mark) % 2)
    day = "19630908" if deep else "19640309"
    return {
        "DA": day, "TM": "070809" if deep else "080910", "DT": day + "070809", "AS": "055Y" if deep else "044Y",
        "DS": "6543.5" if deep else "5432.5", "UI": f"1.2.3.4.{int(deep)}.{index}", "PN": mark + "^X",
        "UR": f"http://h.example/{mark}",
    }.get(kind, mark)  # fmt: skip


def _plant(dataset: Dataset, row: dict[str, Any], index: int, *, deep: bool) -> Any:
    kind, tag = _kind(row), int(row["tag"], 16)
    if kind == "SQ":
        inner = Dataset()
        inner_kind = "UI" if "U" in row["basic"] else "LO"
        value = _sentinel(inner_kind, index, deep=deep)
        setattr(inner, "ReferencedSOPInstanceUID" if inner_kind == "UI" else "CodeMeaning", value)
        dataset.add(DataElement(tag, "SQ", Sequence([inner])))
        return value
    value = _sentinel(kind, index, deep=deep)
    dataset.add(DataElement(tag, kind, value))
    return value


def _survives(value: Any, row: dict[str, Any], raw: bytes, found: Any, *, deep: bool) -> bool:
    if isinstance(value, bytes) or (isinstance(value, str) and ("W" in value or value.startswith("1.2.3.4."))):
        needle = value if isinstance(value, bytes) else value.split("^")[0].encode()
        return re.search(re.escape(needle.strip()) + rb"(?![0-9])", raw) is not None
    tag = int(row["tag"], 16)
    return any(
        element.tag == tag and (depth > 0) == deep and str(element.value) == str(value)
        for depth, element in elements(found)
    )


def test_no_row_leaks_at_the_top_or_nested_and_dummies_are_valid() -> None:
    """D1, D3, D5: of every row of both editions nothing planted is left, and Z and D leave what their VR allows."""
    leaks, faults = [], []
    for index, row in enumerate(ROWS, 1000):
        dataset, deep = image(), Dataset()
        top = _plant(dataset, row, index, deep=False)
        inner = _plant(deep, row, index, deep=True)
        dataset.PerFrameFunctionalGroupsSequence = nested(deep)
        raw, _ = transformed(file_of(dataset))
        new = pydicom.dcmread(io.BytesIO(raw))
        leaks += [row["tag"]] * (_survives(top, row, raw, new, deep=False) + _survives(inner, row, raw, new, deep=True))
        faults += _faults(new, row)
    assert not leaks
    assert not faults


def _faults(new: Dataset, row: dict[str, Any]) -> list[str]:
    if row["basic"] not in ("Z", "D") or _kind(row) == "SQ":
        return []
    element = new.get(int(row["tag"], 16))
    if element is None:
        return [f"{row['tag']} is gone"]
    if element.is_empty:
        return [f"{row['tag']} is empty"] if row["basic"] == "D" else []
    for value in element.value if element.VM > 1 else [element.value]:
        validate_value(element.VR, value, config.RAISE)
    return []


def test_the_table_is_the_one_that_was_checked() -> None:
    """D1: the package carries the table unchanged, and its SHA-256 is that of the file."""
    raw = (DATA / "table_e1_1.json").read_bytes()
    digest = "b802064b27b81af39b6aac773d1688903fc40c26f8c649595740443ea3dfbbed"
    assert action_table().sha256 == hashlib.sha256(raw).hexdigest() == digest
    assert len(action_table().rows) == 652
    types = lzma.decompress((DATA / "iod_types.json.xz").read_bytes())
    assert hashlib.sha256(types).hexdigest() == "c2b601a04779c58d0a3659878fa0d612475d020b0374c39232894e35863c9a22"


def test_tags_that_no_dictionary_knows_are_looked_up_by_number() -> None:
    """D1: (0010,0044) Gender Identity Code Sequence has no keyword here, and is removed by its row."""
    dataset = image()
    dataset.add(DataElement(0x00100045, "LT", "HER OWN WORDS"))
    raw, applied = transformed(file_of(dataset))
    assert b"HER OWN WORDS" not in raw
    assert Plan(Profile()).code(0x00100045) == "X"
    assert applied.actions["X"] >= 1


@pytest.mark.parametrize(
    ("code", "kind", "letter"),
    [
        ("X/Z", None, "Z"), ("X/D", None, "D"), ("Z/D", None, "D"), ("X/Z/D", None, "D"), ("X/Z/U*", None, "U"),
        ("X/Z/D", 3, "X"), ("X/Z/D", 2, "Z"), ("X/Z/D", 1, "D"), ("X/D", 2, "D"), ("Z/D", 3, "Z"), ("X/Z", 1, "D"),
        ("Z", 1, "D"), ("Z", 2, "Z"), ("X/Z/U*", 3, "U"),
    ],
)  # fmt: skip
def test_compound_codes_follow_the_type(code: str, kind: int | None, letter: str) -> None:
    """D4: Type 3 -> X, 2 -> Z, 1 -> D; without type information X/Z -> Z and everything with D -> D."""
    assert resolved(code, kind) == letter


def test_types_are_those_of_the_iod_at_the_path() -> None:
    """D4: one attribute, two IODs, two paths: what it may become differs."""
    enhanced, plain = "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2"
    assert attribute_types(enhanced)[(0x0008002A,)] == 1
    assert attribute_types(plain)[(0x0008002A,)] == 3
    assert new_of(image(enhanced, AcquisitionDateTime="20200110101112")).AcquisitionDateTime == "19000101000000"
    assert "AcquisitionDateTime" not in new_of(image(plain, AcquisitionDateTime="20200110101112"))
    assert attribute_types("1.2.3") == {}


@pytest.mark.parametrize("option", sorted(action_table().option_codes))
def test_options_keep_and_clean_what_their_column_says(option: str) -> None:
    """D2: with an option, K rows are kept as they are, and no row without a code in its column changes its fate."""
    plan, basic = Plan(Profile(options=frozenset({option}))), Plan(Profile())
    for tag, row in action_table().rows.items():
        if tag >> 16 in (0, 2, 4, 0xFFFC):
            continue
        asked = row.options.get(option)
        if asked is None:
            assert plan.code(tag) == basic.code(tag)
        elif asked == "K":
            assert plan.code(tag) in ("K", "T")
