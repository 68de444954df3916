"""What says in the object itself that it was de-identified, and how (PS3.15 E.1.1, trust D20)."""

from __future__ import annotations

from collections.abc import Mapping

from dicomnode.deid.profile import Profile
from dicomnode.deid.tree import Element, Items, text_element

MEANINGS: Mapping[str, str] = {
    "113100": "Basic Application Confidentiality Profile",
    "113101": "Clean Pixel Data Option",
    "113102": "Clean Recognizable Visual Features Option",
    "113103": "Clean Graphics Option",
    "113104": "Clean Structured Content Option",
    "113105": "Clean Descriptors Option",
    "113106": "Retain Longitudinal Temporal Information Full Dates Option",
    "113107": "Retain Longitudinal Temporal Information Modified Dates Option",
    "113108": "Retain Patient Characteristics Option",
    "113109": "Retain Device Identity Option",
    "113110": "Retain UIDs Option",
    "113111": "Retain Safe Private Option",
    "113112": "Retain Institution Identity Option",
}
"""CID 7050 (PS3.16)."""
_LO_CHARACTERS = 64


def marks(profile: Profile, codes: tuple[str, ...]) -> list[Element]:
    """Patient Identity Removed, the method as text and as ``codes``, and what became of the dates."""
    method = f"dicomnode, profile {profile.name} {profile.version}"[:_LO_CHARACTERS].strip()
    return [
        text_element(0x00120062, "YES"),
        text_element(0x00120063, method.encode("ascii", "replace").decode().replace("\\", "/")),
        Element(0x00120064, "SQ", Items(tuple(_code(code) for code in codes))),
        text_element(0x00280303, _dates(profile)),
    ]


def _dates(profile: Profile) -> str:
    if "retain_full_dates" in profile.options:
        return "UNMODIFIED"
    return "MODIFIED" if "retain_modified_dates" in profile.options else "REMOVED"


def _code(code: str) -> list[Element]:
    return [
        text_element(0x00080100, code),
        text_element(0x00080102, "DCM"),
        text_element(0x00080104, MEANINGS[code]),
    ]
