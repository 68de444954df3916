"""``dicomnode send``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from dicomnode.cli.options import json_option, print_json
from dicomnode.deliver.send import find_dicom, parse_destination, send_found
from dicomnode.errors import Permanent


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--to", "destination", required=True, metavar="AET@HOST:PORT", help="Where to send.")
@click.option("--calling", default="DICOMNODE_SCU", show_default=True, help="Our AE title.")
@click.option("--verbose", is_flag=True, help="One line per file, not only for those that were not stored.")
@json_option
def send(paths: tuple[Path, ...], destination: str, calling: str, verbose: bool, as_json: bool) -> int:
    """Send DICOM files and folders by C-STORE. Exit status 1 when one was not stored."""
    try:
        target = parse_destination(destination)
    except Permanent as error:
        raise click.BadParameter(str(error), param_hint="--to") from error
    found = find_dicom(paths)
    if not found.files:
        raise click.ClickException("there is no DICOM file in these paths")
    answers, console = [], Console(stderr=True)
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=console) as bars:
        task = bars.add_task("sending", total=len(found.files))
        for answer in send_found(found.files, target, calling):
            answers.append(answer)
            bars.advance(task)
            if not as_json and (verbose or not answer.ok):
                bars.console.print(f"{'stored ' if answer.ok else 'refused'} {answer.path} {answer.text}", markup=False)
    bad = sum(not answer.ok for answer in answers)
    if as_json:
        rows = [{**asdict(answer), "path": str(answer.path)} for answer in answers]
        print_json({"sent": len(answers) - bad, "failed": bad, "skipped": found.skipped, "files": rows})
    else:
        click.echo(f"{len(answers) - bad} stored, {bad} not stored, {found.skipped} not DICOM")
    return 1 if bad or not answers else 0
