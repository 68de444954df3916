"""``dicomnode doctor``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console

from dicomnode.cli.options import blueprint, config_option, inert, json_option, print_json
from dicomnode.node.doctor import diagnose

_COLOURS = {"ok": "green", "warning": "yellow", "fault": "red"}


@click.command()
@config_option
@json_option
def doctor(config_path: Path | None, as_json: bool) -> int:
    """Check configuration, disk, database, weights, accelerator, ports and peers; exit status 1 on a fault."""
    console, faults, answers = Console(), 0, []
    for diagnosis in diagnose(blueprint(config_path)):
        faults += diagnosis.level == "fault"
        answers.append(asdict(diagnosis))
        if not as_json:
            colour = _COLOURS[diagnosis.level]
            console.print(
                f"[{colour}]{diagnosis.level:8}[/]{inert(f'{diagnosis.check}: {diagnosis.found}')}", soft_wrap=True
            )
            if diagnosis.mend:
                console.print(f"        → {inert(diagnosis.mend)}", soft_wrap=True)
    if as_json:
        print_json({"ok": not faults, "checks": answers})
    return 1 if faults else 0
