"""What a commit job does next, and when it gives up."""

from __future__ import annotations

from dicomnode.deliver.commit_ledger import answer_within
from dicomnode.deliver.commit_plan import Held, is_hopeless, make_plan


def held(uid: str, state: str = "delivered", *, committed: bool = False) -> Held:
    return Held(uid, "1.2", state, committed)


def test_everything_that_is_there_and_not_committed_is_asked_about() -> None:
    items = [held("1"), held("2", "warning"), held("3", committed=True), held("4", "failed"), held("5", "replaced")]
    plan = make_plan(items, {})
    assert [item.SOPInstanceUID for item in plan.ask] == ["1", "2"]
    assert plan.on_the_way == 0
    assert not plan.given_up


def test_nothing_is_asked_while_something_is_on_the_way() -> None:
    plan = make_plan([held("1"), held("2", "waiting")], {})
    assert plan.ask == ()
    assert plan.on_the_way == 1


def test_an_instance_is_given_up_after_three_failures_in_a_row_or_a_lasting_one() -> None:
    assert not is_hopeless([])
    assert not is_hopeless([0x0112, 0x0112])
    assert is_hopeless([0x0112, 0x0112, 0x0110])
    assert is_hopeless([None, None, None])
    assert not is_hopeless([0x0112, 0x0112, 0, 0x0112])
    assert is_hopeless([0x0122])
    assert not is_hopeless([0x0112, 0x0112, 0x0112, 0])
    plan = make_plan([held("1"), held("2")], {"1": [0x0119], "2": [0x0112]})
    assert plan.given_up == {"1": 0x0119}
    assert [item.SOPInstanceUID for item in plan.ask] == ["2"]


def test_patience_grows_with_silence_up_to_a_day() -> None:
    assert [answer_within(n) for n in (0, 1, 2)] == [600.0, 1200.0, 2400.0]
    assert answer_within(50) == 86_400.0
