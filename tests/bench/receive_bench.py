"""``python -m tests.bench.receive_bench``: reception beside DCMTK and Orthanc; its section of docs/benchmarks.md."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median

import click

from tests.bench.crowd import send_crowd
from tests.bench.document import with_section
from tests.bench.giant import send_giant
from tests.bench.loads import LOADS
from tests.bench.machine import look
from tests.bench.receive import Plan, Run, measure_reception
from tests.bench.receive_document import TITLE, Report, section
from tests.bench.receivers import NAMES, NODE, NodeReceiver

GIANT_FRAMES, CROWD = 512, (24, 200)
ASSOCIATIONS = {"ct": (1, 4), "mr": (1, 4), "dx": (1,)}


@click.command()
@click.option(
    "--quick", is_flag=True, help="One round of 200 CT by one association to the node and storescp; writes nothing."
)
@click.option("--load", "loads", type=click.Choice(tuple(LOADS)), multiple=True, help="Only these loads.")
@click.option("--count", type=click.IntRange(1), help="Instances per load at most, instead of 400 CT, 5000 MR, 20 DX.")
@click.option("--associations", type=click.IntRange(1, 16), multiple=True, help="Only so many at a time.")
@click.option("--receiver", "wanted", type=click.Choice(tuple(NAMES)), multiple=True, help="Only these receivers.")
@click.option("--rounds", type=click.IntRange(1), help="Rounds; 3, with --quick 1.")
@click.option("--node", "settings", multiple=True, help='A line of the node\'s [receive], as "processes = 2".')
@click.option("--whole/--no-whole", default=None, help="1 GB in one object, and 24 associations at once, too.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the section into this document.")
@click.option("--no-latencies", is_flag=True, help="Leave out the pass that times each C-STORE.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def main(
    quick: bool,
    loads: tuple[str, ...],
    count: int | None,
    associations: tuple[int, ...],
    wanted: tuple[str, ...],
    rounds: int | None,
    settings: tuple[str, ...],
    whole: bool | None,
    output: Path | None,
    no_latencies: bool,
    as_json: bool,
) -> None:
    """Measure reception of the node, DCMTK storescp and Orthanc, side by side, by the same sender."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the receivers end with us
    if quick:
        loads, associations = loads or ("ct",), associations or (1,)
        wanted, count, rounds = wanted or ("node", "storescp-fork"), count or 200, rounds or 1
    chosen = [LOADS[name] for name in loads or tuple(LOADS)]
    if count:
        chosen = [replace(load, count=min(count, load.count)) for load in chosen]
    cases = tuple((load, n) for load in chosen for n in associations or ASSOCIATIONS[load.name])
    plan = Plan(cases, rounds or 3, wanted or tuple(NAMES), not no_latencies, "\n".join(settings))
    with tempfile.TemporaryDirectory(prefix="dicomnode-bench-") as folder:
        report = _measure(Path(folder), plan, whole=not quick if whole is None else whole)
    for line in _summary(report):
        click.echo(line)
    if output is not None:
        before = output.read_text(encoding="utf-8")
        output.write_text(with_section(before, TITLE, section(report)), encoding="utf-8")
    if as_json:
        click.echo(json.dumps(asdict(report)))


def _measure(work: Path, plan: Plan, *, whole: bool) -> Report:
    machine = look(work)
    giant = crowd = None
    if whole:
        node = NodeReceiver(work / "whole", plan.node_settings)
        node.start()
        try:
            giant, crowd = send_giant(node, GIANT_FRAMES), send_crowd(node, *CROWD)
        finally:
            node.stop()
        shutil.rmtree(work / "whole")
        click.echo(f"{giant}\n{crowd}", err=True)
    found = measure_reception(work, plan, _say)
    return Report(machine, os.getloadavg()[0], _command(), found, giant, crowd)


def _command() -> str:
    """How this was called, without where the results go."""
    context = click.get_current_context()
    given = [one for one in sys.argv[1:] if one not in ("--json", "--output", str(context.params["output"]))]
    return shlex.join(["python", "-m", "tests.bench.receive_bench", *given])


def _say(run: Run) -> None:
    click.echo(
        f"round {run.round + 1} {run.load} x{run.instances} by {run.associations}: {run.receiver:28} "
        f"{run.rate:7.1f}/s {run.size_bytes / run.seconds / 1e6:6.0f} MB/s  cpu {run.cpu_ms:6.2f} ms  "
        f"memory {run.memory_before / 2**20:.0f} -> {run.memory_peak / 2**20:.0f} MiB  raw {run.raw_rate:7.1f}/s "
        f"p50 {run.latency_ms(0.5):.1f} p99 {run.latency_ms(0.99):.1f} ms",
        err=True,
    )


def _summary(report: Report) -> list[str]:
    found, lines = report.reception, []
    for load, associations in found.cases:
        for name in found.receivers:
            runs = found.of(name, load, associations)
            ours = found.of(NODE, load, associations)
            ratio = f"{found.ratio(name, load, associations):.2f}" if ours else "-"
            rate = median(run.rate for run in runs)
            lines.append(f"{load} by {associations}: {name:28} {rate:7.1f}/s   dicomnode is {ratio} x as fast")
    return lines


if __name__ == "__main__":
    main()
