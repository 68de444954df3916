"""``dicomnode deid vault``: the way back, its key and its copy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from dicomnode.audit import append
from dicomnode.audit.actor import actor
from dicomnode.audit.events import Event
from dicomnode.cli.options import blueprint, config_option, json_option, open_store, print_json
from dicomnode.deid.keys import ProjectKey
from dicomnode.deid.leaving import key_file, open_vault
from dicomnode.deid.vault import Vault
from dicomnode.errors import ConfigError
from dicomnode.store.engine import Store


@click.group()
def vault() -> None:
    """The encrypted file that leads from pseudonyms back to patients."""


@vault.command()
@config_option
@json_option
def status(config_path: Path | None, *, as_json: bool) -> None:
    """How many rows the vault has, and which key seals it. Opens no row."""
    with _opened(config_path) as (opened, _):
        facts = {"rows": len(opened), "vault_key": opened.key_id}
    if as_json:
        print_json(facts)
    else:
        click.echo(f"{facts['rows']} rows, sealed with key {facts['vault_key']}")


@vault.command()
@config_option
def rekey(config_path: Path | None) -> None:
    """Seal every row with a new key, which replaces the old one in its file. The node may run meanwhile."""
    with _opened(config_path) as (opened, store):
        before = opened.key_id
        with store.write() as session:
            append(session, Event.VAULT_READ, {**actor(), "purpose": "re-keying", "vault_key": before, "rows": "all"})
        rows = opened.rekey()
        click.echo(f"{rows} rows sealed with key {opened.key_id}; the old key is gone from its file")


@vault.command()
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@config_option
def backup(target: Path, config_path: Path | None) -> None:
    """Copy the vault as it is now to the new file OUT, while others write. The key is not in it."""
    with _opened(config_path) as (opened, _):
        opened.copy(target)
    click.echo(f"{target}: sealed like the vault; keep its key elsewhere")


@contextmanager
def _opened(config_path: Path | None) -> Iterator[tuple[Vault, Store]]:
    plan = blueprint(config_path)
    opened = open_vault(plan.config, ProjectKey.load(key_file(plan.config)))
    if opened is None:
        raise ConfigError("[deid.vault] is missing: the vault is off")
    store = open_store(plan)
    try:
        yield opened, store
    finally:
        opened.close()
        store.close()
