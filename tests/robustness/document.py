"""The section "Result" of docs/robustness-corpus.md, from one run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.bench.machine import Machine
from tests.robustness.run import Fate, Health
from tests.robustness.table import by_category

DOCUMENT = Path(__file__).parents[2] / "docs" / "robustness-corpus.md"
TITLE = "Result"


def said(health: Health) -> str:
    """The node before and after, and every promise that did not hold."""
    was, now = health.before, health.after
    return (
        f"Processes {len(was.pids)} → {len(now.pids)}, memory {was.memory / 2**20:.0f} → {now.memory / 2**20:.0f} "
        f"MiB, descriptors {was.descriptors} → {now.descriptors}, threads {was.threads} → {now.threads}; an honest "
        f"peer in between: {health.honest_rounds} associations, the slowest {health.honest_s:.2f} s.\n\n"
        + ("All promises held." if not health.faults else "**Not as promised:** " + "; ".join(health.faults) + ".")
    )


def result(fates: Sequence[Fate], health: Health, machine: Machine) -> str:
    """The whole section, as Markdown."""
    on = (
        f"Written by `make robustness`. {machine.date}; {machine.cpu}, {machine.cores} cores, {machine.system}; load "
        f"average {machine.load:.1f} at the start; dicomnode {machine.versions['dicomnode']}."
    )
    return f"## {TITLE}\n\n{on}\n\n{by_category(fates)}\n\n{said(health)}\n"
