"""The rules of completeness, pure: evidence first, silence last, ``max_wait_s`` in any case.

1. The sender counts (C-FIND, asked after the last Instance came): as many or more are here.
2. A count in the headers is reached.
3. The Association was released, its sender is done with the Study, and numbers and positions show no gap.
4. Otherwise ``quiet_period_s`` of silence, unless a gap is seen, the sender counts more, or the node died in between.
5. ``max_wait_s`` after the last Instance the Series is closed, marked incomplete.

Silence counts only while the node listens. ``settle_s`` doubles with each generation: a Series that was closed too
early by evidence is looked at with more patience the next time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dicomnode.assemble.evidence import Evidence, Shape
from dicomnode.config import AssembleSettings

AssociationEnd = Literal["open", "released", "aborted", "lost"]
LOOK_AGAIN_S = 1.0


@dataclass(frozen=True, slots=True)
class SeriesFacts:
    """Everything that ``judge`` knows; times in seconds since the epoch.

    ``association``: how the last Association that brought Instances of the Series ended, at ``ended_at``.
    ``sender_busy``: the sender has another Association open that may belong to this Study. ``moved_on``: over the
    same Association another Series came after this one. ``n_associations``: how many brought Instances of it.
    ``listening_since``: None while nothing listens. ``n_expected``: the sender's own count, asked at ``asked_at``.
    """

    evidence: Evidence
    generation: int
    last_received_at: float
    association: AssociationEnd
    ended_at: float | None
    sender_busy: bool
    moved_on: bool
    n_associations: int
    listening_since: float | None
    n_expected: int | None = None
    asked_at: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """``look_again_at``: when time alone may change the verdict (seconds since the epoch)."""

    complete: bool
    incomplete: bool
    reason: str
    look_again_at: float


def judge(facts: SeriesFacts, settings: AssembleSettings, now: float) -> Verdict:
    """Decide whether the Series is complete at ``now``, by the rules above."""
    settle = min(settings.settle_s * 2.0 ** min(facts.generation - 1, 30), settings.quiet_period_s)
    reason = _by_count(facts) or _by_headers(facts, settle, now) or _by_release(facts, settle, now)
    if reason:
        return Verdict(complete=True, incomplete=False, reason=reason, look_again_at=now)
    return _by_time(facts, settings, settle, now)


def fresh_count(facts: SeriesFacts) -> int | None:
    """The sender's count, when it was asked after the last Instance came."""
    if facts.n_expected is None or facts.asked_at is None or facts.asked_at < facts.last_received_at:
        return None
    return facts.n_expected


def _by_count(facts: SeriesFacts) -> str:
    """While the Association is open, a sender may know no more than what it has sent: it has to have moved on."""
    expected, received = fresh_count(facts), facts.evidence.n_instances
    still_sending = facts.association == "open" and not facts.moved_on
    if expected is None or received < max(expected, 1) or still_sending:
        return ""
    return f"the sender counts {expected} (C-FIND)"


def _sender_counts_more(facts: SeriesFacts) -> bool:
    expected = fresh_count(facts)
    return expected is not None and facts.evidence.n_instances < expected


def _by_headers(facts: SeriesFacts, settle: float, now: float) -> str:
    evidence = facts.evidence
    done = evidence.declared_alone or _done_sending(facts)
    settled = now >= facts.last_received_at + settle
    return evidence.declared if done and settled and not _sender_counts_more(facts) else ""


def _done_sending(facts: SeriesFacts) -> bool:
    return facts.association == "released" and not facts.sender_busy


def _by_release(facts: SeriesFacts, settle: float, now: float) -> str:
    evidence = facts.evidence
    if not _done_sending(facts) or evidence.shape is not Shape.WHOLE or _sender_counts_more(facts):
        return ""
    if _one_by_one(facts) or now < max(facts.last_received_at, facts.ended_at or 0.0) + settle:
        return ""
    return f"association released, {evidence.reason}"


def _one_by_one(facts: SeriesFacts) -> bool:
    """Some scanners send each slice over an Association of its own: then a release says nothing."""
    n_associations, n_instances = facts.n_associations, facts.evidence.n_instances
    return facts.evidence.is_stack and n_associations > 1 and 4 * n_instances <= 5 * n_associations


def _by_time(facts: SeriesFacts, settings: AssembleSettings, settle: float, now: float) -> Verdict:
    if facts.listening_since is None:
        return Verdict(complete=False, incomplete=False, reason="nothing listens", look_again_at=now + LOOK_AGAIN_S)
    silent_since = max(facts.last_received_at, facts.listening_since)
    obstacle = _obstacle(facts)
    closes_at = silent_since + (settings.max_wait_s if obstacle else settings.quiet_period_s)
    if now < closes_at:
        due = min((at for at in (_settled_at(facts, settle), closes_at) if at > now), default=closes_at)
        return Verdict(complete=False, incomplete=False, reason=obstacle or "waiting for silence", look_again_at=due)
    if obstacle:
        reason = f"closed after {settings.max_wait_s:g} s: {obstacle}"
        return Verdict(complete=True, incomplete=True, reason=reason, look_again_at=now)
    reason = f"silence for {settings.quiet_period_s:g} s"
    return Verdict(complete=True, incomplete=False, reason=reason, look_again_at=now)


def _settled_at(facts: SeriesFacts, settle: float) -> float:
    return max(facts.last_received_at, facts.ended_at or 0.0) + settle


def _obstacle(facts: SeriesFacts) -> str:
    """Why silence alone does not make the Series complete; empty when it does."""
    if _sender_counts_more(facts):
        return f"{facts.evidence.n_instances} of {facts.n_expected} that the sender counts"
    if facts.evidence.shape is Shape.GAP:
        return facts.evidence.reason
    if facts.association == "lost":
        return "the node stopped in the middle of the association and nothing was sent again"
    return ""
