"""``python -m tests.soak``: several scanners, random faults; writes the section Soak of docs/reliability.md."""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import click

from tests.bench.document import with_section
from tests.bench.machine import look
from tests.soak.account import Soak, section
from tests.soak.run import soak

DOCUMENT = Path(__file__).parents[2] / "docs" / "reliability.md"
TITLE = "Soak"


@click.command()
@click.option("--minutes", type=click.FloatRange(0.5), default=30.0, show_default=True, help="How long scanners send.")
@click.option("--scanners", type=click.IntRange(1, 16), default=4, show_default=True, help="How many, side by side.")
@click.option("--seed", type=int, default=20261121, show_default=True, help="Of the faults.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), default=DOCUMENT, help="The document.")
@click.option("--json", "as_json", is_flag=True, help="Print the account as JSON.")
def main(minutes: float, scanners: int, seed: int, output: Path, *, as_json: bool) -> None:
    """Let a whole node work under faults; exit status 1 when a promise was broken."""
    with tempfile.TemporaryDirectory(prefix="dicomnode-soak-", ignore_cleanup_errors=True) as folder:
        work = Path(folder)
        machine = look(work)
        result: Soak = soak(work, minutes * 60, scanners, seed, lambda words: click.echo(words, err=True))
    where = f"{machine.date}, {machine.cpu}, {machine.cores} cores, load {machine.load:.1f} at the start"
    text = section(result, TITLE, where)
    before = output.read_text(encoding="utf-8") if output.is_file() else "# Reliability\n"
    output.write_text(with_section(before, TITLE, text), encoding="utf-8")
    click.echo(json.dumps(asdict(result), indent=1) if as_json else text)
    sys.exit(0 if not result.faults else 1)


if __name__ == "__main__":
    main()
