"""``dicomnode backup`` and ``dicomnode restore``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from dicomnode.cli.options import blueprint, config_option, json_option, print_json
from dicomnode.node.backup import Progress, write_backup
from dicomnode.node.restore import check_backup
from dicomnode.node.restore import restore as restore_backup


@click.command()
@config_option
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--verify", "verify_only", is_flag=True, help="Write nothing: prove every byte of the backup in FOLDER.")
@click.option("--link", is_flag=True, help="Hard links instead of copies, where the disk is the same: quick, no room.")
@click.option("--damaged", is_flag=True, help="Keep what there is, although spool files are missing or altered.")
@json_option
def backup(
    config_path: Path | None, as_json: bool, folder: Path, *, verify_only: bool, link: bool, damaged: bool
) -> int:
    """Back up database and spool to FOLDER, which must be new or empty, while the node runs.

    Exit status 1 when it cannot be written or what is to be kept is damaged, 2 when FOLDER is not empty.
    """
    if verify_only:
        return _verify(folder, as_json=as_json)
    with _bars() as progress:
        made = write_backup(blueprint(config_path), folder, progress, link=link, damaged=damaged)
    if as_json:
        print_json(made)
    else:
        size, audit = made["bytes"] / 1e6, made["audit"]
        click.echo(f"{folder}: {made['files']} files, {size:.1f} MB, {audit['rows']} audit rows, head {audit['head']}")
        for fault in made["faults"]:
            click.echo(f"not in it as it should be: {fault}", err=True)
    return 1 if made["faults"] else 0


def _verify(folder: Path, *, as_json: bool) -> int:
    with _bars() as progress:
        checked = check_backup(folder, progress)
    if as_json:
        print_json({"ok": not checked.faults, "faults": checked.faults, "manifest": checked.manifest})
    elif not checked.faults:
        click.echo(f"ok: {checked.manifest['files']} files, {checked.manifest['audit']['rows']} audit rows")
    else:
        for fault in checked.faults:
            click.echo(f"NOT ok: {fault}", err=True)
    return 1 if checked.faults else 0


@click.command()
@config_option
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--replace", is_flag=True, help="Move the data that is there aside, to a folder replaced-… beside it.")
@click.option(
    "--checkpoint",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Compare with the checkpoints in this file. Default: the first file of [audit] that exists.",
)
@json_option
def restore(config_path: Path | None, as_json: bool, folder: Path, *, replace: bool, checkpoint: Path | None) -> int:
    """Make the backup in FOLDER the data of the node, which must not run. Nothing changes unless all of it is proved.

    Exit status 1 when the backup is damaged, 2 when a node runs or its data is there and --replace is not given.
    """
    plan = blueprint(config_path)
    checkpoint = checkpoint or next((path for path in plan.config.audit.checkpoint_files if path.exists()), None)
    with _bars() as progress:
        done = restore_backup(plan, folder, progress, replace=replace, checkpoint=checkpoint)
    if as_json:
        print_json(done)
        return 0
    click.echo(f"restored: the node of {done['made_at']}, {done['files']} files, {done['audit_rows']} audit rows")
    if done["replaced"]:
        click.echo(f"the data that was there: {done['replaced']}")
    if done["lost_rows"] is None:
        click.echo("no checkpoint to compare with")
    elif done["lost_rows"]:
        click.echo(f"at least {done['lost_rows']} audit rows were written after the backup and are not in it", err=True)
    for fault in done["faults"]:
        click.echo(f"not in the backup as it should be: {fault}", err=True)
    return 0


@contextmanager
def _bars() -> Iterator[Progress]:
    """Progress on stderr, one bar per step, where that is a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Bars(*columns, console=console, disable=not console.is_terminal, transient=True) as bars:
        tasks: dict[str, int] = {}

        def progress(step: str, done: int, total: int) -> None:
            task = tasks.setdefault(step, -1)
            if task == -1:
                task = tasks[step] = bars.add_task(step, total=total)
            bars.update(bars.tasks[task].id, completed=done, total=total)

        yield progress
