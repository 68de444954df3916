"""S5: alerts about strangers are bounded, and none is lost from the count."""

from __future__ import annotations

import time

import pytest

from dicomnode.receive.restraint import Restraint


def test_s5_a_flood_leaves_a_bounded_number_of_alerts_and_the_count_of_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """S5: what is held back is told with the next alert that goes through."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    restraint = Restraint(3)
    assert [restraint.ask() for _ in range(10)] == [0, 0, 0, *[None] * 7]
    now[0] += 61.0
    assert [restraint.ask(), restraint.ask()] == [7, 0]
