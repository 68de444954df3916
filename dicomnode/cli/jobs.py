"""``dicomnode jobs``."""

from __future__ import annotations

from pathlib import Path

import click

from dicomnode.cli.options import blueprint, config_option, json_option, open_store, print_json, print_table
from dicomnode.console.status import dead_letters
from dicomnode.errors import Permanent
from dicomnode.node.requeue import requeue_dead_job
from dicomnode.store.clock import running


@click.group()
def jobs() -> None:
    """Dead letters: list them, give them a new life."""


@jobs.command("list")
@config_option
@json_option
def list_jobs(config_path: Path | None, as_json: bool) -> None:
    """The dead letters, all of them."""
    with open_store(blueprint(config_path)).read() as session:
        letters = dead_letters(session)
    if as_json:
        print_json(letters)
        return
    if not letters:
        click.echo("no dead letters")
        return
    rows = ((letter["job"], letter["kind"], letter["attempts"], letter["reason"]) for letter in letters)
    print_table(("job", "kind", "attempts", "reason"), rows)


@jobs.command()
@config_option
@click.option("--all", "everything", is_flag=True, help="Every dead letter.")
@click.option("--kind", help="Every dead letter of this kind: detect, deliver, commit, …")
@click.argument("job", type=int, nargs=-1)
def requeue(config_path: Path | None, everything: bool, kind: str | None, job: tuple[int, ...]) -> None:
    """Give dead jobs JOB … a new life, or all of them."""
    if bool(job) == (everything or kind is not None):
        raise click.UsageError("name the jobs, or give --all or --kind")
    store = open_store(blueprint(config_path))
    clock = running(store)
    if not job:
        with store.read() as session:
            job = tuple(item["job"] for item in dead_letters(session) if kind in (None, item["kind"]))
        if not job:
            raise Permanent(f"there is no dead job{f' of kind {kind}' if kind else ''}")
    for number in job:
        requeue_dead_job(store, number, clock())
        click.echo(f"job {number} is ready again")
