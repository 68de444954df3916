"""``python -m tests.fuzz``: hostile input for a time; exit status 1 when a promise was broken."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.fuzz.engine import TARGETS, Outcome, repeat
from tests.fuzz.many import run_all

FAILURES = Path("fuzz-failures")


@click.command()
@click.option("--minutes", type=click.FloatRange(min=0.05), default=10.0, show_default=True, help="For all together.")
@click.option("--seed", type=int, help="Draws the same inputs again. Default: a new one, which is printed.")
@click.option("--target", "targets", type=click.Choice(sorted(TARGETS)), multiple=True, help="Only these.")
@click.option("--jobs", type=click.IntRange(1), default=min(4, os.cpu_count() or 1), show_default=True)
@click.option("--failures", type=click.Path(file_okay=False, path_type=Path), default=FAILURES, show_default=True)
@click.option("--repeat", "again", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="One failure.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
def main(
    minutes: float,
    seed: int | None,
    targets: tuple[str, ...],
    jobs: int,
    failures: Path,
    again: Path | None,
    as_json: bool,
) -> None:
    """Fuzz every reader of foreign input; what broke is kept in the folder of failures."""
    if again is not None:
        said = repeat(again)
        click.echo(said or "nothing went wrong this time")
        raise SystemExit(1 if said else 0)
    seed = secrets.randbelow(2**31) if seed is None else seed
    names = list(targets or TARGETS)
    seconds = minutes * 60 * min(jobs, len(names)) / len(names)
    outcomes = _with_progress(names, seed, seconds, jobs, failures)
    failed = [failure for outcome in outcomes for failure in outcome.failures]
    if as_json:
        click.echo(json.dumps({"seed": seed, "ok": not failed, "targets": [asdict(one) for one in outcomes]}, indent=1))
    else:
        _print(outcomes, seed)
    for failure in failed:
        click.echo(f"FAILED {failure.target}, input {failure.number}: {failure.error} {failure.at}", err=True)
        click.echo(f"  again with: python -m tests.fuzz --repeat {failure.file}", err=True)
    raise SystemExit(1 if failed else 0)


def _with_progress(names: list[str], seed: int, seconds: float, jobs: int, failures: Path) -> list[Outcome]:
    columns = (
        TextColumn("{task.description:12}"),
        BarColumn(),
        TextColumn("{task.fields[inputs]} inputs"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks = {name: bars.add_task(name, total=None, inputs=0, start=False) for name in names}

        def told(name: str, inputs: int) -> None:
            task = bars.tasks[tasks[name]]
            if not task.started:
                bars.start_task(tasks[name])
            bars.update(tasks[name], total=seconds, completed=min(task.elapsed or 0.0, seconds), inputs=inputs)

        return run_all(names, seed, seconds, jobs, failures, told)


def _print(outcomes: list[Outcome], seed: int) -> None:
    table = Table("target", "inputs", "seconds", "a second", "failures", "what it left")
    for one in outcomes:
        rate = one.inputs / one.seconds if one.seconds else 0.0
        notes = ", ".join(f"{name} {value:.2f}" for name, value in one.notes.items())
        table.add_row(one.target, str(one.inputs), f"{one.seconds:.0f}", f"{rate:.0f}", str(len(one.failures)), notes)
    console = Console()
    console.print(table)
    console.print(f"seed {seed}")


if __name__ == "__main__":
    main()
