"""``dicomnode audit reconcile``."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from dicomnode.audit import append
from dicomnode.audit.actor import actor
from dicomnode.audit.events import Event
from dicomnode.cli.options import blueprint, config_option, json_option, open_store, print_json, print_table
from dicomnode.node.reconciliation import alert, compare_all

_COUNTS = ("begun", "ended", "told", "recorded", "refused")


@click.command()
@config_option
@click.option("--since", help="Only what happened from this time on (ISO 8601, UTC). Default: everything.")
@json_option
def reconcile(config_path: Path | None, since: str | None, as_json: bool) -> int:
    """Compare the log with the database and the spool; exit status 1 and a security alert when they differ."""
    plan = blueprint(config_path)
    store, spool = open_store(plan), plan.spool()
    found = compare_all(store, spool, _seconds(since), files=since is None)
    if found.differences:
        alert(store, found.differences)
    with store.write() as session:
        facts = {"command": "reconcile", "differences": len(found.differences), "since": since}
        append(session, Event.AUDIT_LOG_USED, {**facts, **actor()})
    if as_json:
        differences = [{"kind": item.kind, **item.about} for item in found.differences]
        print_json({"studies": found.studies, "peers": found.peers, "differences": differences})
    else:
        print_table(
            ("peer", *_COUNTS), ((peer, *(counts[name] for name in _COUNTS)) for peer, counts in found.peers.items())
        )
        for item in found.differences:
            click.echo(f"{item.kind}: {' '.join(f'{key}={value}' for key, value in item.about.items())}", err=True)
        click.echo(f"{found.studies} studies, {len(found.differences)} difference(s)")
    return 1 if found.differences else 0


def _seconds(since: str | None) -> float | None:
    if since is None:
        return None
    try:
        moment = datetime.fromisoformat(since)
    except ValueError as error:
        raise click.BadParameter(f"{since!r} is not an ISO 8601 date or time", param_hint="--since") from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
