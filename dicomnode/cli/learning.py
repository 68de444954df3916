"""Options that ``train``, ``evaluate`` and ``compare`` share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from dicomnode.errors import ConfigError

data_argument = click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))


def machine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--accelerator`` and ``--threads``."""
    command = click.option("--threads", default=1, show_default=True, type=click.IntRange(1, 256), help="CPU threads.")(
        command
    )
    return click.option(
        "--accelerator",
        default="auto",
        show_default=True,
        metavar="auto|cpu|cuda",
        help="auto takes a GPU when there is one.",
    )(command)


@contextmanager
def machine(accelerator: str, threads: int) -> Iterator[str]:
    """The accelerator to use ("cpu", "cuda:0"), with ``threads`` threads in the block. Raises ConfigError."""
    from dicomnode.train import machine as own

    chosen = own.accelerator_of(accelerator)
    with own.threads(threads):
        yield chosen


@contextmanager
def bars(*, shown: bool) -> Iterator[Callable[[str, float], None]]:
    """A function that shows the share of each named step as a bar on the terminal (stderr), if ``shown``."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f} %"))
    console = Console(stderr=True)
    with Progress(*columns, TimeElapsedColumn(), console=console, disable=not shown or not console.is_terminal) as show:
        tasks = {}

        def tell(name: str, share: float) -> None:
            if name not in tasks:
                tasks[name] = show.add_task(name, total=1.0)
            show.update(tasks[name], completed=share)

        yield tell


def parsed_settings(pairs: Sequence[str]) -> dict[str, object]:
    """``key=value`` pairs; values are read as TOML where they are (numbers, true, lists), else as text."""
    import tomllib

    found: dict[str, object] = {}
    for pair in pairs:
        key, sign, text = pair.partition("=")
        if not sign or not key.strip():
            raise ConfigError(f"--set wants key=value, not {pair!r}")
        try:
            found[key.strip()] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            found[key.strip()] = text
    return found
