"""``dicomnode jobs``."""

from __future__ import annotations

import time
from pathlib import Path

import click

from dicomnode.cli.options import blueprint, config_option, json_option, open_store, print_json, print_table
from dicomnode.console.status import read_status
from dicomnode.node.requeue import requeue_dead_job


@click.group()
def jobs() -> None:
    """Dead letters: list them, give them a new life."""


@jobs.command("list")
@config_option
@json_option
def list_jobs(config_path: Path | None, as_json: bool) -> None:
    """The dead letters."""
    plan = blueprint(config_path)
    letters = read_status(plan.config, open_store(plan), plan.spool(), time.time())["dead_letters"]
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
@click.argument("job", type=int)
def requeue(config_path: Path | None, job: int) -> None:
    """Give dead job JOB a new life."""
    requeue_dead_job(open_store(blueprint(config_path)), job, time.time())
    click.echo(f"job {job} is ready again")
