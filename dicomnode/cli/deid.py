"""``dicomnode deid``: de-identify a folder, and what belongs to it."""

from __future__ import annotations

import importlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from dicomnode.audit.chain import append
from dicomnode.audit.events import Event
from dicomnode.cli.options import blueprint, config_option, json_option, print_json, print_table
from dicomnode.deid.account import Account, Facts
from dicomnode.deid.batch import Batch, Run
from dicomnode.deid.engine import Deidentifier
from dicomnode.deid.journal import Entry
from dicomnode.deid.keys import ProjectKey
from dicomnode.deid.leaving import open_vault
from dicomnode.deid.pixel_decision import PixelDecision
from dicomnode.deid.profile import Profile, load_profile
from dicomnode.deid.pseudonyms import Pseudonyms
from dicomnode.deid.sandboxed import Task
from dicomnode.errors import ConfigError
from dicomnode.node.build import Blueprint
from dicomnode.sandbox import SandboxLimits
from dicomnode.store.engine import Store
from dicomnode.store.schema import check_schema, migrate

_MIB = 1 << 20
_ELSEWHERE: Mapping[str, str] = {"reidentify": "deid_reidentify", "vault": "deid_vault", "verify": "deid_verify"}
"""Subcommands in other modules: name to module of this package, which has a command of that name."""


class _DeidCommands(click.Group):
    """``dicomnode deid IN OUT`` is ``dicomnode deid run IN OUT``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in ("-h", "--help") and args[0] not in self.list_commands(ctx):
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *_ELSEWHERE]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _ELSEWHERE:
            module = importlib.import_module(f"dicomnode.cli.{_ELSEWHERE[cmd_name]}")
            command: click.Command = getattr(module, cmd_name)
            return command
        return super().get_command(ctx, cmd_name)


@click.group(cls=_DeidCommands)
def deid() -> None:
    """De-identify DICOM files: `dicomnode deid IN OUT`. Not a claim of anonymity."""


@deid.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--rotate", is_flag=True, help="Put a new key in force in this file; the old one is kept as retired.")
def key(file: Path, *, rotate: bool) -> None:
    """Make the key of a project in FILE (mode 0600). It is never overwritten; whoever loses it loses the links."""
    made = ProjectKey.rotate(file) if rotate else ProjectKey.create(file)
    click.echo(f"key {made.id}")


@deid.command()
@click.argument("source", metavar="IN", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("target", metavar="OUT", type=click.Path(file_okay=False, path_type=Path))
@config_option
@click.option("--profile", metavar="NAME|FILE", help="A shipped profile or a TOML file. Default: [deid] profile.")
@click.option("--option", "options", multiple=True, metavar="NAME", help="Option of PS3.15 E.3, such as retain_uids.")
@click.option(
    "--key", "key_file", envvar="DICOMNODE_DEID_KEY_FILE", type=click.Path(path_type=Path),
    help="Key of the project. Default: [deid] key_file.",
)  # fmt: skip
@click.option("--jobs", type=click.IntRange(1, 256), help="Processes. Default: [deid] jobs, else one for each core.")
@click.option("--resume/--no-resume", default=True, help="Go on where a run into OUT stopped, or begin anew.")
@json_option
def run(
    source: Path,
    target: Path,
    config_path: Path | None,
    profile: str | None,
    options: tuple[str, ...],
    key_file: Path | None,
    jobs: int | None,
    *,
    resume: bool,
    as_json: bool,
) -> int:
    """De-identify every DICOM file below IN into OUT.

    OUT gets folders by pseudonym of patient, Study and Series; beside it, OUT.deid gets the journal, report.json, and
    quarantine.jsonl with the paths of the files that were held back.
    """
    plan = blueprint(config_path)
    task = _task(plan, profile, options, key_file)
    batch = Run(source, target, task, jobs or plan.config.deid.jobs or os.cpu_count() or 1, resume, _limits(plan))
    with _faces(batch) as batch, _audit(plan) as record:
        report = _worked(plan, batch, record, quiet=as_json)
    if as_json:
        print_json(report)
    else:
        _print(report, batch.side)
    return 1 if report["failed"] else 0


@contextmanager
def _faces(batch: Run) -> Iterator[Run]:
    """With the masks of all faces, found before the first slice is written: all slices of a series, or none.

    They are gone at the end: a mask has the shape of the face.
    """
    if "clean_recognizable_visual_features" not in batch.task.profile.options:
        yield batch
        return
    from dicomnode.deid.defacing_series import find_faces

    folder = (batch.side / "faces").resolve()
    files = (Path(root, name) for root, _, names in os.walk(batch.source) for name in names)
    try:
        for said, count in sorted(find_faces(files, folder, batch.jobs, batch.limits).items()):
            click.echo(f"head series: {count}: {said}", err=True)
        yield replace(batch, task=replace(batch.task, faces=folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _task(plan: Blueprint, profile: str | None, options: Iterable[str], key_file: Path | None) -> Task:
    """Profile and key. Raises ConfigError: without a key nothing is done, there is no default one."""
    settings = plan.config.deid
    chosen = load_profile(profile or settings.profile).with_options(frozenset(options))
    key_file = key_file or settings.key_file
    if key_file is None:
        raise ConfigError(
            "no key: give --key FILE, [deid] key_file or DICOMNODE_DEID_KEY_FILE; `dicomnode deid key FILE` makes one"
        )
    ProjectKey.load(key_file)
    return Task(chosen, key_file.resolve())


def _limits(plan: Blueprint) -> SandboxLimits:
    """Of the children: those of the node's own reader."""
    detect = plan.config.detect
    return SandboxLimits(
        memory_bytes=detect.reader_memory_mb * _MIB, cpu_s=detect.reader_cpu_s, wall_s=detect.reader_wall_s
    )


def _worked(plan: Blueprint, batch: Run, record: Callable[..., None], *, quiet: bool) -> dict[str, Any]:
    project = ProjectKey.load(batch.task.key_file)
    facts = Facts(secrets.token_hex(8), batch.task.profile, _codes(batch.task.profile, project), project.id)
    account = Account(facts, record, batch.side)
    console = Console(stderr=True)
    columns = (TextColumn("de-identifying"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    shown = console.is_terminal and not quiet
    with Progress(*columns, console=console) if shown else nullcontext() as progress:
        bar = progress.add_task("", total=_count(batch.source)) if progress else None

        def told(_: Entry) -> None:
            if progress is not None and bar is not None:
                progress.advance(bar)

        vault = open_vault(plan.config, project)
        with closing(vault) if vault is not None else nullcontext():
            Batch(batch, account, told, vault).run()
    return account.end()


def _codes(profile: Profile, key: ProjectKey) -> tuple[str, ...]:
    return Deidentifier(profile, Pseudonyms(key)).codes(PixelDecision())


def _count(folder: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(folder))


@contextmanager
def _audit(plan: Blueprint) -> Any:
    """Takes audit rows; the database is made where there is none: nothing is de-identified without a record."""
    try:
        plan.config.node.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"node.data_dir cannot be made: {error.strerror}") from error
    store = plan.store()
    try:
        if store.path.exists():
            check_schema(store)
        else:
            migrate(store)
        yield lambda rows: _recorded(store, rows)
    finally:
        store.close()


def _recorded(store: Store, rows: Iterable[tuple[Event, Mapping[str, Any]]]) -> None:
    with store.write() as session:
        for event, body in rows:
            append(session, event, body)


def _print(report: Mapping[str, Any], side: Path) -> None:
    rows = [("files", report["files"]), ("de-identified", report["done"]), ("held back", report["held"])]
    rows += [("failed", report["failed"]), ("done before", report["resumed"]), ("patients", report["patients"])]
    rows += [("studies", report["studies"]), ("series", report["series"]), ("seconds", report["seconds"])]
    print_table(("", ""), rows)
    if report["reasons"]:
        print_table(("held back because", "files"), sorted(report["reasons"].items()))
    for name in ("notes", "warnings"):
        if report[name]:
            print_table((name, "files" if name == "warnings" else "values"), sorted(report[name].items()))
    codes = ", ".join(report["codes"])
    click.echo(f"profile {report['profile']} {report['profile_version']}: {codes}; report in {side / 'report.json'}")
