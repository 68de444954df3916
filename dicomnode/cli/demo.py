"""``dicomnode demo``."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from dicomnode.cli.options import json_option, print_json
from dicomnode.demo.summary import DemoReport, run_demo

_LEFT_BEHIND = frozenset({"results", "contact-sheet.png", "audit.csv", "node.log"})


@click.command()
@click.option(
    "--input",
    "source",
    type=click.Path(exists=True, path_type=Path),
    help="A folder of DICOM files to send instead of the built-in phantoms.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo-out"),
    show_default=True,
    help="Result folder.",
)
@json_option
def demo(source: Path | None, out: Path, as_json: bool) -> int:
    """Play scanner, node and PACS on this machine; exit status 0 if every study came back and the log verifies."""
    _empty(out)
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )
    with tempfile.TemporaryDirectory(prefix="dicomnode-demo-") as work, bars:
        tasks: dict[str, Any] = {}

        def progress(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=None)
            bars.update(tasks[stage], completed=done, total=total or None)

        report = run_demo(source, out, Path(work), progress)
    if as_json:
        print_json(report.as_dict())
    else:
        _print(report, out)
    return 0 if report.ok else 1


def _empty(out: Path) -> None:
    """Remove what an earlier demo left in ``out``. Raises BadParameter for a folder that holds anything else."""
    foreign = {item.name for item in out.iterdir()} - _LEFT_BEHIND if out.exists() else set()
    if foreign:
        raise click.BadParameter(f"{out} holds other files; name a new or an empty folder", param_hint="--out")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)


def _print(report: DemoReport, out: Path) -> None:
    console = Console()
    table = Table("study", "detector", "model", "outcome", "score", "seconds", "delivered", box=SIMPLE_HEAD)
    for column in table.columns:
        column.overflow = "fold"
    for row in report.rows:
        score = "" if row.score is None else f"{row.score:.3f} (≥ {row.threshold:.2f} is a finding)"
        seconds = "" if row.seconds is None else f"{row.seconds:.1f}"
        outcome = f"{row.outcome}: {row.reason}" if row.outcome in ("not analysed", "failed") else row.outcome
        table.add_row(row.study, row.detector, row.model, outcome, score, seconds, row.delivered)
    console.print(table)
    console.print(f"received results: {out / 'results'}   contact sheet: {out / 'contact-sheet.png'}")
    console.print(
        f"audit log: {out / 'audit.csv'} ({report.audit_rows} rows, {report.audit_fault or 'chain verified'})"
    )
    for fault in report.faults:
        console.print(f"[red]not as promised:[/] {fault}")
    console.print("Research software, not a medical device.")
