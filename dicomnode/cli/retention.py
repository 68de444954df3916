"""``dicomnode retention``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from sqlalchemy import func, select

from dicomnode.cli.options import blueprint, config_option, json_option, open_store, print_json, print_table
from dicomnode.node.retention import DAY_S, Verdict, ask_for_retention, survey
from dicomnode.store.clock import running
from dicomnode.store.tables import RemovalRow


@click.command()
@config_option
@json_option
@click.option("--dry-run", is_flag=True, help="Only tell what would go, and why the others stay.")
def retention(config_path: Path | None, as_json: bool, dry_run: bool) -> None:
    """Have the node remove Studies that it no longer needs, as [retention] says; or tell which those are."""
    plan = blueprint(config_path)
    store = open_store(plan)
    now, settings = running(store)(), plan.config.retention
    if not dry_run:
        if not settings.active:
            click.echo("retention is off: set [retention] days or reserve_bytes")
            return
        ask_for_retention(store, now)
        click.echo("asked for: the worker of the node removes what may go")
        return
    free = plan.spool().free_bytes()
    with store.read() as session:
        verdicts = list(survey(session, plan.config, free, now, everything=True))
        listed = session.scalar(select(func.count()).select_from(RemovalRow)) or 0
    studies = [_described(verdict, now) for verdict in verdicts]
    if as_json:
        print_json({"active": settings.active, "free_bytes": free, "files_to_remove": listed, "studies": studies})
        return
    _print(studies, active=settings.active)


def _described(verdict: Verdict, now: float) -> dict[str, Any]:
    study = verdict.study
    return {
        "StudyInstanceUID": study.StudyInstanceUID,
        "days": round((now - study.newest_at) / DAY_S, 2),
        "instances": study.instances,
        "bytes": study.size,
        "goes": verdict.goes,
        "why": verdict.why,
    }


def _print(studies: list[dict[str, Any]], *, active: bool) -> None:
    if not active:
        click.echo("retention is off: nothing goes")
    head = ("study", "days", "images", "MB", "", "because")
    print_table(head, (_row(item) for item in studies))
    going = [item for item in studies if item["goes"]]
    click.echo(f"{len(going)} of {len(studies)} studies would go, {sum(item['bytes'] for item in going) / 1e6:.1f} MB")


def _row(item: dict[str, Any]) -> tuple[object, ...]:
    size, fate = f"{item['bytes'] / 1e6:.1f}", "goes" if item["goes"] else "stays"
    return item["StudyInstanceUID"], item["days"], item["instances"], size, fate, item["why"]
