"""``dicomnode audit``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console

from dicomnode.audit import AuditFilter, export_csv, find
from dicomnode.cli.audit_account import ACCOUNT_COMMANDS
from dicomnode.cli.audit_chain import CHAIN_COMMANDS
from dicomnode.cli.audit_export import EXPORT_COMMANDS
from dicomnode.cli.audit_options import about, answer, asked, filter_options, form_option, target_of, used
from dicomnode.cli.options import config_option, json_option, print_json, visible
from dicomnode.errors import Permanent

LIST_COLUMNS = ("seq", "time (UTC)", "event", "about")


@click.group()
def audit() -> None:
    """Ask the audit log: what came, which model saw it, what went where, and who looked."""


@audit.command("list")
@config_option
@filter_options
@click.option("--limit", type=int, default=200, show_default=True, help="At most so many rows, the newest.")
@form_option
def list_rows(config_path: Path | None, form: str, limit: int, **filters: Any) -> None:
    """List audit rows, oldest first."""
    config, store = used(config_path, "list", filters)
    wanted = asked(config, limit, **filters)
    with store.read() as session:
        if form == "csv":
            with target_of(None) as target:
                export_csv(session, wanted, target)
            return
        rows = list(find(session, wanted))
    cells = ((row["seq"], row["ts"][:23], row["kind"], about(row["body"])) for row in rows)
    answer(form, LIST_COLUMNS, cells, rows)


@audit.command()
@config_option
@click.argument("seq", type=int)
@json_option
def show(config_path: Path | None, seq: int, as_json: bool) -> None:
    """Show one row with everything in it."""
    _, store = used(config_path, "show", {"seq": str(seq)})
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


for _command in (*ACCOUNT_COMMANDS, *EXPORT_COMMANDS, *CHAIN_COMMANDS):
    audit.add_command(_command)
