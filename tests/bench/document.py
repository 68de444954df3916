"""docs/benchmarks.md, written from one run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median

from dicomnode.config.model import AssembleSettings
from tests.bench.database import BATCH, Database, Times
from tests.bench.loop import Loop
from tests.bench.machine import Machine
from tests.bench.receive import Reception
from tests.docs_conformance.markdown import table

DOCUMENT = Path(__file__).parents[2] / "docs" / "benchmarks.md"
OURS = "dicomnode"

_HEAD = """# Benchmarks

Research software, not a medical device. Written by `make bench` (`python -m tests.bench`): everything below comes from
one run on one machine. Ratios carry over to other machines better than absolute figures do."""

_READING = """## Reading the figures

- Every receiver gets the same files from the same sender on the same disk over loopback, one receiver at a time, while
  the others idle. The order rotates by round; each round has new objects. Rates are medians over the rounds with least
  and greatest; a ratio is the median of the rounds' own ratios, so that slow spells of a shared machine hit both sides.
- The clock runs from the start of the sender's processes to the end of the last: their start-up, the association set-up
  and the release are in it. After each run the receiver's own count is checked against what was sent.
- The receivers do not do the same work. dicomnode acknowledges after fsync of file, folder and database row with its
  audit record. Orthanc syncs the file and not its index: a power failure may lose the last entries of the index, the
  files stay. storescp writes files into the page cache and answers: a power failure would lose what it acknowledged.
  It shows the speed of the wire; it is no durable peer.
- Memory is the greatest sum of resident memory over a receiver's processes, sampled ten times a second; pages that
  processes share count more than once. dicomnode's are the receiving process and its supervisor; nothing is
  analysed meanwhile.
- Where other work ran on the machine (load average above), figures are lower bounds."""


@dataclass(frozen=True, slots=True)
class Results:
    """One run of all benchmarks."""

    machine: Machine
    reception: Reception
    loop: Loop
    database: Database


def render(results: Results) -> str:
    """The whole document."""
    parts = (
        _HEAD,
        _machine(results.machine, results.reception),
        _reception(results.reception),
        _loop(results.loop),
        _database(results.database),
        _repeat(results.reception),
        _READING,
    )
    return "\n\n".join(parts) + "\n"


def with_section(document: str, title: str, section: str) -> str:
    """``document`` with the section ``title`` replaced by ``section``, or with it at the end."""
    before, mark, after = document.partition(f"\n## {title}\n")
    if not mark:
        return f"{document.rstrip()}\n\n{section.strip()}\n"
    _, follow, rest = after.partition("\n## ")
    return f"{before}\n{section.strip()}\n" + (f"\n## {rest}" if follow else "")


def kept_section(document: str, title: str) -> str:
    """The section ``title`` of a document, empty when it has none."""
    _, mark, after = document.partition(f"\n## {title}\n")
    return f"## {title}\n{after.partition(chr(10) + '## ')[0]}".strip() if mark else ""


def _machine(machine: Machine, reception: Reception) -> str:
    versions = {**machine.versions, **{name: about["version"] for name, about in reception.receivers.items()}}
    rows = [
        ("date", machine.date),
        ("CPU", f"{machine.cpu}, {machine.cores} cores"),
        ("memory", f"{machine.memory_bytes / 2**30:.0f} GiB"),
        ("accelerator", machine.accelerator),
        ("system", machine.system),
        ("disk", f"{machine.fsync_ms:.2f} ms for a 4 KiB write with fsync (median)"),
        ("load average at the start", f"{machine.load:.1f} on {machine.cores} cores"),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
    ]
    return "## Machine\n\n" + table(("", ""), rows)


def _reception(reception: Reception) -> str:
    size = reception.runs[0].size_bytes / reception.runs[0].instances / 1e6
    what = f"{reception.instances} synthetic CT objects of {size:.2f} MB, {reception.rounds} rounds"
    lines = [
        "## Reception",
        f"{what}; sender: {reception.sender}.",
        table(
            ("receiver", "associations", "instances/s", "MB/s", "peak memory", "dicomnode is"),
            [_row(reception, name, n) for n in reception.associations for name in reception.receivers],
        ),
        table(("receiver", "setting"), [(name, about["setting"]) for name, about in reception.receivers.items()]),
    ]
    lines += [f"**{name} is not installed here and was not measured.**" for name in reception.missing]
    return "\n\n".join(lines)


def _row(reception: Reception, name: str, associations: int) -> tuple[str, ...]:
    runs = reception.of(name, associations)
    rates = [run.rate for run in runs]
    speed = median(run.size_bytes / run.seconds / 1e6 for run in runs)
    memory = max(run.rss_bytes for run in runs) / 2**20
    ratio = "" if name == OURS else f"{reception.ratio(name, associations):.2f} × as fast"
    rate = f"{median(rates):.0f} ({min(rates):.0f}–{max(rates):.0f})"
    return name, str(associations), rate, f"{speed:.0f}", f"{memory:.0f} MiB", ratio


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


def _repeat(reception: Reception) -> str:
    numbers = " ".join(f"--associations {n}" for n in reception.associations)
    command = f"python -m tests.bench --instances {reception.instances} --rounds {reception.rounds} {numbers}"
    return (
        "## How to repeat\n\n"
        f"`make bench`, or in the virtual environment `{command}`; `--json` prints the figures too. "
        "Debian packages of the peers: `dcmtk`, `orthanc`."
    )
