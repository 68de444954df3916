"""What a soak found, and the section of docs/reliability.md that tells it."""

from __future__ import annotations

from dataclasses import dataclass

from tests.docs_conformance.markdown import table
from tests.faults.samples import Trend

MIB = 2**20
FLAT_BYTES_PER_MINUTE = 0.5 * MIB
FLAT_COUNT = 40
"""Handles or threads between least and most while scanners come and go: one association needs a few of both."""


@dataclass(frozen=True, slots=True)
class Soak:
    """``outcomes``: accepted instances by their end. ``trends``: progress in seconds. ``faults``: broken promises."""

    seconds: float
    settle_seconds: float
    scanners: int
    acknowledged: int
    refused: dict[str, int]
    connections_lost: int
    troubles: dict[str, int]
    accepted: int
    outcomes: dict[str, int]
    delivered: int
    dead_letters: int
    trends: tuple[Trend, ...]
    faults: tuple[str, ...]


def faults_of_trends(trends: tuple[Trend, ...]) -> list[str]:
    """Every process whose memory, handles or threads were not flat."""
    found = []
    for trend in trends:
        if trend.slope * 60 > FLAT_BYTES_PER_MINUTE:
            found.append(f"{trend.name}: memory grows by {trend.slope * 60 / MIB:.2f} MiB a minute")
        for what, (least, most) in (("handles", trend.handles), ("threads", trend.threads)):
            if most - least > FLAT_COUNT:
                found.append(f"{trend.name}: {least} to {most} {what}")
    return found


def section(result: Soak, title: str, where: str) -> str:
    """The section of the document."""
    rows = [
        ("scanners", result.scanners),
        ("instances acknowledged", result.acknowledged),
        (
            "refused, to be sent again",
            ", ".join(f"{count} × {status}" for status, count in result.refused.items()) or 0,
        ),
        ("connections lost", result.connections_lost),
        ("instances accepted, bad data sets among them", result.accepted),
        ("their ends", ", ".join(f"{count} {end}" for end, count in sorted(result.outcomes.items()))),
        ("objects delivered to the archive", result.delivered),
        ("dead letters", result.dead_letters),
        ("time to settle after the last instance", f"{result.settle_seconds:.0f} s"),
    ]
    troubles = ", ".join(f"{count} × {name}" for name, count in sorted(result.troubles.items()))
    processes = [
        (
            trend.name,
            f"{trend.first_rss / MIB:.0f}",
            f"{trend.last_rss / MIB:.0f}",
            f"{trend.slope * 60 / 1024:+.0f}",
            "{} to {}".format(*trend.handles),
            "{} to {}".format(*trend.threads),
        )
        for trend in result.trends
    ]
    verdict = "Every promise was kept." if not result.faults else f"BROKEN: {'; '.join(result.faults)}."
    return "\n\n".join(
        (
            f"## {title}",
            (
                f"Written by `make soak` (`python -m tests.soak`). {where}; {result.seconds / 60:.0f} min of sending. "
                "Processes were killed in the first half only, so that the others' trends can be seen."
            ),
            table(("", ""), rows),
            f"Faults: {troubles}.",
            (
                "Memory in MiB at the first and last look; slope in KiB a minute, handles and threads over the second "
                "half of a life. Only processes that lived for the second half are shown."
            ),
            table(("process", "first", "last", "slope", "handles", "threads"), processes),
            verdict,
        )
    )
