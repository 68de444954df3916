"""Nothing that a user can call, see or alarm on is undocumented."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from dicomnode.audit.events import Event
from dicomnode.cli import COMMANDS, cli
from dicomnode.console.metrics import METRICS
from dicomnode.detectors.discovery import discover
from dicomnode.models.registry import ModelRegistry

ROOT = Path(__file__).parents[2]
OPERATORS = (ROOT / "docs" / "operators.md").read_text()
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_is_in_the_operators_guide(name: str) -> None:
    assert f"`dicomnode {name}" in OPERATORS


def test_every_subcommand_is_documented() -> None:
    known = OPERATORS + (ROOT / "docs" / "auditors.md").read_text()
    context = click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        for inner in command.commands if isinstance(command, click.Group) else ():
            assert f"dicomnode {name} {inner}" in known


@pytest.mark.parametrize("name", sorted(METRICS))
def test_every_metric_is_in_the_operators_guide(name: str) -> None:
    assert f"`{name}`" in OPERATORS


@pytest.mark.parametrize("name", sorted(discover().detectors))
def test_every_detector_is_in_the_readme(name: str) -> None:
    assert f"`{name}`" in README


def test_every_shipped_model_is_in_the_models_guide() -> None:
    guide = (ROOT / "docs" / "models.md").read_text()
    names = [model.name for model in ModelRegistry().list()]
    assert names
    assert all(f"`{name}`" in guide for name in names)


@pytest.mark.parametrize("event", sorted(Event))
def test_every_audit_event_is_in_the_auditors_guide(event: Event) -> None:
    assert f"`{event}`" in (ROOT / "docs" / "auditors.md").read_text()


@pytest.mark.parametrize("page", sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("deploy/*.md")]))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
