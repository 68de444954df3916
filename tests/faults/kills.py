"""R2: the receiving node is killed again and again while scanners send."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from tests.faults.load import Account, start_scanners, stop_scanners
from tests.faults.receiver import READY_S, Receiver, chain_is_whole, leftovers, stored, torn_files, wait_until

LIMITS = "min_free_bytes = 1000000\njournal_mb = 2"
"""A small journal, so that a start is quick and its segments are used again between kills."""


@dataclass(frozen=True, slots=True)
class KillRounds:
    """What ``rounds`` kills did. ``missing``: acknowledged and not stored with equal bytes; all lists want to be empty.

    ``left_behind``: unfinished files that the kills left, all together; ``left``: those after a start.
    """

    rounds: int
    acknowledged: int
    connections_lost: int
    left_behind: int
    missing: tuple[str, ...]
    torn: tuple[str, ...]
    left: tuple[str, ...]
    chain_whole: bool

    @property
    def good(self) -> bool:
        """Was every promise kept?"""
        return not self.missing and not self.torn and not self.left and self.chain_whole


def kill_rounds(receiver: Receiver, rounds: int, seed: int, *, scanners: int = 4) -> KillRounds:
    """Kill ``receiver`` (not started yet) ``rounds`` times, each at a random moment; look at it after every start."""
    moments, account = random.Random(seed), Account()
    behind, left = 0, []
    receiver.start()
    senders = start_scanners(receiver.port, scanners, account, images=30)
    try:
        for _ in range(rounds):
            time.sleep(moments.uniform(0.0, 1.5))
            receiver.kill()
            unfinished = leftovers(receiver.data)
            behind += len(unfinished)
            receiver.start()
            still = leftovers(receiver.data)
            left += [name for name in unfinished if name in still]
        wait_until(lambda: account.acknowledged, READY_S, "an image that was acknowledged between two kills")
        stop_scanners(senders)
        receiver.kill()
        receiver.start()
        receiver.kill()
        torn, left = torn_files(receiver.data), left + leftovers(receiver.data)
    finally:
        for sender in senders:
            sender.stopped.set()
        receiver.close()
    held = stored(receiver.data)
    missing = tuple(uid for uid, sha256 in account.acknowledged.items() if held.get(uid) != sha256)
    whole = chain_is_whole(receiver.database)
    return KillRounds(rounds, len(account.acknowledged), account.lost, behind, missing, tuple(torn), tuple(left), whole)
