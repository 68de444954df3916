"""The account by category: how many files were stored, refused, and how their Series ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tests.docs_conformance.markdown import table
from tests.robustness.run import CONFLICT, NOT_NEGOTIATED, PENDING, Fate

OUTCOMES = ("findings", "no findings", "not analysed", "failed", CONFLICT, PENDING)
WEIGHT = (PENDING, "failed", "findings", "no findings", "not analysed", CONFLICT)
"""A Series goes to several detectors; the first of these that one of them came to stands for it."""
COLUMNS = ("category", "files", "own meta", "stored", "refused", *OUTCOMES, "slowest C-STORE", "slowest analysis")


def by_category(fates: Sequence[Fate]) -> str:
    """A Markdown table with a row for each category and one for all."""
    categories = sorted({fate.sample.category for fate in fates})
    rows = [_row(name, [fate for fate in fates if fate.sample.category == name]) for name in categories]
    return table(COLUMNS, [*rows, _row("**all**", list(fates))])


def _row(name: str, fates: list[Fate]) -> tuple[str, ...]:
    refused = Counter(answer for fate in fates if not fate.stored for answer in _last(fate))
    outcomes = Counter(next(one for one in WEIGHT if one in fate.outcomes) for fate in fates if fate.outcomes)
    return (
        name,
        str(len(fates)),
        str(sum(fate.sendable for fate in fates)),
        str(sum(bool(fate.stored) for fate in fates)),
        ", ".join(f"{count} × {answer}" for answer, count in refused.most_common()),
        *(str(outcomes[outcome] or "") for outcome in OUTCOMES),
        f"{max((fate.seconds for fate in fates), default=0):.2f} s",
        f"{max((fate.analysis_s for fate in fates), default=0):.1f} s",
    )


def _last(fate: Fate) -> list[str]:
    """The answer that counts: that to the file as it names itself, unless that was not negotiated."""
    return [next((answer for answer in fate.answers if answer != NOT_NEGOTIATED), NOT_NEGOTIATED)]
