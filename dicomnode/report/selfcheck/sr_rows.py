"""Rows of the SR templates that our documents are made of (PS3.16): what may, must and must not be in them.

Only what our documents use is here. Rows that PS3.16 leaves optional and IHE AIR asks for are mandatory here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

from dicomnode.report.selfcheck.coded import Key

ANY: Key = ("*", "*")
"""Any concept name, or none."""
NONE: Key = ("", "")
"""No concept name."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a template. ``most`` 0: any number of times; ``value``, ``units``: the only code that is allowed."""

    place: str
    relationship: str
    value_type: str
    concept: Key
    least: int = 0
    most: int = 1
    children: tuple[Row, ...] = ()
    value: Key | None = None
    units: Key | None = None

    @property
    def kind(self) -> tuple[str, str, Key]:
        """What an item of this row has."""
        return self.relationship, self.value_type, self.concept


def _dcm(code: str) -> Key:
    return code, "DCM"


def _sct(code: str) -> Key:
    return code, "SCT"


_CONTAINS, _MOD, _OBS, _ACQ = "CONTAINS", "HAS CONCEPT MOD", "HAS OBS CONTEXT", "HAS ACQ CONTEXT"
_SELECTED, _INFERRED = "SELECTED FROM", "INFERRED FROM"

MEASUREMENTS, GROUP, LIBRARY, LIBRARY_GROUP = _dcm("126010"), _dcm("125007"), _dcm("111028"), _dcm("126200")
REGION, SEGMENT, SOURCE_SERIES, SOURCE_OF_SEGMENT = _dcm("111030"), _dcm("121191"), _dcm("121232"), _dcm("121233")
TRACKING_ID, TRACKING_UID, FINDING, COMMENT = _dcm("112039"), _dcm("112040"), _dcm("121071"), _dcm("121106")
PROCEDURE, DEVICE_UID, SOURCE_OF_MEASUREMENT = _dcm("121058"), _dcm("121012"), _dcm("121112")

TID_1204 = (
    Row(
        "TID 1204 row 1",
        _MOD,
        "CODE",
        _dcm("121049"),
        children=(Row("TID 1204 row 2", _MOD, "CODE", _dcm("121046")),),
    ),
)
TID_1004 = (
    Row("TID 1004 row 1", _OBS, "UIDREF", DEVICE_UID, least=1),
    Row("TID 1004 row 2", _OBS, "TEXT", _dcm("121013"), least=1),
    Row("TID 1004 row 3", _OBS, "TEXT", _dcm("121014"), least=1),
    Row("TID 1004 row 4", _OBS, "TEXT", _dcm("121015"), least=1),
    Row("TID 1004 row 5", _OBS, "TEXT", _dcm("121016"), least=1),
    Row("TID 1004 row 6", _OBS, "TEXT", _dcm("121017")),
    Row("TID 1004 row 7", _OBS, "CODE", _dcm("113876"), most=0),
)
TID_1002 = (Row("TID 1002 row 1", _OBS, "CODE", _dcm("121005"), least=1, value=_dcm("121007")), *TID_1004)
"""Observer context: always the device, never a person."""

TID_4019 = (
    Row("TID 4019 row 1", _MOD, "TEXT", _dcm("111001"), least=1),
    Row("TID 4019 row 2", _MOD, "TEXT", _dcm("111003"), least=1),
    Row("TID 4019 row 3", _MOD, "TEXT", _dcm("111002"), most=0),
    Row("TID 4019 row 4", _MOD, "CODE", _dcm("111000")),
)
_MM, _COSINE, _PIXELS = ("mm", "UCUM"), ("{-1:1}", "UCUM"), ("{pixels}", "UCUM")
TID_1602 = (
    Row("TID 1602 row 1", _ACQ, "CODE", _dcm("121139")),
    Row("TID 1602 row 2", _ACQ, "CODE", _dcm("123014")),
    Row("TID 1602 row 3", _ACQ, "CODE", _dcm("111027")),
    Row("TID 1602 row 4", _ACQ, "DATE", _dcm("111060")),
    Row("TID 1602 row 5", _ACQ, "TIME", _dcm("111061")),
    Row("TID 1602 row 6", _ACQ, "DATE", _dcm("111018")),
    Row("TID 1602 row 7", _ACQ, "TIME", _dcm("111019")),
    Row("TID 1602 row 8", _ACQ, "DATE", _dcm("126201")),
    Row("TID 1602 row 9", _ACQ, "TIME", _dcm("126202")),
    Row("TID 1602 row 10", _ACQ, "UIDREF", _dcm("112227")),
    Row("TID 1602 row 11", _ACQ, "NUM", _dcm("110910"), units=_PIXELS),
    Row("TID 1602 row 12", _ACQ, "NUM", _dcm("110911"), units=_PIXELS),
    Row("TID 1603 row 1", _ACQ, "CODE", _dcm("111031")),
    Row("TID 1603 row 3", _ACQ, "TEXT", _dcm("111044")),
    Row("TID 1603 row 4", _ACQ, "TEXT", _dcm("111043")),
    Row("TID 1604 row 1", _ACQ, "NUM", _dcm("111026"), units=_MM),
    Row("TID 1604 row 2", _ACQ, "NUM", _dcm("111066"), units=_MM),
    Row("TID 1604 row 3", _ACQ, "NUM", _dcm("112226"), units=_MM),
    Row("TID 1604 row 4", _ACQ, "NUM", _dcm("112225"), units=_MM),
    *(Row(f"TID 1604 row {n - 110896}", _ACQ, "NUM", _dcm(str(n)), units=_MM) for n in range(110901, 110904)),
    *(Row(f"TID 1604 row {n - 110896}", _ACQ, "NUM", _dcm(str(n)), units=_COSINE) for n in range(110904, 110910)),
)
"""Image Library entry descriptors, those of projections (TID 1603) and cross-sections (TID 1604) included."""

TID_1600 = Row(
    "TID 1600 row 1",
    _CONTAINS,
    "CONTAINER",
    LIBRARY,
    least=1,
    children=(
        Row(
            "TID 1600 row 2",
            _CONTAINS,
            "CONTAINER",
            LIBRARY_GROUP,
            least=1,
            most=0,
            children=(
                *TID_1602,
                Row("TID 1601 row 1", _CONTAINS, "IMAGE", ANY, least=1, most=0, children=TID_1602),
            ),
        ),
    ),
)
_IMAGE = Row("TID 320 row 4", _SELECTED, "IMAGE", ANY, least=1)
_FINDING_SITE = (
    Row(
        "TID 1419 row 2",
        _MOD,
        "CODE",
        _sct("363698007"),
        most=0,
        children=(
            Row("TID 1419 row 3", _MOD, "CODE", _sct("272741003")),
            Row("TID 1419 row 4", _MOD, "CODE", _sct("106233006")),
        ),
    ),
)
_METHOD = Row("TID 1419 row 1", _MOD, "CODE", _sct("370129005"))
TID_300 = Row(
    "TID 300 row 1",
    _CONTAINS,
    "NUM",
    ANY,
    least=1,
    most=0,
    children=(
        replace(_METHOD, place="TID 300 row 3"),
        Row("TID 300 row 4", _MOD, "CODE", _dcm("121401")),
        *_FINDING_SITE,
        Row("TID 320 row 1", _INFERRED, "IMAGE", ANY, most=0),
        Row("TID 320 row 3", _INFERRED, "SCOORD", ANY, most=0, children=(_IMAGE,)),
        *TID_4019,
    ),
)
_GROUP = (
    Row("TID 1501 row 2", _OBS, "TEXT", TRACKING_ID, least=1),
    Row("TID 1501 row 3", _OBS, "UIDREF", TRACKING_UID, least=1),
    Row("TID 1501 row 3b", _CONTAINS, "CODE", FINDING, least=1),
    _METHOD,
    *_FINDING_SITE,
    *TID_4019,
    TID_300,
)
"""What TID 1501, 1410 and 1411 share; tracking, finding and algorithm are mandatory (IHE AIR)."""

_REAL_WORLD = Row("TID 1410 row 10", _CONTAINS, "COMPOSITE", _dcm("126100"))
TID_1501 = (*_GROUP, Row("TID 1501 row 10b", _CONTAINS, "IMAGE", SOURCE_OF_MEASUREMENT, most=0), _REAL_WORLD)
TID_1410 = (
    *_GROUP,
    Row("TID 1410 row 3c", _CONTAINS, "CODE", _dcm("130400")),
    Row(
        "TID 1410 row 5",
        _CONTAINS,
        "SCOORD",
        REGION,
        least=1,
        children=(replace(_IMAGE, place="TID 1410 row 6"),),
    ),
    _REAL_WORLD,
)
"""A region is a polygon on one image (row 5), never a segmentation frame (row 7)."""

TID_1411 = (
    *_GROUP,
    Row("TID 1411 row 3c", _CONTAINS, "CODE", _dcm("130400")),
    Row("TID 1411 row 7", _CONTAINS, "IMAGE", SEGMENT, least=1),
    Row("TID 1411 row 11", _CONTAINS, "IMAGE", SOURCE_OF_SEGMENT, most=0),
    Row("TID 1411 row 12", _CONTAINS, "UIDREF", SOURCE_SERIES),
    _REAL_WORLD,
)
"""A volume is a segment (row 7), never a stack of polygons (row 5) or a surface (row 10)."""

GROUPS = {"1501": TID_1501, "1410": TID_1410, "1411": TID_1411}

TID_1500_HEAD = (
    *TID_1204,
    *TID_1002,
    Row("TID 1500 row 4", _MOD, "CODE", PROCEDURE, least=1),
    TID_1600,
)
TID_2010 = (
    Row("TID 2010 row 2", _MOD, "CODE", _dcm("113011"), most=0),
    *TID_1204,
    *TID_1002,
    Row("TID 2010 row 7", _CONTAINS, "TEXT", _dcm("113012"), least=1),
    Row("TID 2010 row 8", _CONTAINS, "IMAGE", NONE, most=0),
    Row("TID 2010 row 9", _CONTAINS, "WAVEFORM", NONE, most=0),
    Row("TID 2010 row 10", _CONTAINS, "COMPOSITE", NONE, most=0),
)
"""Not extensible; images, waveforms and composites carry no concept name."""


@cache
def tid_1500(group: str) -> tuple[Row, ...]:
    """Rows of a Measurement Report whose groups are all of template ``group`` ("1501", "1410" or "1411")."""
    groups = Row(f"TID {group} row 1", _CONTAINS, "CONTAINER", GROUP, least=1, most=0, children=GROUPS[group])
    measurements = Row("TID 1500 row 6", _CONTAINS, "CONTAINER", MEASUREMENTS, least=1, children=(groups,))
    return (*TID_1500_HEAD, measurements)
