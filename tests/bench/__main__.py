"""``python -m tests.bench``."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.bench.database import measure_database
from tests.bench.document import DOCUMENT, Results, kept_section, render, with_section
from tests.bench.loop import measure_loop
from tests.bench.machine import look
from tests.bench.receive import measure_reception

RECEIVERS = 3
STEPS = 4


@click.command()
@click.option("--instances", type=click.IntRange(1), default=200, show_default=True, help="CT objects per run.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Runs of each receiver.")
@click.option(
    "--associations", type=click.IntRange(1, 16), multiple=True, default=(1, 4), show_default=True, help="At a time."
)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), default=DOCUMENT, help="The document.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def main(instances: int, rounds: int, associations: tuple[int, ...], output: Path, as_json: bool) -> None:
    """Measure reception beside peers, the way of a study, audit log and jobs; write docs/benchmarks.md."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        tempfile.TemporaryDirectory(prefix="dicomnode-bench-") as folder,
        Progress(*columns, console=Console(stderr=True)) as bars,
    ):
        work = Path(folder)
        machine = look(work)
        receiving = bars.add_task("reception", total=RECEIVERS * rounds * len(associations))
        reception = measure_reception(work, instances, rounds, associations, lambda: bars.advance(receiving))
        bars.update(receiving, total=len(reception.runs))
        filling = bars.add_task("audit log and jobs", total=STEPS)
        database = measure_database(work, lambda: bars.advance(filling))
        demo = bars.add_task("demo", total=1)
        loop = measure_loop(work)
        bars.advance(demo)
    results = Results(machine, reception, loop, database)
    detection = kept_section(output.read_text(encoding="utf-8"), "Detection") if output.is_file() else ""
    text = render(results)
    output.write_text(with_section(text, "Detection", detection) if detection else text, encoding="utf-8")
    if as_json:
        click.echo(json.dumps(asdict(results), indent=1))
    for name in reception.missing:
        click.echo(f"not measured, because it is not installed: {name}", err=True)
    click.echo(f"written: {output}", err=True)


if __name__ == "__main__":
    main()
