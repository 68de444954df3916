"""The soak itself."""

from __future__ import annotations

import errno
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from tests.faults.archive import Archive
from tests.faults.breaker import Breaker
from tests.faults.load import Account, start_scanners, stop_scanners
from tests.faults.outcomes import WAITING, outcomes, without_outcome
from tests.faults.receiver import chain_is_whole, leftovers, stored, torn_files
from tests.faults.samples import Sampler, Trend, trends
from tests.faults.trouble import Trouble
from tests.faults.whole import WholeNode
from tests.soak.account import Soak, faults_of_trends

BACKLOG = 30
SETTLE_S = 1200.0
TROUBLE_EVERY_S = (8.0, 25.0)
KILLS = "killed"
POISON = "series that kills its worker"


def soak(work: Path, seconds: float, scanners: int, seed: int, say: Callable[[str], None]) -> Soak:
    """Run a node for ``seconds`` under ``scanners`` and faults, let it settle, and look at all that it holds."""
    archive, breaker = Archive(), Breaker(work)
    archive.start()
    node = WholeNode(work / "node", archive, environment=breaker.environment)
    account, gate = Account(), threading.Event()
    gate.set()
    try:
        node.start()
        trouble = Trouble(node, archive, account, seed)
        _add_disk_faults(trouble, node, breaker, random.Random(seed))
        began = time.monotonic()
        with Sampler(node.members, lambda: time.monotonic() - began, every_s=2.0) as sampler:
            senders = start_scanners(node.port, scanners, account, "2.25.300", images=5, side=64, gate=gate)
            _stir(trouble, node, gate, began, seconds, seed, say)
            gate.clear()
            stop_scanners(senders)
            sent = time.monotonic()
            settled = _settle(node, say)
        seen = _named(node, trends(sampler.samples), seconds)
        return _account(node, archive, account, trouble, seen, sent - began, settled, scanners)
    finally:
        node.close()
        archive.stop()


def _add_disk_faults(trouble: Trouble, node: WholeNode, breaker: Breaker, chance: random.Random) -> None:
    def fail(number: int, below: Path) -> None:
        breaker.fail(number, below)
        time.sleep(chance.uniform(0.5, 3.0))
        breaker.mend()

    trouble.causes["disk full"] = lambda: fail(errno.ENOSPC, node.data / "spool" / "incoming")
    trouble.causes["spool with I/O errors"] = lambda: fail(errno.EIO, node.data / "spool" / "received")


def _stir(
    trouble: Trouble,
    node: WholeNode,
    gate: threading.Event,
    began: float,
    seconds: float,
    seed: int,
    say: Callable[[str], None],
) -> None:
    """Cause trouble until the time is over; scanners wait while too much waits in the node."""
    chance, next_trouble = random.Random(seed + 1), began + TROUBLE_EVERY_S[0]
    harmless = sorted(name for name in trouble.causes if KILLS not in name and name != POISON)
    while (now := time.monotonic()) < began + seconds:
        with suppress(Exception):
            gate.set() if _backlog(node) < BACKLOG else gate.clear()
        if now >= next_trouble:
            names = sorted(trouble.causes) if now < began + seconds / 2 else harmless
            name = trouble.cause(chance.choice(names))
            say(f"{now - began:6.0f} s: {name}")
            next_trouble = time.monotonic() + chance.uniform(*TROUBLE_EVERY_S)
        time.sleep(0.5)


def _backlog(node: WholeNode) -> int:
    [(count,)] = node.rows("SELECT count(*) FROM job WHERE state IN ('ready', 'leased')")
    return int(count)


def _settle(node: WholeNode, say: Callable[[str], None]) -> float:
    """Seconds until nothing waits any more; SETTLE_S when something still does."""
    began = time.monotonic()
    while time.monotonic() < began + SETTLE_S:
        if outcomes(node.database)[WAITING] == 0:
            return time.monotonic() - began
        time.sleep(1.0)
    say(f"still waiting: {outcomes(node.database)}")
    return SETTLE_S


def _named(node: WholeNode, found: list[Trend], seconds: float) -> tuple[Trend, ...]:
    """The Trends of the processes that lived long enough, under the names of their duties."""
    owners = {pid: owner.partition("-")[0] for owner, pid in node.rows("SELECT owner, pid FROM process")}
    alive = {process.pid for process in node.members()}
    return tuple(
        replace(trend, name=owners.get(trend.pid, trend.name))
        for trend in found
        if trend.pid in alive and trend.samples * 2.0 > seconds * 0.25
    )


def _account(
    node: WholeNode,
    archive: Archive,
    account: Account,
    trouble: Trouble,
    seen: tuple[Trend, ...],
    seconds: float,
    settled: float,
    scanners: int,
) -> Soak:
    found, held = outcomes(node.database), stored(node.data)
    accepted = int(node.rows("SELECT count(*) FROM instance")[0][0])
    faults = [f"{count} instances: {reason}" for reason, count in without_outcome(found).items()]
    missing = [uid for uid, sha256 in account.acknowledged.items() if held.get(uid) != sha256]
    doubts = {
        f"{len(missing)} acknowledged instances are missing": bool(missing),
        f"{found[WAITING]} instances still wait": bool(found[WAITING]),
        f"{accepted} instances and {sum(found.values())} ends": accepted != sum(found.values()),
        "torn files": bool(torn_files(node.data)),
        "unfinished files": bool(leftovers(node.data)),
        "the audit log does not verify": not chain_is_whole(node.database),
        "no process was seen long enough": not seen,
    }
    faults += [words for words, true in doubts.items() if true] + faults_of_trends(seen)
    return Soak(
        seconds,
        settled,
        scanners,
        len(account.acknowledged),
        {f"{status:04X}": count for status, count in sorted(account.refused.items())},
        account.lost,
        dict(trouble.caused),
        accepted,
        dict(found),
        len(archive.received),
        int(node.rows("SELECT count(*) FROM job WHERE state = 'dead'")[0][0]),
        seen,
        tuple(faults),
    )
