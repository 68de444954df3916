"""``dicomnode drift``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from dicomnode.cli.options import blueprint, config_option, json_option, open_store, print_json, print_table
from dicomnode.detect.drift import read_drift


@click.command()
@config_option
@json_option
def drift(config_path: Path | None, as_json: bool) -> None:
    """Have scores moved? Each sender, scanner, protocol and model against its first series."""
    plan = blueprint(config_path)
    strata = read_drift(open_store(plan), plan.config)
    if as_json:
        print_json(strata)
        return
    if not strata:
        click.echo("no series was analysed yet")
        return
    rows = (
        (
            item["CallingAETitle"],
            item["detector"],
            item["scanner"][:8],
            item["protocol"][:8],
            item["series"],
            _state(item, plan.config.drift.min_series),
            "; ".join(f"{name}: {text}" for name, text in item["alarms"].items()),
        )
        for item in strata
    )
    print_table(("sender", "detector", "scanner", "protocol", "series", "state", "alarms"), rows)


def _state(item: dict[str, Any], wanted: int) -> str:
    progress = f" ({item['reference']} of {wanted})" if item["reference"] < wanted else ""
    return f"{item['state']}{progress}"
