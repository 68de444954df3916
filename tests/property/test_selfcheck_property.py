"""Whatever Type 1 attribute is lost on the way, in whatever object and however deep, the gate notices."""

from __future__ import annotations

from copy import deepcopy
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.valuerep import VR

from dicomnode.report.context import DerivedObject
from dicomnode.report.selfcheck import tables
from dicomnode.report.selfcheck.sr_items import _MEASURED, _NEEDS, _REFERENCE
from tests.selfcheck_cases import faults_of, results

Path = tuple[tuple[str, int], ...]
"""Keyword and index of each sequence on the way."""


_BY_CHOICE = frozenset({"FrameAnatomySequence"})
"""Functional groups whose item has Type 1, but which may be left out as a whole."""


@cache
def demanded(what: str, index: int) -> tuple[tuple[Path, str], ...]:
    """Where the object has an attribute that its IOD, or its value type, makes Type 1."""
    dataset = results(what)[0][index].dataset
    iod = tables.iods()[str(dataset.SOPClassUID)]
    present = frozenset(iod.owner[one.keyword] for one in dataset if one.keyword in iod.owner)
    found = list(_of_tables(dataset, tables.merged(str(dataset.SOPClassUID), present), ()))
    return tuple(found + list(_of_content(dataset, ())))


def _of_tables(dataset: Dataset, attributes: tables.Attributes, path: Path):
    for element in dataset:
        known = attributes.get(element.keyword)
        if known is None or element.keyword == "ContentSequence":
            continue
        if known.type == "1" and element.keyword not in _BY_CHOICE:
            yield path, element.keyword
        if element.VR == VR.SQ:
            for n, item in enumerate(element.value):
                yield from _of_tables(item, known.items, (*path, (element.keyword, n)))


def _of_content(dataset: Dataset, path: Path):
    for n, item in enumerate(dataset.get("ContentSequence") or ()):
        here = (*path, ("ContentSequence", n))
        for keyword in ("ValueType", "RelationshipType", *_NEEDS[item.ValueType]):
            yield here, keyword
        for sequence, inner in (("MeasuredValueSequence", _MEASURED), ("ReferencedSOPSequence", _REFERENCE)):
            if sequence in item:
                yield from (((*here, (sequence, 0)), keyword) for keyword in inner)
        yield from _of_content(item, here)


@pytest.mark.parametrize("what", ["CT", "DX", "frames", "no findings"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_selfcheck_notices_the_loss_of_any_type_1_attribute(what, data):
    objects, evidence = results(what)
    index = data.draw(st.integers(0, len(objects) - 1))
    path, keyword = data.draw(st.sampled_from(demanded(what, index)))
    item = DerivedObject(objects[index].kind, deepcopy(objects[index].dataset))
    place = item.dataset
    for sequence, n in path:
        place = place[sequence].value[n]
    delattr(place, keyword)
    assert faults_of(item, evidence), (item.kind, path, keyword)
