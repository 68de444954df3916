"""``dicomnode audit verify``, ``key`` and ``archive``: the log as evidence."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dicomnode.audit import append
from dicomnode.audit.actor import actor
from dicomnode.audit.archive import archive
from dicomnode.audit.events import Event
from dicomnode.audit.evidence import Asked, Findings, examine
from dicomnode.audit.signing import PublicKey, SigningKey
from dicomnode.audit.verification import Progress as Tell
from dicomnode.cli.audit_reconcile import reconcile
from dicomnode.cli.options import blueprint, config_option, json_option, open_store, print_json
from dicomnode.config import Config
from dicomnode.errors import ConfigError, Permanent
from dicomnode.node.checkpoints import Checkpoints
from dicomnode.store.engine import Store
from dicomnode.store.snapshot import looking_at

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@config_option
@click.option(
    "--checkpoint", "files", multiple=True, type=_FILE, help="Compare with this file. Default: those of [audit]."
)
@click.option(
    "--public-key", "key_files", multiple=True, type=_FILE, help="Trust only this key (PEM). Default: [audit]."
)
@click.option(
    "--archive", "archives", multiple=True, type=_FOLDER, help="Prove this archive and that the log goes on from it."
)
@click.option("--database", type=_FILE, help="Verify this copy, which nobody writes; nothing is recorded then.")
@json_option
def verify(
    config_path: Path | None,
    files: tuple[Path, ...],
    key_files: tuple[Path, ...],
    archives: tuple[Path, ...],
    database: Path | None,
    as_json: bool,
) -> int:
    """Check the whole hash chain; names the first bad row. Exit status 1 when it is not as it was written."""
    plan = blueprint(config_path)
    config = plan.config
    keys = [PublicKey.load(path) for path in key_files] or _own_keys(config)
    places = files or config.audit.checkpoint_files
    asked = Asked(places, archives, keys, config.node.ae_title, strict=bool(key_files) and bool(places))
    with _progress() as tell:
        if database is not None:
            with looking_at(database) as session:
                found = examine(session, asked, tell)
        else:
            store = open_store(plan)
            with store.read() as session:
                found = examine(session, asked, tell)
    answer = _answer(found, places)
    if as_json:
        print_json(answer)
    else:
        _tell(answer, found)
    if database is None:
        _record(store, found)
    return 0 if found.ok else 1


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def key(file: Path) -> None:
    """Make the key that signs checkpoints, and print its public half; of a key that is there, only print that."""
    made = not file.exists()
    found = SigningKey.make(file) if made else SigningKey.load(file)
    words = "made" if made else "it was there already"
    click.echo(f'{file}: {words}; [audit] signing_key_file = "{file}"; key id {found.public.id}', err=True)
    click.echo("the public key, for whoever verifies; keep it away from this machine:", err=True)
    click.echo(found.public.pem, nl=False)


@click.command("archive")
@config_option
@click.option("--before", required=True, help="Rows of before this time (ISO 8601, UTC) go.")
@click.argument("out", type=click.Path(path_type=Path))
@json_option
def archive_rows(config_path: Path | None, before: str, out: Path, as_json: bool) -> None:
    """Move the oldest rows to the new folder OUT, signed; the chain goes on from where they end."""
    plan = blueprint(config_path)
    audit = plan.config.audit
    if audit.signing_key_file is None:
        raise ConfigError("audit.signing_key_file: an archive has to be signed: make a key with dicomnode audit key")
    signing, store = SigningKey.load(audit.signing_key_file), open_store(plan)
    facts = {"retention_days": audit.retention_days, "origin": plan.config.node.ae_title, "key": signing}
    with _progress() as tell:
        done = archive(store, out, _time(before), **facts, user=actor(), progress=tell)  # type: ignore[arg-type]
    if done.folder is not None:
        Checkpoints(plan.config, store).now()
    if as_json:
        print_json({"folder": done.folder, "first": done.first, "last": done.last, "removed": done.removed})
    elif done.folder is None:
        click.echo(f"there are no rows of before {before}")
    else:
        click.echo(f"rows {done.first} to {done.last} are in {done.folder}, signed by {signing.public.id}")


CHAIN_COMMANDS = (verify, key, archive_rows, reconcile)
"""What the group ``audit`` gets from here."""


def _own_keys(config: Config) -> list[PublicKey]:
    """The keys that the configuration trusts: the one that signs, and those that did before."""
    audit = config.audit
    own = [SigningKey.load(audit.signing_key_file).public] if audit.signing_key_file else []
    return own + [PublicKey.load(path) for path in audit.public_key_files]


def _time(value: str) -> datetime:
    try:
        moment = datetime.fromisoformat(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not an ISO 8601 date or time", param_hint="--before") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@contextlib.contextmanager
def _progress() -> Iterator[Tell | None]:
    """A bar on a terminal, nothing in a pipe."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn("rows"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("rows", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _answer(found: Findings, places: Sequence[Path]) -> dict[str, Any]:
    counts = found.checkpoints
    return {
        "ok": found.ok,
        "rows": found.verdict.rows,
        "head": found.verdict.head.hex(),
        "first_bad": found.verdict.first_bad,
        "reason": found.reason,
        "archived": found.verdict.archived,
        "archives_complete": found.from_genesis,
        "checkpoint": str(places[0]) if places else None,
        "checkpoint_files": [str(path) for path in places],
        "checkpoints": found.lines,
        "signed": counts.signed,
        "unsigned": counts.unsigned,
        "signature_unchecked": counts.unchecked,
        "checkpoints_archived": counts.archived,
        "checkpoints_of_others": counts.foreign,
    }


def _tell(answer: dict[str, Any], found: Findings) -> None:
    if not answer["ok"]:
        where = f"row {answer['first_bad']}: " if answer["first_bad"] is not None else ""
        click.echo(f"NOT ok: {where}{answer['reason']} ({answer['rows']} rows of the chain are good)", err=True)
        return
    counts = found.checkpoints
    agree = f"{counts.agree} checkpoint(s) agree" if answer["checkpoint"] else "no checkpoint to compare with"
    notes = (
        (counts.signed, "signed by a key that is trusted"),
        (counts.unsigned, "unsigned"),
        (counts.unchecked, "signed, but no public key was given"),
        (counts.archived, "of archived rows, not compared: give --archive"),
        (counts.foreign, "of another node, not compared"),
    )
    said = ", ".join(f"{count} {what}" for count, what in notes if count)
    click.echo(f"ok: {answer['rows']} rows, head {answer['head']}, {agree}" + (f" ({said})" if said else ""))
    if answer["archived"]:
        proved = "proved to the first row" if found.from_genesis else "not at hand, or not all: give --archive"
        click.echo(f"rows up to {answer['archived']} are archived, {proved}")


def _record(store: Store, found: Findings) -> None:
    """A failed verification is a security alert; on a damaged chain the row may be refused, which is no worse."""
    kind = Event.AUDIT_LOG_USED if found.ok else Event.SECURITY_ALERT
    body = {"command": "verify", "ok": found.ok, "reason": found.reason, **actor()}
    try:
        with store.write() as session:
            append(session, kind, body)
    except Permanent:
        sys.stderr.write("this verification could not be recorded: the log takes no more rows\n")
