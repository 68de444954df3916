"""The rules of completeness: each holds by itself, and each gives way to the stronger one."""

from dataclasses import replace

import pytest

from dicomnode.assemble.evidence import Evidence, Shape
from dicomnode.assemble.judge import SeriesFacts, judge
from dicomnode.config import AssembleSettings

SETTINGS = AssembleSettings(quiet_period_s=60, max_wait_s=900, settle_s=2)
LAST = 1000.0
WHOLE = Evidence(20, shape=Shape.WHOLE, reason="InstanceNumber 1 to 20 without gap", is_stack=True)
GAP = Evidence(19, shape=Shape.GAP, reason="InstanceNumber 7 missing", is_stack=True)
UNKNOWN = Evidence(20, shape=Shape.UNKNOWN, reason="InstanceNumber is absent or repeated", is_stack=True)
RELEASED = SeriesFacts(
    evidence=WHOLE,
    generation=1,
    last_received_at=LAST,
    association="released",
    ended_at=LAST + 0.5,
    sender_busy=False,
    moved_on=False,
    n_associations=1,
    listening_since=0.0,
)


def decided(facts, after):
    """Verdict so many seconds after the last Instance."""
    return judge(facts, SETTINGS, LAST + after)


def completes_at(facts, *, until=2000):
    """The first whole second after the last Instance at which the Series is complete."""
    return next(after for after in range(until) if decided(facts, after).complete)


def test_a_whole_series_is_complete_seconds_after_the_release():
    assert completes_at(RELEASED) == 3
    verdict = decided(RELEASED, 3)
    assert (verdict.incomplete, "released" in verdict.reason) == (False, True)


def test_settling_starts_at_the_end_of_the_association():
    assert not decided(replace(RELEASED, ended_at=LAST + 30), 31).complete
    assert decided(replace(RELEASED, ended_at=LAST + 30), 32).complete


def test_an_open_association_is_no_evidence_and_silence_decides():
    facts = replace(RELEASED, association="open", ended_at=None)
    assert completes_at(facts) == 60
    assert decided(facts, 60).reason == "silence for 60 s"


def test_another_open_association_of_the_sender_holds_the_evidence_back():
    assert completes_at(replace(RELEASED, sender_busy=True)) == 60


def test_an_aborted_association_leaves_it_to_silence():
    assert completes_at(replace(RELEASED, association="aborted")) == 60


def test_no_numbers_leaves_it_to_silence():
    assert completes_at(replace(RELEASED, evidence=UNKNOWN)) == 60


def test_a_gap_waits_for_the_missing_slice_and_is_then_closed_as_incomplete():
    facts = replace(RELEASED, evidence=GAP)
    assert completes_at(facts) == 900
    verdict = decided(facts, 900)
    assert verdict.incomplete
    assert verdict.reason == "closed after 900 s: InstanceNumber 7 missing"


def test_a_lost_association_waits_for_the_sender_to_send_again():
    facts = replace(RELEASED, association="lost")
    assert completes_at(facts) == 900
    assert decided(facts, 900).incomplete


def test_the_senders_count_completes_at_once():
    facts = replace(RELEASED, evidence=UNKNOWN, n_expected=20, asked_at=LAST + 1)
    assert decided(facts, 1).complete
    assert "C-FIND" in decided(facts, 1).reason


def test_more_than_the_sender_counts_is_complete_too():
    assert decided(replace(RELEASED, n_expected=18, asked_at=LAST + 1), 1).complete


def test_a_count_asked_before_the_last_instance_came_is_no_evidence():
    facts = replace(RELEASED, evidence=UNKNOWN, n_expected=20, asked_at=LAST - 1)
    assert completes_at(facts) == 60


def test_a_larger_count_overrules_silence_and_numbers_without_gap():
    facts = replace(RELEASED, n_expected=25, asked_at=LAST + 1)
    assert completes_at(facts) == 900
    assert decided(facts, 900).incomplete
    assert "20 of 25" in decided(facts, 900).reason


def test_a_count_is_not_believed_while_the_same_association_may_bring_more():
    facts = replace(RELEASED, evidence=UNKNOWN, association="open", ended_at=None, n_expected=20, asked_at=LAST + 1)
    assert completes_at(facts) == 60
    assert decided(replace(facts, moved_on=True), 1).complete


def test_a_count_overrules_a_gap():
    assert decided(replace(RELEASED, evidence=GAP, n_expected=19, asked_at=LAST + 1), 1).complete


def test_a_count_in_the_headers_needs_only_the_settling_time():
    declared = replace(UNKNOWN, declared="ImagesInAcquisition reached (20)", declared_alone=True)
    assert completes_at(replace(RELEASED, evidence=declared, association="open", ended_at=None)) == 2


def test_counts_that_depend_on_more_to_come_wait_for_the_release():
    declared = replace(UNKNOWN, declared="NumberOfSlices reached (20)")
    assert completes_at(replace(RELEASED, evidence=declared, association="open", ended_at=None)) == 60
    assert completes_at(replace(RELEASED, evidence=declared)) == 2


def test_slices_that_come_one_association_each_are_left_to_silence():
    assert completes_at(replace(RELEASED, n_associations=20)) == 60
    assert completes_at(replace(RELEASED, n_associations=2)) == 3


def test_silence_counts_only_while_the_node_listens():
    facts = replace(RELEASED, evidence=UNKNOWN, listening_since=LAST + 500)
    assert completes_at(facts) == 560
    stopped = decided(replace(facts, listening_since=None), 10_000)
    assert (stopped.complete, stopped.reason) == (False, "nothing listens")


def test_patience_doubles_with_each_generation_up_to_the_quiet_period():
    assert completes_at(replace(RELEASED, generation=2)) == 5
    assert completes_at(replace(RELEASED, generation=3)) == 9
    assert completes_at(replace(RELEASED, generation=40)) == 60


def test_a_series_of_conflicts_only_ends_too():
    nothing = Evidence(0, reason="no Instance that can be analysed")
    assert completes_at(replace(RELEASED, evidence=nothing)) == 60


@pytest.mark.parametrize("evidence", [WHOLE, GAP, UNKNOWN])
@pytest.mark.parametrize("association", ["open", "released", "aborted", "lost"])
def test_nothing_changes_before_the_verdict_says_to_look_again(evidence, association):
    facts = replace(RELEASED, evidence=evidence, association=association)
    after = 0.0
    while not (verdict := decided(facts, after)).complete:
        due = verdict.look_again_at - LAST
        assert due > after
        assert not decided(facts, (after + due) / 2).complete
        after = due
