"""``python -m tests.docs_conformance [--write]``: is docs/conformance.md what the code says? Or make it so."""

from __future__ import annotations

from pathlib import Path

import click

from tests.docs_conformance.document import DOCUMENT, current


@click.command()
@click.option("--write", is_flag=True, help="Write the tables into the document.")
def main(write: bool) -> None:
    """Compare the tables of docs/conformance.md with the code; exit status 1 when they differ."""
    old, new = DOCUMENT.read_text(encoding="utf-8"), current()
    if write:
        DOCUMENT.write_text(new, encoding="utf-8")
    elif old != new:
        raise click.ClickException(f"{Path('docs') / DOCUMENT.name} is not current; run with --write")
    click.echo("docs/conformance.md is current")


if __name__ == "__main__":
    main()
