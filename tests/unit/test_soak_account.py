"""The soak and the chaos can fail: growth, leaks and broken promises are told."""

from __future__ import annotations

from tests.chaos.__main__ import Line
from tests.chaos.__main__ import section as chaos_section
from tests.faults.samples import Sample, trends
from tests.faults.steady import constant
from tests.soak.account import MIB, Soak, faults_of_trends, section

MINUTE = 60.0


def life(*, growth: float = 0.0, handles: int = 0, threads: int = 0) -> list[Sample]:
    """Twenty minutes of one process that grows by so much (bytes, count) a minute."""
    return [
        Sample("detect", 7, second, int(100 * MIB + growth * m), int(20 + handles * m), int(5 + threads * m))
        for second in range(0, 1200, 10)
        for m in [second / MINUTE]
    ]


def test_a_flat_process_is_no_fault() -> None:
    """R20: memory that stays, handles and threads that stay."""
    [trend] = trends(life())
    assert abs(trend.slope) < 1
    assert (trend.handles, trend.threads) == ((20, 20), (5, 5))
    assert faults_of_trends((trend,)) == []


def test_growth_of_memory_handles_or_threads_is_a_fault() -> None:
    """R20: each kind of leak is found and named."""
    for leak, word in (({"growth": 2 * MIB}, "memory"), ({"handles": 10}, "handles"), ({"threads": 10}, "threads")):
        [trend] = trends(life(**leak))
        [fault] = faults_of_trends((trend,))
        assert word in fault


def test_only_the_second_half_of_a_life_counts() -> None:
    """R20: what a process needs to warm up is no leak."""
    samples = [s if s.progress >= 500 else Sample(s.name, s.pid, s.progress, 10 * MIB, 5, 1) for s in life()]
    assert faults_of_trends(tuple(trends(samples))) == []
    assert trends(samples[:5]) == []


def test_a_leak_of_handles_is_not_constant() -> None:
    """R20: pools may fill up, one handle for every hundredth instance may not."""
    assert constant((0, 60, 20), (0, 80, 30))
    assert not constant((0, 60, 20), (0, 60 + 10_000 // 100, 20))
    assert not constant((0, 60, 20), (0, 60, 20 + 10_000 // 100))


def test_a_broken_promise_is_told_in_the_document() -> None:
    """R9: the sections of docs/reliability.md say what was broken."""
    whole = Soak(60.0, 1.0, 2, 10, {"A700": 1}, 0, {"disk full": 1}, 10, {"done": 10}, 20, 0, tuple(trends(life())), ())
    assert "Every promise was kept." in section(whole, "Soak", "here")
    assert "1 × A700" in section(whole, "Soak", "here")
    broken = Soak(60.0, 1.0, 2, 10, {}, 0, {}, 10, {"done": 10}, 20, 0, (), ("torn files",))
    assert "BROKEN: torn files." in section(broken, "Soak", "here")
    assert "BROKEN" in chaos_section([Line("R2", "kills", "1 missing", good=False)], "here", 60.0)
