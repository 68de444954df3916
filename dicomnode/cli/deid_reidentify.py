"""``dicomnode deid reidentify``."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import click

from dicomnode.audit.actor import actor
from dicomnode.cli.options import blueprint, config_option, inert, json_option, open_store, print_json
from dicomnode.deid.folder_back import OriginalsFolder, give_back_folder
from dicomnode.deid.keys import ProjectKey
from dicomnode.deid.leaving import key_file, open_vault
from dicomnode.deid.reidentify import Sources
from dicomnode.detect.reader import Reader
from dicomnode.errors import ConfigError
from dicomnode.node.originals import SpoolOriginals


@click.command()
@click.argument("source", metavar="IN", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("target", metavar="OUT", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--originals", type=click.Path(file_okay=False, path_type=Path),
    help="Folder with the files as they were before they left. Default: what the node has stored.",
)  # fmt: skip
@config_option
@json_option
def reidentify(source: Path, target: Path, originals: Path | None, config_path: Path | None, *, as_json: bool) -> int:
    """Give results that came back, below IN, their patient's identity again, into OUT.

    Each is found in the vault by its Study and its patient's pseudonym; what is not known beyond doubt is not written,
    and the exit status is 1. Reading the vault leaves an audit row first.
    """
    plan = blueprint(config_path)
    vault = open_vault(plan.config, ProjectKey.load(key_file(plan.config)))
    if vault is None:
        raise ConfigError("[deid.vault] is missing: without a vault nothing can be given back")
    store = open_store(plan)
    with ExitStack() as opened:
        opened.callback(vault.close)
        opened.callback(store.close)
        sources: Sources
        if originals is not None:
            sources = OriginalsFolder(originals)
        else:
            sources = SpoolOriginals(store, plan.spool(), opened.enter_context(Reader(plan.config.detect)))
        account = give_back_folder(source, target, vault, sources, store, actor())
    if as_json:
        held = [{"file": name, "reason": reason} for name, reason in account.held]
        print_json({"done": account.done, "held_back": held})
    else:
        for name, reason in account.held:
            click.echo(f"held back: {inert(name)}: {reason}", err=True)
        click.echo(f"{account.done} results given back, {len(account.held)} held back")
    return 1 if account.held else 0
