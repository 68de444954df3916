"""``python -m tests.chaos``: R1, R2 and R20 at length; writes a section of docs/reliability.md."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from tests.bench.document import with_section
from tests.bench.machine import look
from tests.docs_conformance.markdown import table
from tests.faults.alone import BareReceiver
from tests.faults.cuts import cut_and_start, cut_points, record_reception
from tests.faults.kills import LIMITS, kill_rounds
from tests.faults.receiver import Receiver
from tests.faults.shims import build
from tests.faults.steady import many_instances

DOCUMENT = Path(__file__).parents[2] / "docs" / "reliability.md"
TITLE = "Long run"
WHOLE_SHARE = 0.1
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the account: what was done, what was found, whether the promise held."""

    line: str
    done: str
    found: str
    good: bool


def kills(work: Path, rounds: int, seed: int) -> Iterator[Line]:
    """R2: a part of the rounds on a receiving node, the rest on the bare Storage Server, which starts faster."""
    whole = round(rounds * WHOLE_SHARE)
    node, bare = Receiver(work / "node", receive=LIMITS), BareReceiver(work / "bare", receive=LIMITS)
    nodes = (("node", node, whole), ("Storage Server", bare, rounds - whole))
    for name, receiver, count in nodes:
        if count:
            result = kill_rounds(receiver, count, seed)
            found = (
                f"{result.acknowledged} acknowledged, {len(result.missing)} missing, {len(result.torn)} torn, "
                f"{result.left_behind} unfinished files left by the kills and {len(result.left)} after the starts, "
                f"chain {'whole' if result.chain_whole else 'broken'}"
            )
            yield Line("R2", f"{count} SIGKILLs of the {name} under four scanners", found, result.good)


def cuts(work: Path, count: int, seed: int) -> Iterator[Line]:
    """R1: power cuts, half of them with everything unsynced lost, half with random parts of it kept."""
    if not count:
        return
    folder = work / "recording"
    folder.mkdir()
    recording = record_reception(folder, build("recorder", folder), 4, 40)
    for name, chance in (("everything unsynced lost", None), ("random sectors kept", seed)):
        points = cut_points(recording, count // 2, seed)
        results = cut_and_start(recording, recording.events, points, work, chance)
        bad = [result for result in results if not result.good]
        promised = sum(result.promised for result in results)
        found = f"{promised} promises looked at, {sum(len(result.missing) for result in bad)} broken"
        yield Line("R1", f"{len(results)} power cuts in {len(recording.events)} events, {name}", found, not bad)


def steady(work: Path, instances: int) -> Iterator[Line]:
    """R20: many instances over five associations."""
    if not instances:
        return
    with Receiver(work / "steady") as receiver:
        result = many_instances(receiver, instances)
    found = (
        f"{result.instances / result.seconds:.0f} instances/s; memory {result.before[0] / MIB:.0f} to "
        f"{result.after[0] / MIB:.0f} MiB, slope {result.slope:.0f} bytes per instance over the second half; handles "
        f"{result.before[1]} to {result.after[1]}, threads {result.before[2]} to {result.after[2]}"
    )
    good = result.slope < 1024 and result.constant
    yield Line("R20", f"{result.instances} instances over five associations", found, good)


def section(lines: list[Line], machine: str, seconds: float) -> str:
    """The section of the document."""
    rows = [(line.line, line.done, line.found, "kept" if line.good else "BROKEN") for line in lines]
    return (
        f"## {TITLE}\n\nWritten by `make chaos` (`python -m tests.chaos`). {machine}; {seconds / 60:.0f} minutes.\n\n"
        + table(("line", "what was done", "found", "promise"), rows)
    )


@click.command()
@click.option("--rounds", type=click.IntRange(0), default=200, show_default=True, help="SIGKILLs (R2).")
@click.option("--cuts", "n_cuts", type=click.IntRange(0), default=400, show_default=True, help="Power cuts (R1).")
@click.option("--instances", type=click.IntRange(0), default=10_000, show_default=True, help="Instances (R20).")
@click.option("--seed", type=int, default=20261121, show_default=True, help="Of all random moments.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), default=DOCUMENT, help="The document.")
@click.option("--json", "as_json", is_flag=True, help="Print the account as JSON.")
def main(rounds: int, n_cuts: int, instances: int, seed: int, output: Path, *, as_json: bool) -> None:
    """Kill, cut the power, send for long; exit status 1 when a promise was broken."""
    began, lines = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="dicomnode-chaos-", ignore_cleanup_errors=True) as folder:
        work = Path(folder)
        machine = look(work)
        parts = (kills(work, rounds, seed), cuts(work, n_cuts, seed), steady(work, instances))
        for part in parts:
            for line in part:
                lines.append(line)
                click.echo(f"{line.line}: {line.done}: {line.found}: {'kept' if line.good else 'BROKEN'}", err=True)
    where = f"{machine.date}, {machine.cpu}, {machine.cores} cores, load {machine.load:.1f} at the start"
    text = output.read_text(encoding="utf-8") if output.is_file() else "# Reliability\n"
    output.write_text(with_section(text, TITLE, section(lines, where, time.monotonic() - began)), encoding="utf-8")
    if as_json:
        click.echo(json.dumps([asdict(line) for line in lines], indent=1))
    sys.exit(0 if all(line.good for line in lines) else 1)


if __name__ == "__main__":
    main()
