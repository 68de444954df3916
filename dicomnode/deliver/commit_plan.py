"""What a ``commit`` job does next. Pure: from what the Destination holds and what it has answered so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dicomnode.deliver.outbox import THERE
from dicomnode.dicom.commitment import COMMITTED, Remedy, remedy

MAX_ROUNDS = 3
"""So often in a row an Instance may fail before it is given up."""

Answers = Mapping[str, Sequence[int | None]]
"""SOP Instance UID to its answers, oldest first; None: the report did not mention it."""


@dataclass(frozen=True, slots=True)
class Held:
    """One Derived Instance at the Destination. ``state``: of its delivery."""

    SOPInstanceUID: str
    SOPClassUID: str
    state: str
    committed: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """``ask``: what to ask about now. ``on_the_way``: how many are sent (again) first. ``given_up``: UID to reason."""

    ask: tuple[Held, ...]
    on_the_way: int
    given_up: Mapping[str, int | None]


def make_plan(instances: Sequence[Held], answers: Answers) -> Plan:
    """Ask about everything that is there, not committed and not given up, once nothing is on the way any more."""
    there = [item for item in instances if item.state in THERE and not item.committed]
    given_up = {
        item.SOPInstanceUID: answers[item.SOPInstanceUID][-1]
        for item in there
        if is_hopeless(answers.get(item.SOPInstanceUID, ()))
    }
    on_the_way = sum(item.state == "waiting" for item in instances)
    ask = () if on_the_way else tuple(item for item in there if item.SOPInstanceUID not in given_up)
    return Plan(ask, on_the_way, given_up)


def is_hopeless(answers: Sequence[int | None]) -> bool:
    """No re-send and no further question helps: the last reason is lasting, or it failed MAX_ROUNDS times in a row."""
    if not answers or answers[-1] == COMMITTED:
        return False
    failures = next((n for n, reason in enumerate(reversed(answers)) if reason == COMMITTED), len(answers))
    return failures >= MAX_ROUNDS or remedy(answers[-1]) is Remedy.NONE
