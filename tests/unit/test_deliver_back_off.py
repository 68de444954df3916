"""Back-off, and the lanes that keep a dead Destination from costing more than one attempt at a time."""

from __future__ import annotations

import pytest

from dicomnode.deliver.back_off import BackOff, Lanes


@pytest.mark.parametrize(("failures", "most"), [(1, 2.0), (2, 4.0), (3, 8.0), (8, 256.0), (9, 300.0), (5000, 300.0)])
def test_the_longest_delay_doubles_up_to_the_cap(failures: int, most: float) -> None:
    back_off = BackOff()
    assert back_off.delay(failures, 0.0) == 0.0
    assert back_off.delay(failures, 0.5) == most / 2
    assert back_off.delay(failures, 0.999999) == pytest.approx(most, rel=1e-5)


def test_a_busy_lane_is_closed_until_its_job_ends() -> None:
    lanes = Lanes(BackOff())
    lanes.enter("pacs")
    assert lanes.closed(0.0) == {"pacs"}
    lanes.leave("pacs")
    assert lanes.closed(0.0) == frozenset()


def test_a_failed_lane_is_held_longer_each_time_and_freed_by_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.random", lambda: 1.0)
    lanes = Lanes(BackOff(base_s=2.0, cap_s=5.0))
    for hold in (2.0, 4.0, 5.0, 5.0):
        lanes.failed("pacs", 100.0)
        assert lanes.closed(100.0 + hold - 0.1) == {"pacs"}
        assert lanes.closed(100.0 + hold) == frozenset()
    lanes.failed("pacs", 100.0)
    lanes.reached("pacs")
    assert lanes.closed(100.0) == frozenset()
    lanes.failed("pacs", 100.0)
    assert lanes.closed(102.0) == frozenset(), "an answer resets the count"


def test_a_clock_that_is_set_back_does_not_keep_a_lane_closed() -> None:
    lanes = Lanes(BackOff())
    lanes.failed("pacs", 1_000_000.0, at_least_s=60.0)
    assert lanes.closed(1_000_000.0) == {"pacs"}
    assert lanes.closed(500.0) == frozenset()
