"""Values in place of real ones: never empty, valid for their VR and, for coded attributes, one of the terms (D5)."""

from __future__ import annotations

from collections.abc import Mapping

from dicomnode.deid.tree import Element, Items, dictionary_kind, text_element

REMOVED = "REMOVED"
_TEXT: Mapping[str, str] = {
    "DA": "19000101", "TM": "000000", "DT": "19000101000000", "AS": "000Y", "DS": "0", "IS": "0",
    "UR": "urn:dicomnode:removed",
}  # fmt: skip
_WORDS = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"})
NUMBER_BYTES: Mapping[str, int] = {
    "US": 2, "SS": 2, "UL": 4, "SL": 4, "UV": 8, "SV": 8, "FL": 4, "FD": 8, "AT": 4,
}  # fmt: skip
"""VRs of numbers, and how long one value is (PS3.5 table 6.2-1)."""
_WIDTHS: Mapping[str, int] = {**NUMBER_BYTES, "OB": 2, "OW": 2, "OL": 4, "OF": 4, "OD": 8, "OV": 8, "UN": 2}

# fmt: off
CODED: Mapping[int, tuple[str, ...]] = {
    0x0040A040: ("TEXT", "NUM", "CODE", "DATETIME", "DATE", "TIME", "UIDREF", "PNAME", "COMPOSITE", "IMAGE",
                 "WAVEFORM", "SCOORD", "SCOORD3D", "TCOORD", "CONTAINER", "TABLE"),
    0x0040A010: ("CONTAINS", "HAS OBS CONTEXT", "HAS ACQ CONTEXT", "HAS CONCEPT MOD", "HAS PROPERTIES",
                 "INFERRED FROM", "SELECTED FROM"),
    0x0040A050: ("SEPARATE", "CONTINUOUS"),
    0x00700023: ("POINT", "POLYLINE", "INTERPOLATED", "CIRCLE", "ELLIPSE", "MULTIPOINT", "POLYGON", "ELLIPSOID"),
    0x00700024: ("N", "Y"),
    0x00700003: ("PIXEL", "DISPLAY", "MATRIX"),
    0x00700004: ("PIXEL", "DISPLAY", "MATRIX"),
    0x00700005: ("PIXEL", "DISPLAY", "MATRIX"),
    0x00700012: ("LEFT", "RIGHT", "CENTER"),
    0x00700015: ("N", "Y"),
    0x0040A130: ("POINT", "MULTIPOINT", "SEGMENT", "MULTISEGMENT", "BEGIN", "END"),
    0x00480301: ("VOLUME", "SLIDE"),
    0x04000565: ("COERCE", "CORRECT"),
    0x00081197: ("REMOVED",),
    0x00100040: ("O", "F", "M"),
    0x00102203: ("UNALTERED", "ALTERED"),
}
"""Coded attributes that a dummy may stand for: a value that is one of the terms stays, another becomes the first."""

STRUCTURE = frozenset({
    0x0040DB73, 0x00081150, 0x00081160, 0x0062000B, 0x0040A0B0, 0x00700020, 0x00700021, 0x00700002,
})
"""What holds a document or drawing together and tells nothing: positions in it, frame and channel numbers, layers."""
# fmt: on


def dummy(tag: int, vr: str, before: Element, replacement: str = "") -> Element:
    """The dummy for an element; ``vr``: how it is written, ``replacement``: a text of the profile in its place.

    As many numbers as there were. Coded attributes keep a term they may have.
    """
    kind = vr if vr and vr != "UN" else dictionary_kind(tag)
    if replacement:
        return text_element(tag, replacement)._replace(vr=vr)
    if tag in CODED:
        text = before.value.decode("latin-1").strip(" \0") if isinstance(before.value, bytes) else ""
        return _text(tag, vr, text if text in CODED[tag] else CODED[tag][0])
    if kind in _WORDS:
        return _text(tag, vr, REMOVED)
    if kind in ("DS", "IS"):
        values = before.value.count(b"\\") + 1 if isinstance(before.value, bytes) else 1
        return _text(tag, vr, "\\".join("0" * values))
    if kind in _TEXT:
        return _text(tag, vr, _TEXT[kind])
    width = _WIDTHS.get(kind, 2)
    held = len(before.value) if isinstance(before.value, bytes) and kind in NUMBER_BYTES else 0
    return Element(tag, vr, bytes(max(width, held - held % width)))


def removed_code() -> list[Element]:
    """The item of a code sequence that tells nothing (PS3.3 8.8)."""
    return [
        text_element(0x00080100, REMOVED),
        text_element(0x00080102, "99DICOMNODE"),
        text_element(0x00080104, "removed"),
    ]


def is_code(value: Items) -> bool:
    """Whether the items are codes: they have a code and a meaning."""
    return any(
        {element.tag for element in item} & {0x00080100, 0x00080119, 0x00080120, 0x00080104} for item in value.items
    )


def _text(tag: int, vr: str, text: str) -> Element:
    return Element(tag, vr, (text + " " * (len(text) % 2)).encode())
