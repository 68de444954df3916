"""``dicomnode audit``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from sqlalchemy.orm import Session

from dicomnode.audit import AuditFilter, append, check_against, export_csv, find, verify
from dicomnode.audit.events import Event
from dicomnode.cli.options import blueprint, config_option, json_option, open_store, print_json, print_table, visible
from dicomnode.errors import Permanent
from dicomnode.store.engine import Store
from dicomnode.store.snapshot import damage


def filter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The filters of list and export."""
    for option in (
        click.option("--until", help="Rows before this time (ISO 8601, UTC)."),
        click.option("--since", help="Rows from this time on (ISO 8601, UTC)."),
        click.option("--event", help="Only this kind of row, for example inference."),
        click.option("--study", help="Only rows of this Study Instance UID."),
        click.option("--patient", help="Only rows of this Patient ID."),
    ):
        command = option(command)
    return command


@click.group()
def audit() -> None:
    """Ask the audit log: what came, which model saw it, what went where."""


@audit.command("list")
@config_option
@filter_options
@click.option("--limit", type=int, default=200, show_default=True, help="At most so many rows, the newest.")
@json_option
def list_rows(config_path: Path | None, as_json: bool, limit: int, **filters: Any) -> None:
    """List audit rows, oldest first."""
    store = _used(config_path, "list", filters)
    with store.read() as session:
        rows = list(find(session, AuditFilter(limit=limit, **filters)))
    if as_json:
        print_json(rows)
        return
    cells = ((row["seq"], row["ts"][:23], row["kind"], _about(row["body"])) for row in rows)
    print_table(("seq", "time (UTC)", "event", "about"), cells)


@audit.command()
@config_option
@click.argument("seq", type=int)
@json_option
def show(config_path: Path | None, seq: int, as_json: bool) -> None:
    """Show one row with everything in it."""
    store = _used(config_path, "show", {"seq": str(seq)})
    with store.read() as session:
        rows = list(find(session, AuditFilter(seq=seq)))
    if not rows:
        raise Permanent(f"there is no audit row {seq}")
    if as_json:
        print_json(rows[0])
        return
    console = Console()
    for key in ("seq", "ts", "kind", "prev", "hash"):
        console.print(f"{key:5} {visible(str(rows[0][key]))}", markup=False, highlight=False, soft_wrap=True)
    console.print_json(data=rows[0]["body"])


@audit.command("verify")
@config_option
@click.option(
    "--checkpoint", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Compare with this file."
)
@json_option
def verify_chain(config_path: Path | None, checkpoint: Path | None, as_json: bool) -> int:
    """Check the whole hash chain; names the first bad row. Exit status 1 when it is not as it was written."""
    plan = blueprint(config_path)
    checkpoint = checkpoint or plan.config.audit.checkpoint_path
    store = open_store(plan)
    with store.read() as session:
        verdict = verify(session)
        lines, cut = _checkpoints(session, checkpoint) if checkpoint and verdict.ok else (0, "")
        cut = cut or (_hidden(session) if verdict.ok else "")
    ok = verdict.ok and not cut
    answer = {
        "ok": ok,
        "rows": verdict.rows,
        "head": verdict.head.hex(),
        "first_bad": verdict.first_bad,
        "reason": verdict.reason or cut,
        "checkpoint": str(checkpoint) if checkpoint else None,
        "checkpoints": lines,
    }
    if as_json:
        print_json(answer)
    else:
        _tell(answer)
    _record_verify(store, answer)
    return 0 if ok else 1


def _hidden(session: Session) -> str:
    """What an index of the log does not tell: a question by patient or study would miss those rows."""
    faults = damage(session, "audit")
    return f"the rows are as they were written, an index of them is not: {'; '.join(faults)}" if faults else ""


def _checkpoints(session: Session, path: Path) -> tuple[int, str]:
    """How many checkpoints ``path`` holds, and what disagrees with them; a file without any proves nothing."""
    try:
        lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    except OSError as error:
        return 0, f"checkpoints {path}: {error.strerror}"
    return len(lines), check_against(session, lines) if lines else f"checkpoints {path}: the file is empty"


def _tell(answer: dict[str, Any]) -> None:
    if answer["ok"]:
        agree = (
            f"{answer['checkpoints']} checkpoint(s) agree" if answer["checkpoint"] else "no checkpoint to compare with"
        )
        click.echo(f"ok: {answer['rows']} rows, head {answer['head']}, {agree}")
        return
    where = f"row {answer['first_bad']}: " if answer["first_bad"] is not None else ""
    click.echo(f"NOT ok: {where}{answer['reason']} ({answer['rows']} rows of the chain are good)", err=True)


@audit.command()
@config_option
@filter_options
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write here instead of stdout.")
@json_option
def export(config_path: Path | None, output: Path | None, as_json: bool, **filters: Any) -> None:
    """Export rows as CSV (or JSON with --json)."""
    store = _used(config_path, "export", filters)
    with store.read() as session:
        if as_json:
            print_json(list(find(session, AuditFilter(**filters))))
        elif output is None:
            export_csv(session, AuditFilter(**filters), sys.stdout)
        else:
            with output.open("w", encoding="utf-8", newline="") as target:
                count = export_csv(session, AuditFilter(**filters), target)
            click.echo(f"{count} rows in {output}")


def _used(config_path: Path | None, what: str, filters: dict[str, Any]) -> Store:
    """Reading the log is itself logged, before anything is printed (PS3.15 A.5.3.2)."""
    store = open_store(blueprint(config_path))
    for name in ("since", "until"):
        _refuse_no_time(name, filters.get(name))
    asked = {key: value for key, value in filters.items() if value is not None}
    with store.write() as session:
        append(session, Event.AUDIT_LOG_USED, {"command": what, "filters": asked})
    return store


def _refuse_no_time(name: str, value: str | None) -> None:
    try:
        datetime.fromisoformat(value or "2000-01-01")
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not an ISO 8601 date or time", param_hint=f"--{name}") from error


def _record_verify(store: Store, answer: dict[str, Any]) -> None:
    """A failed verification is a security alert; on a damaged chain the row may be refused, which is no worse."""
    kind = Event.AUDIT_LOG_USED if answer["ok"] else Event.SECURITY_ALERT
    try:
        with store.write() as session:
            append(session, kind, {"command": "verify", "ok": answer["ok"], "reason": answer["reason"]})
    except Permanent:
        click.echo("this verification could not be recorded: the log takes no more rows", err=True)


def _about(body: Any) -> str:
    if not isinstance(body, dict):
        return str(body)[:80]
    keys = ("PatientID", "StudyInstanceUID", "SOPInstanceUID", "peer", "detector", "outcome", "reason", "command")
    return "  ".join(f"{key}={body[key]}" for key in keys if body.get(key) not in (None, ""))
