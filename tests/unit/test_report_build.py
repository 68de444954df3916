"""Which objects an outcome gives, and that the same analysis gives the same bytes."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from io import BytesIO

import pytest
from pydicom import dcmread

from dicomnode.config.results import RESULT_KINDS, SEND_ORDER
from dicomnode.detectors.contract import DetectionResult, ModelIdentity, Outcome
from dicomnode.report import ResultUIDs, build_results, device_uid, iter_results, to_bytes
from dicomnode.report.build import BUILDERS
from dicomnode.report.envelope import SERIES_NUMBERS
from tests.report_fixtures import SERIES, context, findings, multiframe, no_findings, source


def test_report_findings_give_every_kind_in_the_order_of_sending():
    volume, headers = source(n=3)
    kinds = [one.kind for one in build_results(volume, headers, findings(volume), context())]
    assert kinds == ["sc", "sc", "sc", "mf-sc", "seg", "pm", "gsps", "ko", "sr", "sr", "sr-volume", "pdf", "page"]


def test_report_no_findings_gives_pictures_a_map_the_root_document_and_the_page():
    """What marks a finding (segments, outlines, key objects, regions) must not exist without one."""
    volume, headers = source(n=2)
    kinds = [one.kind for one in build_results(volume, headers, no_findings(volume), context())]
    assert kinds == ["sc", "sc", "mf-sc", "pm", "sr", "pdf", "page"]


def test_report_makes_every_kind_that_a_site_may_ask_for():
    assert tuple(BUILDERS) == SEND_ORDER
    assert set(RESULT_KINDS) < set(BUILDERS)


def test_report_builds_only_the_kinds_asked_for():
    volume, headers = source(n=2)
    built = build_results(volume, headers, findings(volume, ((0,),)), context(), frozenset({"sr"}))
    assert [one.kind for one in built] == ["sr", "sr"]


@pytest.mark.parametrize("outcome", [Outcome.NOT_ANALYSED, Outcome.FAILED])
def test_report_refuses_outcomes_that_must_not_look_like_a_result(outcome):
    volume, headers = source(n=1)
    with pytest.raises(ValueError, match="no result objects"):
        build_results(volume, headers, DetectionResult(outcome, reason="because"), context())


def test_report_refuses_unknown_kinds():
    volume, headers = source(n=1)
    with pytest.raises(ValueError, match="unknown kinds"):
        build_results(volume, headers, no_findings(volume), context(), frozenset({"hologram"}))


def test_report_refuses_headers_that_do_not_fit_the_planes():
    volume, headers = source(n=2)
    with pytest.raises(ValueError, match="number of planes"):
        build_results(volume, headers[:1], no_findings(volume), context())


def test_report_refuses_at_the_call_not_at_the_first_object():
    volume, headers = source(n=2)
    with pytest.raises(ValueError, match="number of planes"):
        iter_results(volume, headers[:1], no_findings(volume), context())


def test_report_context_refuses_a_clock_without_time_zone():
    with pytest.raises(ValueError, match="time zone"):
        context(analysed_at=datetime(2026, 1, 1))  # noqa: DTZ001


@pytest.mark.parametrize("make", [lambda: source("CT"), lambda: source("DX", 1), multiframe])
def test_report_same_input_gives_the_same_bytes(make):
    volume, headers = make()
    again, headers_again = make()
    planes = ((0,),)
    first = [to_bytes(one.dataset) for one in build_results(volume, headers, findings(volume, planes), context())]
    second = [to_bytes(one.dataset) for one in build_results(again, headers_again, findings(again, planes), context())]
    assert first == second


def test_report_leaves_the_source_headers_as_they_were():
    volume, headers = source(n=2)
    before = [one.to_json() for one in headers]
    build_results(volume, headers, findings(volume, ((0,),)), context())
    assert [one.to_json() for one in headers] == before


def test_report_files_are_readable_part_10_with_a_zero_preamble():
    volume, headers = source(n=1)
    for one in build_results(volume, headers, findings(volume, ((0,),)), context()):
        data = to_bytes(one.dataset)
        assert data[:132] == bytes(128) + b"DICM"
        read = dcmread(BytesIO(data))
        assert read.file_meta.MediaStorageSOPInstanceUID == one.reference.SOPInstanceUID == read.SOPInstanceUID
        assert read.file_meta.MediaStorageSOPClassUID == read.SOPClassUID
        assert read.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
        assert read.file_meta.SourceApplicationEntityTitle == "DICOMNODE"


def test_report_objects_never_share_an_instance_uid_and_each_document_has_its_own_series():
    volume, headers = source(n=3)
    references = [one.reference for one in build_results(volume, headers, findings(volume), context())]
    assert len({reference.SOPInstanceUID for reference in references}) == len(references) == 13
    assert len({reference.SeriesInstanceUID for reference in references}) == len(SERIES_NUMBERS)
    assert {reference.StudyInstanceUID for reference in references} == {SERIES.StudyInstanceUID}
    assert SERIES.SeriesInstanceUID not in {reference.SeriesInstanceUID for reference in references}


def test_report_other_weights_generation_or_detector_give_other_uids():
    other_weights = ModelIdentity("ct-head-aeu", "1.2.0", "0" * 64, "CC-BY-4.0")
    contexts = [context(), context(model=other_weights), context(generation=2), context(detector="other")]
    uids = [ResultUIDs.of(SERIES, one) for one in contexts]
    for name in ("series", "instance", "tracking"):
        assert len({getattr(one, name)("sr") for one in uids}) == len(contexts)


def test_report_device_uid_changes_with_the_weights_alone():
    model = context().model
    assert device_uid(context()) == device_uid(context(generation=5))
    assert device_uid(context()) != device_uid(context(model=replace(model, sha256="0" * 64)))


def test_report_uids_obey_the_uid_root_of_the_site():
    volume, headers = source(n=1)
    built = build_results(volume, headers, no_findings(volume), context(uid_root="1.3.6.1.4.1.99999"))
    for one in built:
        assert one.reference.SOPInstanceUID.startswith("1.3.6.1.4.1.99999.")
        assert one.reference.SeriesInstanceUID.startswith("1.3.6.1.4.1.99999.")
