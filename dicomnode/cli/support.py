"""``dicomnode support-bundle``."""

from __future__ import annotations

from pathlib import Path

import click

from dicomnode.cli.options import blueprint, config_option
from dicomnode.node.support import write_bundle


@click.command("support-bundle")
@click.argument("target", metavar="OUT.zip", type=click.Path(path_type=Path))
@click.option(
    "--log", "logs", multiple=True, type=click.Path(path_type=Path),
    help="File with log lines of the node (its stderr), such as an extract of the journal. May be given often.",
)  # fmt: skip
@config_option
def support_bundle(target: Path, logs: tuple[Path, ...], config_path: Path | None) -> None:
    """Versions, configuration, state, schema and logs in one file, for somebody who helps; nothing about a patient.

    Identifiers that the database knows are taken out of every text, UIDs are replaced. Look through it all the same
    before you give it away: free text that somebody typed is in no list.
    """
    for name in write_bundle(blueprint(config_path), target, logs):
        click.echo(name)
