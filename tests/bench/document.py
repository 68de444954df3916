"""docs/benchmarks.md, written from one run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from dicomnode.config.model import AssembleSettings
from tests.bench.database import BATCH, Database, Times
from tests.bench.loop import Loop
from tests.bench.machine import Machine
from tests.docs_conformance.markdown import table

DOCUMENT = Path(__file__).parents[2] / "docs" / "benchmarks.md"

_HEAD = """# Benchmarks

Research software, not a medical device. Written by `make bench` (`python -m tests.bench`); sections that other commands
write say so, and when and on what they were measured. Ratios carry over to other machines better than absolute figures
do."""

_REPEAT = """## How to repeat

`make bench`, or in the virtual environment `python -m tests.bench`; `--json` prints the figures too. Where other work
ran on the machine (load average above), figures are lower bounds."""


@dataclass(frozen=True, slots=True)
class Results:
    """One run of all benchmarks."""

    machine: Machine
    loop: Loop
    database: Database


def render(results: Results) -> str:
    """The whole document."""
    parts = (
        _HEAD,
        machine_section(results.machine),
        _loop(results.loop),
        _database(results.database),
        _REPEAT,
    )
    return "\n\n".join(parts) + "\n"


def with_section(document: str, title: str, section: str) -> str:
    """``document`` with the section ``title`` replaced by ``section``, or with it at the end."""
    before, mark, after = document.partition(f"\n## {title}\n")
    if not mark:
        return f"{document.rstrip()}\n\n{section.strip()}\n"
    _, follow, rest = after.partition("\n## ")
    return f"{before}\n{section.strip()}\n" + (f"\n## {rest}" if follow else "")


def with_other_sections(document: str, before: str) -> str:
    """``document`` with the sections that only the text ``before`` has: another command wrote them."""
    for title in re.findall(r"^## (.+)$", before, re.MULTILINE):
        if not kept_section(document, title):
            document = with_section(document, title, kept_section(before, title))
    return document


def kept_section(document: str, title: str) -> str:
    """The section ``title`` of a document, empty when it has none."""
    _, mark, after = document.partition(f"\n## {title}\n")
    return f"## {title}\n{after.partition(chr(10) + '## ')[0]}".strip() if mark else ""


def machine_section(machine: Machine) -> str:
    """The section that says what everything ran on."""
    rows = [
        ("date", machine.date),
        ("CPU", f"{machine.cpu}, {machine.cores} cores"),
        ("memory", f"{machine.memory_bytes / 2**30:.0f} GiB"),
        ("accelerator", machine.accelerator),
        ("system", machine.system),
        ("disk", f"{machine.fsync_ms:.2f} ms for a 4 KiB write with fsync (median)"),
        ("load average at the start", f"{machine.load:.1f} on {machine.cores} cores"),
        ("versions", ", ".join(f"{name} {version}" for name, version in machine.versions.items())),
    ]
    return "## Machine\n\n" + table(("", ""), rows)


def _loop(loop: Loop) -> str:
    rows = [(one.study, one.detector, one.outcome, _seconds(one.seconds), one.delivered) for one in loop.studies]
    settle = AssembleSettings().settle_s
    text = (
        "The studies of `dicomnode demo`, sent one right after the other to one node: from the last object received to "
        f"the last result stored at the PACS. {settle:g} s of it are `assemble.settle_s`, the pause before evidence of "
        "completeness counts; a later study may also wait for the analysis of the one before it."
    )
    lines = ["## From last instance to delivered", text]
    lines.append(table(("study", "detector", "outcome", "last instance to delivered", "delivered"), rows))
    lines += [f"**Not as promised:** {fault}" for fault in loop.faults]
    return "\n\n".join(lines)


def _seconds(seconds: float | None) -> str:
    return "not delivered" if seconds is None else f"{seconds:.1f} s"


def _database(database: Database) -> str:
    rows = [
        ("audit: append, one row per durable transaction", f"{database.append_single_s:,.0f} rows/s"),
        (f"audit: append, {BATCH} rows per transaction", f"{database.append_batch_s:,.0f} rows/s"),
        (f"audit: verify the chain, {database.audit_rows:,} rows", f"{database.verify_s:,.0f} rows/s"),
        (f"jobs: claim one of {database.jobs:,}", _times(database.claim)),
        ("jobs: finish", _times(database.finish)),
    ]
    return "## Database\n\nSQLite, WAL, `synchronous=FULL`; each claim is a durable transaction.\n\n" + table(
        ("what", "figure"), rows
    )


def _times(times: Times) -> str:
    return f"p50 {times.p50_ms:.1f} ms, p95 {times.p95_ms:.1f} ms, greatest {times.max_ms:.1f} ms ({times.count} times)"
