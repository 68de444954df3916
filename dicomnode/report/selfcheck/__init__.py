"""The offline conformance gate: no object leaves the node that breaks its IOD, its template or our own rules.

Texts of faults say where (attribute path), what and by which clause; they never repeat a value of the object, as they
reach logs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dicomnode.errors import Permanent
from dicomnode.report.context import DerivedObject
from dicomnode.report.selfcheck.captures import capture_faults
from dicomnode.report.selfcheck.case import Case, Evidence
from dicomnode.report.selfcheck.coded import code_faults
from dicomnode.report.selfcheck.derived_frames import parametric_map_faults, segmentation_faults
from dicomnode.report.selfcheck.elements import element_faults
from dicomnode.report.selfcheck.encapsulated import encapsulated_faults
from dicomnode.report.selfcheck.identity import CLASSES, identity_faults
from dicomnode.report.selfcheck.level import walked
from dicomnode.report.selfcheck.modules import module_faults
from dicomnode.report.selfcheck.pixels import pixel_faults
from dicomnode.report.selfcheck.placement import placement_faults
from dicomnode.report.selfcheck.presentation import presentation_faults
from dicomnode.report.selfcheck.sr_rules import key_object_faults, report_faults
from dicomnode.report.selfcheck.tables import iods
from dicomnode.report.selfcheck.uids import frame_of_reference_faults
from dicomnode.report.selfcheck.whole import ResultSet

__all__ = ["Evidence", "NonConformant", "checked", "faults", "prepare"]

_OF_ALL = (module_faults, code_faults, frame_of_reference_faults)
_OF_KIND = {
    "seg": segmentation_faults,
    "pm": parametric_map_faults,
    "gsps": presentation_faults,
    "ko": key_object_faults,
    "sr": report_faults,
    "sr-volume": report_faults,
    "pdf": encapsulated_faults,
}
_SHOWN = 12
"""Faults told in one message; a wholly wrong object has hundreds."""


class NonConformant(Permanent):
    """An object of ours breaks the standard or our own rules: it must not be sent. Names object and faults."""


def prepare() -> None:
    """Read the tables of the standard now, and not with the first result: that takes half a second."""
    iods()


def faults(item: DerivedObject, evidence: Evidence) -> list[str]:
    """Everything that is wrong with one object; empty when it may be sent."""
    return list(_faults(item, Case(evidence)))


def checked(objects: Iterable[DerivedObject], evidence: Evidence) -> Iterator[DerivedObject]:
    """Hand on ``objects`` one by one. Raises NonConformant at the first bad one.

    At the end it raises NonConformant too when a reference resolves neither to a source nor to an object of the set,
    or when the documents of the set contradict each other.
    """
    case = Case(evidence)
    results = ResultSet(case)
    for n, item in enumerate(objects, 1):
        _refuse(f"result {n} ({item.kind})", [*_faults(item, case), *results.add(item)])
        yield item
    _refuse("the result set", list(results.faults()))


def _refuse(what: str, found: list[str]) -> None:
    if found:
        more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise NonConformant(f"{what} is not sent: {'; '.join(found[:_SHOWN])}{more}")


def _faults(item: DerivedObject, case: Case) -> Iterator[str]:
    kind, dataset = item.kind, item.dataset
    if kind not in CLASSES:
        yield "kind: not one of our results"
        return
    yield from identity_faults(kind, dataset, case)
    level = walked(dataset, closed=case.repeated(dataset), known=case.levels)
    yield from element_faults(level.below(case.passed["elements"]), case)
    for judge in _OF_ALL:
        yield from judge(level, case)
    yield from pixel_faults(dataset, level, case)
    yield from placement_faults(dataset, case)
    if kind in _OF_KIND:
        yield from _OF_KIND[kind](dataset, case)
    else:
        yield from capture_faults(kind, dataset, case)
