"""``python -m tests.supply lock|audit``."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from tests.supply.audit import audit as ask
from tests.supply.lock import LOCK, hashes, make_lock


@click.group()
def main() -> None:
    """Dependencies: lock them, ask about them."""


@main.command()
@click.option("--uv", default="uv", show_default=True, help="The program uv.")
def lock(uv: str) -> None:
    """Write requirements.lock from constraints.txt."""
    text = make_lock(uv)
    LOCK.write_text(text, encoding="utf-8")
    known = hashes(text)
    click.echo(f"{len(known)} versions, {sum(map(len, known.values()))} files: {LOCK.name}")


@main.command()
@click.option("--pip-audit", default="pip-audit", show_default=True, help="The program pip-audit.")
@click.option("--requirements", type=click.Path(exists=True, path_type=Path), default=LOCK)
def audit(pip_audit: str, requirements: Path) -> None:
    """Ask for known vulnerabilities. Exit status 1 for one without a valid exception; unknown is said, not failed."""
    verdict = ask(pip_audit, requirements, datetime.now(UTC).date())
    click.echo(verdict.text)
    raise SystemExit(1 if verdict.open else 0)


if __name__ == "__main__":
    main()
