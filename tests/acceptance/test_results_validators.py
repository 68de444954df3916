"""No third-party validator finds an error in any kind of result, of any modality, for any outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedMRImageStorage

from dicomnode.detectors.contract import Outcome
from dicomnode.report import DerivedObject, build_results, to_bytes
from dicomnode.report.build import KINDS
from dicomnode.report.status import StatusStatement, status_results
from tests.acceptance.validators import dciodvfy, missing, pixelmed_all, validate, written
from tests.report_fixtures import content, context, findings, multiframe, no_findings, source

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(missing()), reason=f"not installed: {', '.join(missing())}"),
]

ALWAYS = frozenset({"sc", "mf-sc", "pm", "sr", "pdf", "page"})
WITH_FINDINGS = KINDS
STATUS = frozenset({"page", "pdf"})
SPARSE = dict.fromkeys(["PatientBirthDate", "StudyID", "AccessionNumber", "PatientOrientation", "BodyPartExamined"])
BODY_PARTS = ("CHEST", "HEAD", "KNEE", "SELLA", "URETER", "MANDIBLE", "UNHEARDOF", "")

Made = tuple[DerivedObject, ...]


def _request() -> Dataset:
    request = Dataset()
    request.RequestedProcedureID, request.ScheduledProcedureStepID, request.ReferencedStudySequence = "RP", "SPS", []
    return request


def _found(modality: str, n: int) -> Callable[[], Made]:
    def make() -> Made:
        ordered = {"RequestAttributesSequence": [_request()], "TimezoneOffsetFromUTC": "+0100"}
        volume, headers = source(modality, n, (96, 64), **ordered)
        planes = ((0, 1), (2,)) if n > 1 else ((0,),)
        return build_results(volume, headers, findings(volume, planes), context(banner="RESEARCH ONLY"))

    return make


def _absent(modality: str, n: int) -> Callable[[], Made]:
    def make() -> Made:
        volume, headers = source(modality, n)
        return build_results(volume, headers, no_findings(volume), context())

    return make


def _enhanced_ct() -> Made:
    volume, headers = multiframe()
    return build_results(volume, headers, findings(volume, ((0, 1),)), context())


def _enhanced_mr() -> Made:
    volume, headers = multiframe()
    one = replace(volume.planes[0].source, SOPClassUID=str(EnhancedMRImageStorage))
    planes = tuple(replace(plane, source=one) for plane in volume.planes)
    own = headers[0]
    own.Modality, own.SOPClassUID = "MR", EnhancedMRImageStorage
    of_mr = replace(volume, planes=planes)
    return build_results(of_mr, [own] * len(planes), no_findings(of_mr), context())


def _superseding_incomplete() -> Made:
    volume, headers = source("MR", 3)
    first = build_results(volume, headers, no_findings(volume), context(), frozenset({"sr"}))
    told = context(
        generation=2, incomplete=True, replaces_earlier=True, supersedes=tuple(one.reference for one in first)
    )
    return build_results(volume, headers, findings(volume, ((1,),)), told)


def _of_charset(charset: str | list[str], name: str) -> Callable[[], Made]:
    def make() -> Made:
        volume, headers = source("DX", 1, SpecificCharacterSet=charset, PatientName=name, **SPARSE)
        return build_results(volume, headers, no_findings(volume), context(detector="cxr"))

    return make


def status_of(modality: str, outcome: Outcome) -> Made:
    """The pages about a Series without a result."""
    volume, headers = source(modality, 2)
    statement = StatusStatement(outcome, "the slices are not parallel", "volume", 2)
    return tuple(status_results([plane.source for plane in volume.planes], headers, statement, context()))


CASES: dict[str, tuple[Callable[[], Made], frozenset[str]]] = {
    "CT findings": (_found("CT", 3), WITH_FINDINGS),
    "MR findings": (_found("MR", 3), WITH_FINDINGS),
    "DX findings": (_found("DX", 1), WITH_FINDINGS),
    "CR findings": (_found("CR", 1), WITH_FINDINGS),
    "CT no findings": (_absent("CT", 2), ALWAYS),
    "MR no findings": (_absent("MR", 1), ALWAYS),
    "CR no findings": (_absent("CR", 1), ALWAYS),
    "enhanced CT findings": (_enhanced_ct, WITH_FINDINGS),
    "enhanced MR no findings": (_enhanced_mr, ALWAYS),
    "MR superseding and incomplete": (_superseding_incomplete, WITH_FINDINGS),
    "DX Latin-1, sparse": (_of_charset("ISO_IR 100", "Müller^Jörg"), ALWAYS),
    "DX Japanese, sparse": (_of_charset(["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"), ALWAYS),
    "CT not analysed": (partial(status_of, "CT", Outcome.NOT_ANALYSED), STATUS),
    "DX not analysed": (partial(status_of, "DX", Outcome.NOT_ANALYSED), STATUS),
    "MR failed": (partial(status_of, "MR", Outcome.FAILED), STATUS),
}


def _planted() -> Iterator[Dataset]:
    """A picture without Conversion Type, a document with a wrong procedure code."""
    volume, headers = source("CT", 1)
    built = build_results(volume, headers, no_findings(volume), context(), frozenset({"sc", "sr"}))
    picture, document = (next(one.dataset for one in built if one.kind == kind) for kind in ("sc", "sr"))
    del picture.ConversionType
    reported = next(item for name, item in content(document) if name == "121058")
    reported.ConceptCodeSequence[0].CodeValue = "P5-00000"
    yield from (picture, document)


@pytest.fixture(scope="module")
def made() -> dict[str, Made]:
    """The objects of every case."""
    return {case: make() for case, (make, _) in CASES.items()}


@pytest.fixture(scope="module")
def faults(made: dict[str, Made], tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The errors in every case, from one run of all tools over all files."""
    folder = tmp_path_factory.mktemp("results")
    files = []
    for number, objects in enumerate(made.values()):
        for place, one in enumerate(objects):
            files.append(folder / f"{number:02}-{place:02}-{one.kind}.dcm")
            files[-1].write_bytes(to_bytes(one.dataset))
    found = validate(files)
    return {case: [error for error in found if error.startswith(f"{n:02}-")] for n, case in enumerate(made)}


@pytest.mark.parametrize("case", CASES)
def test_validators_find_no_error(case: str, made: dict[str, Made], faults: dict[str, list[str]]) -> None:
    assert {one.kind for one in made[case]} == CASES[case][1]
    assert faults[case] == []


def test_validators_would_find_an_error(tmp_path: Path) -> None:
    """The runner itself: planted faults are found by the tool that has to find them."""
    picture, document = written([to_bytes(one) for one in _planted()], tmp_path)
    assert any("ConversionType" in error for error in dciodvfy(picture))
    assert any("TID" in error or "context group" in error for error in pixelmed_all([document])[document])
    empty = dcmread(picture)
    del empty.PixelData
    empty.save_as(tmp_path / "empty.dcm")
    assert any("dcmj2pnm" in error for error in validate([tmp_path / "empty.dcm"]))
    (report,) = (one.dataset for one in status_of("CT", Outcome.FAILED) if one.kind == "pdf")
    report.EncapsulatedDocument = b"no PDF at all "
    assert any("dcm2pdf" in error for error in validate(written([to_bytes(report)], tmp_path)))


def test_a_presentation_state_is_shown_to_the_checker_of_presentation_states(made: dict[str, Made]) -> None:
    """dcmpschk knows no UTF-8; the states of an ASCII patient and banner are ASCII, so it has something to judge."""
    states = [one.dataset for one in made["CT findings"] if one.kind == "gsps"]
    assert states
    texts = [e.value for state in states for e in state.iterall() if e.VR in ("PN", "LO", "SH", "ST", "LT", "UT")]
    assert all(str(text).isascii() for text in texts)


def test_every_body_part_has_a_valid_laterality(tmp_path: Path) -> None:
    volume, headers = source("DX", 1)
    for part in BODY_PARTS:
        own = Dataset(headers[0])
        own.BodyPartExamined = part
        built = build_results(volume, [own], no_findings(volume), context(), frozenset({"sc"}))
        for path in written([to_bytes(one.dataset) for one in built], tmp_path):
            assert dciodvfy(path) == [], part
