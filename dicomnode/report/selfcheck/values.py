"""Values: character repertoire, length and multiplicity by VR, UIDs, bulk data (PS3.5 6.2, 9.1, PS3.6 6)."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from pydicom import config
from pydicom.datadict import dictionary_VM, dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.valuerep import PersonName, validate_value

from dicomnode.report.selfcheck.case import Case

_TEXT = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UR"})
BULK = frozenset({"OB", "OW", "OF", "OD", "OL", "OV", "UN"})
_UNSPLIT = frozenset({"LT", "ST", "UT", "UR"})
_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+\Z")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f]")
_VM = re.compile(r"(\d+)(?:-(?:(\d+)|(\d*)n))?\Z")


def value_fault(name: str, element: DataElement, case: Case) -> str:
    """How the value breaks its VR or VM, "" if it does not. One that the source states in the same attribute, called
    ``name``, is repeated as it is."""
    fault = _fault(element)
    return "" if fault and (case.states(name, element.value) or _is_uid_of_source(element, case)) else fault


def _is_uid_of_source(element: DataElement, case: Case) -> bool:
    """References name the source as it names itself, also with a component that starts with zero."""
    return str(element.VR) == "UI" and isinstance(element.value, str) and case.has_uid(element.value)


def _fault(element: DataElement) -> str:
    vr, value, tag = str(element.VR), element.value, int(element.tag)
    if vr not in _vrs(tag):
        return f"has VR {vr}, which PS3.6 does not give it"
    if vr in BULK:
        return "has an odd length (PS3.5 7.1.1)" if isinstance(value, bytes) and len(value) % 2 else ""
    values = _split(vr, value)
    if not _fits(tag, len(values)):
        return f"has {len(values)} values (value multiplicity, PS3.6 6)"
    return next((text for one in values if (text := _value_fault(vr, one))), "")


def _split(vr: str, value: Any) -> list[Any]:
    if value is None or (isinstance(value, str) and not value):
        return []
    if vr in _UNSPLIT or isinstance(value, (str, bytes, PersonName)) or not hasattr(value, "__iter__"):
        return [value]
    return list(value)


def _value_fault(vr: str, value: Any) -> str:
    if vr == "UI":
        return "" if len(str(value)) <= 64 and _UID.match(str(value)) else "is not a UID (PS3.5 9.1)"
    if vr not in _TEXT:
        return ""
    text = str(value)
    if _CONTROL.search(text):
        return "has control characters (PS3.5 6.1.3)"
    try:
        validate_value(vr, text, config.RAISE)
    except ValueError:
        return f"breaks its VR {vr} (PS3.5 6.2)"
    return ""


@cache
def _vrs(tag: int) -> frozenset[str]:
    try:
        return frozenset(dictionary_VR(tag).split(" or "))
    except KeyError:
        return frozenset({"UN"})


@cache
def _limits(tag: int) -> tuple[int, int, int]:
    """Least and greatest number of values (0: any), and the step."""
    match = _VM.match(dictionary_VM(tag).split(" or ")[0])
    if match is None:
        return 1, 0, 1
    least = int(match[1])
    if match[2] is None and match[3] is None:
        return least, least, 1
    return (least, int(match[2]), 1) if match[2] else (least, 0, int(match[3] or 1))


def _fits(tag: int, count: int) -> bool:
    if count == 0:
        return True
    least, most, step = _limits(tag)
    return count >= least and (not most or count <= most) and count % step == 0
