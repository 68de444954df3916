"""``dicomnode route``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console

from dicomnode.cli.options import blueprint, config_option, inert, json_option, print_json
from dicomnode.node.rehearse import rehearse


@click.group()
def route() -> None:
    """Rules: try them before they meet patients."""


@route.command("test")
@config_option
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@json_option
def try_route(config_path: Path | None, paths: tuple[Path, ...], as_json: bool) -> int:
    """Say for every Series in PATHS which rule and detector take it, and why the others do not (1: none does)."""
    answers = rehearse(blueprint(config_path), paths)
    if as_json:
        print_json(answers)
    else:
        for answer in answers["series"]:
            _print(Console(), answer)
        if answers["skipped"]:
            click.echo(f"{len(answers['skipped'])} file(s) are not DICOM or cannot be read", err=True)
    return 0 if any(answer["taken"] for answer in answers["series"]) else 1


def _print(console: Console, answer: dict[str, Any]) -> None:
    console.print(f"[bold]{answer['Modality']}[/] {answer['SeriesInstanceUID']} ({answer['n_instances']} instances)")
    for reason in answer["reasons"]:
        mark = "[green]yes[/]" if reason["taken"] else "[red]no [/]"
        text = inert(f"{reason['route']} → {reason['detector']}: {reason['text']}")
        console.print(f"  {mark} {text}", soft_wrap=True)
    if not answer["taken"]:
        console.print(f"  not analysed, because {inert(answer['summary'])}", soft_wrap=True)
