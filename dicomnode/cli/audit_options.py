"""What the commands that ask the audit log share: filters, the record of who asks, the forms of an answer."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

import click

from dicomnode.audit import AuditFilter, append
from dicomnode.audit.actor import actor
from dicomnode.audit.events import Event
from dicomnode.audit.spreadsheet import write_csv
from dicomnode.cli.options import blueprint, open_store, print_json, print_table
from dicomnode.config import Config
from dicomnode.store.engine import Store

_RECORDED = {name: f"of_{name}" for name in ("user", "model", "outcome", "peer")}
"""Filters whose names rows use for their own facts: an index must not take a question for an answer."""


def filter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The filters; several together take the rows that fit every one."""
    for option in (
        click.option("--scan", is_flag=True, help="Look into every row, not only where the node's tables lead."),
        click.option("--until", help="Rows before this time (ISO 8601, UTC)."),
        click.option("--since", help="Rows from this time on (ISO 8601, UTC)."),
        click.option("--outcome", help="Only rows with this outcome, for example findings."),
        click.option("--model", help="Only this model: NAME, NAME@VERSION, or the SHA-256 of its weights."),
        click.option("--event", multiple=True, help="Only this kind of row, for example inference. May be repeated."),
        click.option("--user", help="Only what this account did."),
        click.option("--peer", help="Only rows of this peer, by its name or AE title."),
        click.option("--instance", help="Only rows that name this SOP Instance UID."),
        click.option("--series", help="Only rows that name this Series Instance UID."),
        click.option("--study", help="Only rows of this Study Instance UID."),
        click.option("--accession", help="Only rows of this Accession Number."),
        click.option("--patient", help="Only rows of this Patient ID."),
    ):
        command = option(command)
    return command


def period_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--since`` and ``--until``."""
    for option in (
        click.option("--until", help="Before this time (ISO 8601, UTC)."),
        click.option("--since", help="From this time on (ISO 8601, UTC)."),
    ):
        command = option(command)
    return command


def form_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--format``: table, csv or json; ``--json`` for the last."""
    shown = click.option(
        "--format", "form", type=click.Choice(("table", "csv", "json")), default="table", show_default=True
    )(command)
    return click.option("--json", "form", flag_value="json", help="The same as --format json.")(shown)


def asked(config: Config, limit: int | None = None, **filters: Any) -> AuditFilter:
    """The question. A peer is asked for by all its names: that in the configuration and its AE title."""
    if filters.get("peer"):
        filters["peer"] = names_of_peer(config, filters["peer"])
    filters["event"] = filters.get("event") or None
    return AuditFilter(limit=limit, **filters)


def names_of_peer(config: Config, name: str) -> tuple[str, ...]:
    """``name`` and what else rows may call the same peer."""
    found = [name]
    for peer in config.entities:
        if name in (peer.name, peer.ae_title):
            found += [peer.name, peer.ae_title]
    return tuple(dict.fromkeys(found))


def used(config_path: Path | None, what: str, filters: dict[str, Any]) -> tuple[Config, Store]:
    """Reading the log is itself logged, before anything is printed (PS3.15 A.5.3.2): who, what, and what for."""
    plan = blueprint(config_path)
    store = open_store(plan)
    for name in ("since", "until"):
        _refuse_no_time(name, filters.get(name))
    kept = {_RECORDED.get(key, key): value for key, value in filters.items() if value not in (None, False, ())}
    with store.write() as session:
        append(session, Event.AUDIT_LOG_USED, {"command": what, "filters": kept, **actor()})
    return plan.config, store


def _refuse_no_time(name: str, value: str | None) -> None:
    try:
        datetime.fromisoformat(value or "2000-01-01")
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not an ISO 8601 date or time", param_hint=f"--{name}") from error


def answer(form: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], whole: Any = None) -> None:
    """Print ``rows`` in this form. ``whole``: what JSON has instead of them."""
    if form == "json":
        print_json([dict(zip(columns, row, strict=True)) for row in rows] if whole is None else whole)
    elif form == "csv":
        write_csv(columns, rows, sys.stdout)
    else:
        print_table(columns, rows)


@contextmanager
def target_of(output: Path | None) -> Iterator[TextIO]:
    """``output``, or stdout."""
    if output is None:
        yield sys.stdout
        return
    with output.open("w", encoding="utf-8", newline="") as file:
        yield file


def about(body: Any) -> str:
    """What a row is about, in one line."""
    if not isinstance(body, dict):
        return str(body)[:80]
    sender = ("peer",) if body.get("peer") else ("CallingAETitle", "address")
    model = ("detector", "model", "model_version", "outcome", "score")
    keys = ("PatientID", "StudyInstanceUID", "SOPInstanceUID", *sender, *model, "reason", "command", "user")
    said = [f"{key}={body[key]}" for key in keys if body.get(key) not in (None, "")]
    filters = body.get("filters")
    if isinstance(filters, dict):
        said += [f"{key}={value}" for key, value in filters.items()]
    return "  ".join(said)
