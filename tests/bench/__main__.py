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
from tests.bench.document import DOCUMENT, Results, render, with_other_sections
from tests.bench.loop import measure_loop
from tests.bench.machine import look

STEPS = 4


@click.command()
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), default=DOCUMENT, help="The document.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def main(output: Path, as_json: bool) -> None:
    """Measure the way of a study, audit log and jobs; write them to docs/benchmarks.md."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        tempfile.TemporaryDirectory(prefix="dicomnode-bench-") as folder,
        Progress(*columns, console=Console(stderr=True)) as bars,
    ):
        work = Path(folder)
        machine = look(work)
        filling = bars.add_task("audit log and jobs", total=STEPS)
        database = measure_database(work, lambda: bars.advance(filling))
        demo = bars.add_task("demo", total=1)
        loop = measure_loop(work)
        bars.advance(demo)
    results = Results(machine, loop, database)
    before = output.read_text(encoding="utf-8") if output.is_file() else ""
    output.write_text(with_other_sections(render(results), before), encoding="utf-8")
    if as_json:
        click.echo(json.dumps(asdict(results), indent=1))
    click.echo(f"written: {output}", err=True)


if __name__ == "__main__":
    main()
