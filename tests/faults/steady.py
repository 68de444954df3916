"""R20: many instances over five associations leave memory, handles and threads as they were."""

from __future__ import annotations

import time
from dataclasses import dataclass

from tests.faults.load import Account, start_scanners
from tests.faults.receiver import Receiver
from tests.faults.samples import Sample, Sampler, Trend, look, trends

ASSOCIATIONS = 5
REST_S = 120.0
WARM_IMAGES = 300
"""By each association before anything counts: with the first instances caches and pools grow, as they may."""
LOOK_EVERY_S = 0.02
"""Often enough for a trend on a machine that is done within two seconds, or gives the one who looks little time."""
MORE_HANDLES, MORE_THREADS = 45, 15
"""What pools of threads and database connections may still grow by, whatever the number of instances: one thread and
one connection (three handles) for each of five associations in each of three processes."""


@dataclass(frozen=True, slots=True)
class Steadiness:
    """``before`` and ``after``: (resident bytes, handles, threads) of all processes together, with nobody connected."""

    instances: int
    seconds: float
    before: tuple[int, int, int]
    after: tuple[int, int, int]
    trends: tuple[Trend, ...]

    @property
    def slope(self) -> float:
        """Bytes of resident memory per instance over the second half, of the process that grows most."""
        return max(trend.slope for trend in self.trends)

    @property
    def constant(self) -> bool:
        """Are there as many handles and threads after as before, apart from pools that were not full?"""
        return constant(self.before, self.after)

    @property
    def most_handles(self) -> int:
        """The most handles over the second half, all processes together."""
        return sum(trend.handles[1] for trend in self.trends)


def constant(before: tuple[int, int, int], after: tuple[int, int, int]) -> bool:
    """Did handles and threads stay what they were, apart from what pools may grow by?"""
    return after[1] <= before[1] + MORE_HANDLES and after[2] <= before[2] + MORE_THREADS


def many_instances(receiver: Receiver, instances: int, *, side: int = 96, limit_s: float = 3600.0) -> Steadiness:
    """Send ``instances`` over five associations, all open at once, to a running ``receiver`` and watch it."""
    warm = Account()
    how = {"studies": 1, "side": side}
    for scanner in start_scanners(receiver.port, ASSOCIATIONS, warm, "2.25.200", images=WARM_IMAGES, **how):
        scanner.join(limit_s)
    time.sleep(1.0)
    before = _together(look(receiver.members, 0))
    account, began = Account(), time.monotonic()
    with Sampler(receiver.members, lambda: float(len(account.acknowledged)), LOOK_EVERY_S) as sampler:
        images = instances // ASSOCIATIONS
        senders = start_scanners(receiver.port, ASSOCIATIONS, account, "2.25.201", images=images, **how)
        for scanner in senders:
            scanner.join(limit_s)
            assert not scanner.is_alive(), "a scanner hangs"
    seconds = time.monotonic() - began
    assert len(account.acknowledged) == images * ASSOCIATIONS
    assert (account.refused, account.lost) == ({}, 0)
    until = time.monotonic() + REST_S
    while time.monotonic() < until and not constant(before, _together(look(receiver.members, 0))):
        time.sleep(0.5)
    found = trends(sampler.samples)
    return Steadiness(
        len(account.acknowledged),
        seconds,
        before,
        _together(look(receiver.members, 0)),
        tuple(found),
    )


def _together(samples: list[Sample]) -> tuple[int, int, int]:
    return (
        sum(sample.rss for sample in samples),
        sum(sample.handles for sample in samples),
        sum(sample.threads for sample in samples),
    )
