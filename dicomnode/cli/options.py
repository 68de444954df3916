"""Options that several commands share."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from dicomnode.config import load_config, parse_config
from dicomnode.errors import ConfigError
from dicomnode.node.build import Blueprint
from dicomnode.store.engine import Store

DEFAULT_CONFIG = Path("conf/dicomnode.toml")
_WIDE = 1000
_UNSEEN = re.compile(r"[\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]")
"""Controls that JSON leaves as they are: C1, which terminals obey, and what turns the direction of a line."""


def config_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--config``: the file, else ``$DICOMNODE_CONFIG``, else conf/dicomnode.toml, else the embedded defaults."""
    return click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path),
        envvar="DICOMNODE_CONFIG",
        help="Configuration file. Default: conf/dicomnode.toml where it exists, else the embedded defaults.",
    )(command)


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--json``: for programs."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def blueprint(config_path: Path | None) -> Blueprint:
    """The configuration that is in force. Raises ConfigError."""
    if config_path is None and DEFAULT_CONFIG.exists():
        config_path = DEFAULT_CONFIG
    config, source = parse_config("", "embedded defaults") if config_path is None else load_config(config_path)
    return Blueprint(config, source)


def open_store(plan: Blueprint) -> Store:
    """The node's database. Raises ConfigError when there is none yet."""
    store = plan.store()
    if not store.path.exists():
        raise ConfigError(f"there is no database at {store.path}: has the node run with this configuration?")
    return store


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    click.echo(as_json(value))


def as_json(value: Any) -> str:
    """``value`` as JSON that a terminal shows and does not obey."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def print_table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """A table on stdout. UIDs stay whole; markup and control characters in a cell are shown, not obeyed."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDE)
    table = Table(box=SIMPLE_HEAD)
    for title in head:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*(Text(visible(str(cell))) for cell in row))
    console.print(table)


def visible(value: str) -> str:
    """``value`` with control characters written as escapes, so that a terminal does not obey what a peer sent."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in value)


def inert(value: str) -> str:
    """``value`` for a line of rich markup: neither markup nor control characters in it are obeyed."""
    return escape(visible(value))
