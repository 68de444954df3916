"""Promises of the completeness rules that hold for all facts, not only for the examples."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from dicomnode.assemble.evidence import Evidence, Shape, weigh
from dicomnode.assemble.judge import SeriesFacts, judge
from dicomnode.config import AssembleSettings
from dicomnode.dicom.sop_classes import CT_IMAGE

SETTINGS = AssembleSettings(quiet_period_s=60, max_wait_s=900, settle_s=2)
seconds = st.floats(min_value=0, max_value=5000, allow_nan=False)
evidences = st.builds(
    Evidence,
    n_instances=st.integers(0, 50),
    declared=st.sampled_from(["", "ImagesInAcquisition reached"]),
    declared_alone=st.booleans(),
    shape=st.sampled_from(Shape),
    reason=st.just("because"),
    is_stack=st.booleans(),
)
facts = st.builds(
    SeriesFacts,
    evidence=evidences,
    generation=st.integers(1, 2000),
    last_received_at=seconds,
    association=st.sampled_from(["open", "released", "aborted", "lost"]),
    ended_at=st.none() | seconds,
    sender_busy=st.booleans(),
    moved_on=st.booleans(),
    n_associations=st.integers(0, 60),
    listening_since=st.none() | seconds,
    n_expected=st.none() | st.integers(0, 60),
    asked_at=st.none() | seconds,
)


@given(facts, seconds)
def test_a_listening_node_closes_every_series_within_max_wait(known, later):
    if known.listening_since is not None:
        silent_since = max(known.last_received_at, known.listening_since)
        assert judge(known, SETTINGS, silent_since + SETTINGS.max_wait_s + later).complete


@given(facts, seconds, seconds)
def test_time_never_makes_a_complete_series_open_again(known, now, later):
    if judge(known, SETTINGS, now).complete:
        assert judge(known, SETTINGS, now + later).complete


@given(facts, seconds)
def test_incomplete_is_said_only_after_max_wait_and_never_silently(known, now):
    verdict = judge(known, SETTINGS, now)
    assert verdict.reason
    if verdict.incomplete:
        assert verdict.complete
        assert now >= known.last_received_at + SETTINGS.max_wait_s
    if not verdict.complete:
        assert verdict.look_again_at > now


@given(facts, seconds)
def test_a_known_gap_is_never_called_complete_by_silence_or_release(known, now):
    gap = replace(known, evidence=replace(known.evidence, shape=Shape.GAP, declared=""), n_expected=None)
    verdict = judge(gap, SETTINGS, now)
    assert verdict.incomplete or not verdict.complete


@given(st.permutations(range(1, 13)), st.floats(0.5, 10), st.sets(st.integers(2, 11), max_size=3))
def test_a_stack_is_whole_in_any_order_and_any_missing_inner_slice_is_found(order, spacing, missing):
    headers = [
        {
            "Modality": ("CT",),
            "SOPClassUID": (CT_IMAGE,),
            "InstanceNumber": (number,),
            "ImagePositionPatient": (-100.0, -100.0, -spacing * number),
            "ImageOrientationPatient": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        }
        for number in order
        if number not in missing
    ]
    assert weigh(headers).shape is (Shape.GAP if missing else Shape.WHOLE)


values = st.sampled_from(["", "1", "1.5", "x"]) | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
keywords = st.sampled_from(
    [
        "InstanceNumber",
        "AcquisitionNumber",
        "ImagesInAcquisition",
        "NumberOfSlices",
        "NumberOfFrames",
        "NumberOfTemporalPositions",
        "TemporalPositionIdentifier",
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "SliceThickness",
    ]
)


@given(st.lists(st.dictionaries(keywords, st.lists(values, min_size=1, max_size=6).map(tuple)), max_size=6))
def test_strange_header_values_never_raise(headers):
    stack = [{**header, "Modality": ("CT",), "SOPClassUID": (CT_IMAGE,)} for header in headers]
    assert weigh(headers).n_instances == weigh(stack).n_instances == len(headers)
