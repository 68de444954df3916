"""The section "Reception" of docs/benchmarks.md, from one run."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from tests.bench.crowd import Crowd
from tests.bench.giant import Giant
from tests.bench.machine import Machine
from tests.bench.receive import Reception, Run
from tests.bench.receivers import NODE, ORTHANC, ORTHANC_NO_NAGLE, STORESCP, STORESCP_FORK
from tests.docs_conformance.markdown import table

TITLE = "Reception"
MIB = 2**20
GROWTH_LIMIT = 64 * MIB
_COLUMNS = (
    "receiver",
    "instances/s",
    "MB/s",
    "C-STORE p50 / p99",
    "processor per instance",
    "memory, peak",
    "dicomnode is",
    "bare sender",
)
_PLURAL = {1: "one association", 4: "four associations"}

_READING = """Reading the figures:

- Every receiver gets the same files from the same sender on the same disk over loopback, one receiver at a time, while
  the others idle. The receivers start afresh in each round, their order rotates, each run has new objects. Rates are
  medians over the rounds with least and greatest; a ratio is the median of the rounds' own ratios, so that slow spells
  of a shared machine hit both sides.
- The clock of the rate runs from the start of the sender's processes to the end of the last: their start-up, the
  association set-up, reading the files and the release are in it, on the same cores. After each run the receiver's own
  count is checked against what was sent.
- Latencies, and the rate under "bare sender", come from a second pass by a sender of our own on a bare socket, with
  PDUs laid out beforehand: from the first byte of the request to the response.
- The receivers do not do the same work. dicomnode acknowledges after fsync of file, folder and database row with its
  audit record. Orthanc syncs the file and not its index: a power failure may lose the last entries of the index, the
  files stay. storescp writes files into the page cache and answers: a power failure would lose what it acknowledged.
- Memory: pages that several processes of a receiver share count once (PSS), sampled five times a second. dicomnode's
  are the receiving processes and the supervisor; nothing is analysed meanwhile.
- Where other work ran on the machine (load average above), figures are lower bounds."""


@dataclass(frozen=True, slots=True)
class Report:
    """One run. ``load``: the load average over one minute at its end."""

    machine: Machine
    load: float
    command: str
    reception: Reception
    giant: Giant | None = None
    crowd: Crowd | None = None


def section(report: Report) -> str:
    """The whole section, as Markdown."""
    found, machine = report.reception, report.machine
    versions = {name.partition(",")[0]: about["version"] for name, about in found.receivers.items()}
    on = (
        f"Written by `make bench-receive` (`{report.command}`). {machine.date}; {machine.cpu}, {machine.cores} cores, "
        f"{machine.memory_bytes / 2**30:.0f} GiB, {machine.system}; {machine.fsync_ms:.2f} ms for a 4 KiB write with "
        f"fsync; load average {machine.load:.1f} at the start, {report.load:.1f} at the end; "
        f"{', '.join(f'{name} {version}' for name, version in versions.items())}. "
        f"Sender: {found.sender}, TCP_NODELAY=1; {found.rounds} round{'s' if found.rounds > 1 else ''}."
    )
    if max(machine.load, report.load) > machine.cores:
        on += " **Other work kept the machine busy: no measure of any receiver; repeat it on a quiet machine.**"
    parts = [f"## {TITLE}", on, "### Targets", table(("target", "measured", ""), _targets(report))]
    for load, associations in found.cases:
        parts += [_heading(found, load, associations), _case(found, load, associations)]
    parts.append(table(("receiver", "setting"), [(name, about["setting"]) for name, about in found.receivers.items()]))
    parts += [f"**{name} is not installed here and was not measured.**" for name in found.missing]
    return "\n\n".join([*parts, _READING]) + "\n"


def _heading(found: Reception, load: str, associations: int) -> str:
    run = next(run for run in found.runs if (run.load, run.associations) == (load, associations))
    most = max(run.instances for run in found.runs if (run.load, run.associations) == (load, associations))
    size = run.size_bytes / run.instances / 1e6
    return f"### {most:,} {load.upper()} of {size:.3g} MB, {_PLURAL.get(associations, f'{associations} associations')}"


def _case(found: Reception, load: str, associations: int) -> str:
    return table(_COLUMNS, [_row(found, name, load, associations) for name in found.receivers])


def _row(found: Reception, name: str, load: str, associations: int) -> tuple[str, ...]:
    runs = found.of(name, load, associations)
    rates = [run.rate for run in runs]
    few = (
        ""
        if runs[0].instances == max(run.instances for run in found.of(NODE, load, associations) or runs)
        else (f" ({runs[0].instances} instances)")
    )
    peak = max(run.memory_peak for run in runs)
    grown = max(run.memory_peak - run.memory_before for run in runs)
    ratio = f"{found.ratio(name, load, associations):.2f} × as fast" if name != NODE else ""
    return (
        name + few,
        f"{_rate(median(rates))} ({_rate(min(rates))}–{_rate(max(rates))})",
        f"{median(run.size_bytes / run.seconds for run in runs) / 1e6:.0f}",
        f"{_latency(runs, 0.5)} / {_latency(runs, 0.99)} ms",
        f"{median(run.cpu_ms for run in runs):.2f} ms",
        f"{peak / MIB:.0f} MiB, +{grown / MIB:.0f}",
        ratio,
        f"{_rate(median(run.raw_rate for run in runs))}/s",
    )


def _rate(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def _latency(runs: list[Run], share: float) -> str:
    return f"{median(run.latency_ms(share) for run in runs):.1f}"


def _targets(report: Report) -> list[tuple[str, str, str]]:
    found, rows = report.reception, []
    for load, associations in found.cases:
        about = f"{load.upper()}, {_PLURAL.get(associations, f'{associations} associations')}"
        for orthanc in (ORTHANC_NO_NAGLE, ORTHANC):
            if orthanc in found.receivers:
                ratio = found.ratio(orthanc, load, associations)
                rows.append(_target(f"{about}: ≥ 4 × {orthanc}", ratio, 4.0))
        peers = [name for name in (STORESCP_FORK, STORESCP) if name in found.receivers]
        if peers:
            fastest = min(peers, key=lambda name: found.ratio(name, load, associations))
            least = 0.55 if associations == 1 else 1.0
            ratio = found.ratio(fastest, load, associations)
            rows.append(_target(f"{about}: ≥ {least:g} × {fastest} (the faster way)", ratio, least))
    giant, crowd = report.giant, report.crowd
    if giant:
        words = f"+{giant.grown / MIB:.0f} MiB, {giant.size_bytes / giant.seconds / 1e6:.0f} MB/s"
        good = giant.grown < GROWTH_LIMIT and giant.intact
        rows.append((f"one multi-frame object of {giant.size_bytes / 1e9:.2f} GB: growth < 64 MiB", words, _held(good)))
    if crowd:
        words = (
            f"{crowd.refused} refused, {crowd.lost} lost; {crowd.instances / crowd.seconds:.0f} instances/s of 40 kB"
        )
        what = f"{crowd.associations} associations × {crowd.instances // crowd.associations}: zero refused, zero lost"
        rows.append((what, words, _held(not crowd.refused and not crowd.lost)))
    return rows


def _target(what: str, ratio: float, least: float) -> tuple[str, str, str]:
    return what, f"{ratio:.2f} ×", _held(ratio >= least)


def _held(good: bool) -> str:
    return "held" if good else "**not held**"
