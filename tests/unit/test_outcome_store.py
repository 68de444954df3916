"""Objects of a result set on their way into the spool."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomnode.detect.outcome import store_objects
from dicomnode.report import DerivedObject, Encoder, to_bytes, to_parts
from dicomnode.report.selfcheck import Evidence
from dicomnode.report.selfcheck.case import Case
from dicomnode.store.spool import Spool
from tests.selfcheck_cases import results


def test_outcome_stored_objects_are_the_files_in_their_order(tmp_path: Path) -> None:
    """What a row says of an object, name, size and digest, is the file that lies there, whole."""
    objects, _ = results("CT")
    spool = Spool(tmp_path / "spool")
    stored = store_objects(spool, objects)
    assert [one.SOPInstanceUID for one in stored] == [str(one.dataset.SOPInstanceUID) for one in objects]
    for row, one in zip(stored, objects, strict=True):
        content = spool.absolute(row.path).read_bytes()
        assert content == to_bytes(one.dataset)
        assert (row.sha256, row.size) == (hashlib.sha256(content).hexdigest(), len(content))


def test_outcome_a_failure_in_the_middle_leaves_nothing_half_made(tmp_path: Path) -> None:
    """An object that is refused after others were stored: the failure is raised as it is, no unfinished file stays."""
    objects, _ = results("CT")

    def until_third() -> Iterator[DerivedObject]:
        yield from objects[:3]
        raise ValueError("the fourth")

    spool = Spool(tmp_path / "spool")
    with pytest.raises(ValueError, match="the fourth"):
        store_objects(spool, until_third())
    assert spool.unfinished() == []
    names = {path.read_bytes() for path in (tmp_path / "spool" / "derived").rglob("*.dcm")}
    assert names == {to_bytes(one.dataset) for one in objects[:3]}


def test_outcome_pixels_are_not_copied_to_be_stored() -> None:
    """Memory: the file is made of pieces, one of which is the very value of Pixel Data."""
    objects, _ = results("CT")
    encoder = Encoder()
    for one in objects:
        parts = to_parts(one.dataset, encoder)
        assert b"".join(parts) == to_bytes(one.dataset)
        if one.kind == "sc" and len(one.dataset.PixelData) > 100_000:
            assert any(part is one.dataset.PixelData for part in parts)


def test_selfcheck_every_series_of_a_kind_with_several_is_known() -> None:
    """Further segmentations, of a source that does not fit into one, have derived Series too; no other UID passes."""
    evidence: Evidence = results("CT")[1]
    case = Case(evidence)
    assert case.document_of(case.uids.series("sr-regions")) == "sr-regions"
    assert case.document_of(case.uids.series("seg-2")) == "seg"
    assert case.document_of(case.uids.series("pdf-2")) is None
