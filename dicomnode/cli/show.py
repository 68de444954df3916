"""``dicomnode models`` and ``dicomnode detectors``."""

from __future__ import annotations

from pathlib import Path

import click

from dicomnode.cli.options import blueprint, config_option, json_option, print_json, print_table
from dicomnode.detectors.discovery import discover
from dicomnode.detectors.hosted.digest import digest


@click.group()
def models() -> None:
    """The registry of weights."""


@models.command("list")
@config_option
@json_option
def list_models(config_path: Path | None, as_json: bool) -> int:
    """Every model with version, SHA-256 and licence; exit status 1 when one cannot be used."""
    registry = blueprint(config_path).registry()
    usable, broken = registry.list(), registry.broken()
    if as_json:
        print_json({"models": [model.card.model_dump() for model in usable], "broken": broken})
        return 1 if broken else 0
    for card in (model.card for model in usable):
        click.echo(f"{card.name} {card.version}, for the detector {card.detector}")
        click.echo(f"  SHA-256      {card.sha256}\n  licence      {card.licence}\n  intended use {card.intended_use}\n")
    for folder, reason in broken.items():
        click.echo(f"cannot be used: {folder}: {reason}", err=True)
    return 1 if broken else 0


@models.command("hash")
@click.argument("path", type=click.Path(exists=True, path_type=Path))
def hash_model(path: Path) -> int:
    """The SHA-256 of a model to be hosted, a file or a folder, for its section in the configuration."""
    click.echo(digest(path))
    return 0


@click.group()
def detectors() -> None:
    """The detectors that a route may name."""


@detectors.command("list")
@config_option
@json_option
def list_detectors(config_path: Path | None, as_json: bool) -> int:
    """Every detector, hosted models too, and each that is broken with its reason; exit status 1 when one is broken."""
    found = discover(blueprint(config_path).config.hosted)
    rows = [
        {
            "name": item.name,
            "version": item.version,
            "default_model": item.default_model,
            "description": item.description,
        }
        for item in found.detectors.values()
    ]
    if as_json:
        print_json({"detectors": rows, "broken": dict(found.broken)})
        return 1 if found.broken else 0
    print_table(("detector", "version", "default model", "description"), (row.values() for row in rows))
    for name, reason in found.broken.items():
        click.echo(f"broken: {name}: {reason}", err=True)
    return 1 if found.broken else 0
