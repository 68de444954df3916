"""The result objects have no error in dciodvfy, dsrdump and the PixelMed SR validator."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from dicomnode.report import build_results, to_bytes
from tests.acceptance.validators import dciodvfy, missing, pixelmed, validate, written
from tests.report_fixtures import content, context, findings, multiframe, no_findings, source

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(missing()), reason=f"not installed: {', '.join(missing())}"),
]


def _request() -> Dataset:
    request = Dataset()
    request.RequestedProcedureID, request.ScheduledProcedureStepID, request.ReferencedStudySequence = "RP", "SPS", []
    return request


def test_report_of_ct_with_several_findings_is_valid(tmp_path: Path):
    volume, headers = source("CT", 3, (512, 512), RequestAttributesSequence=[_request()], TimezoneOffsetFromUTC="+0100")
    built = build_results(volume, headers, findings(volume, ((0, 1), (2,))), context())
    assert validate(written([to_bytes(one.dataset) for one in built], tmp_path)) == []


def test_report_of_mr_frames_superseding_and_incomplete_is_valid(tmp_path: Path):
    volume, headers = multiframe()
    first = build_results(volume, headers, no_findings(volume), context(), frozenset({"sr"}))
    told = context(generation=2, incomplete=True, supersedes=tuple(one.reference for one in first))
    built = build_results(volume, headers, findings(volume, ((1,),)), told)
    assert validate(written([to_bytes(one.dataset) for one in built], tmp_path)) == []


@pytest.mark.parametrize("charset", [("ISO_IR 100", "Müller^Jörg"), (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎")])
def test_report_of_dx_without_findings_and_with_sparse_headers_is_valid(charset, tmp_path: Path):
    empty = dict.fromkeys(["PatientBirthDate", "StudyID", "AccessionNumber", "PatientOrientation", "BodyPartExamined"])
    volume, headers = source("DX", 1, SpecificCharacterSet=charset[0], PatientName=charset[1], **empty)
    built = build_results(volume, headers, no_findings(volume), context(detector="cxr"))
    assert validate(written([to_bytes(one.dataset) for one in built], tmp_path)) == []


def test_report_validators_would_find_an_error(tmp_path: Path):
    """The runner itself: a picture without Conversion Type and a document with a wrong procedure code fail."""
    volume, headers = source("CT", 1)
    built = [one.dataset for one in build_results(volume, headers, no_findings(volume), context())]
    del built[0].ConversionType
    reported = next(item for name, item in content(built[1]) if name == "121058")
    reported.ConceptCodeSequence[0].CodeValue = "P5-00000"
    picture, document = written([to_bytes(one) for one in built], tmp_path)
    assert any("ConversionType" in error for error in dciodvfy(picture))
    assert pixelmed(document)


def test_report_of_every_body_part_has_a_valid_laterality(tmp_path: Path):
    volume, headers = source("DX", 1)
    for part in ("CHEST", "HEAD", "KNEE", "SELLA", "URETER", "MANDIBLE", "UNHEARDOF", ""):
        own = [replaced(headers[0], part)]
        built = build_results(volume, own, no_findings(volume), context(), frozenset({"sc"}))
        (path,) = written([to_bytes(built[0].dataset)], tmp_path)
        assert dciodvfy(path) == [], part


def replaced(header: Dataset, part: str) -> Dataset:
    own = Dataset(header)
    own.BodyPartExamined = part
    return own
