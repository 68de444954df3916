"""``dicomnode status``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from dicomnode.cli.options import blueprint, config_option, json_option, open_store, print_json
from dicomnode.console.status import read_status

_COLOURS = {"findings": "red", "failed": "red", "no findings": "green", "not analysed": "yellow", "pending": "cyan"}


@click.command()
@config_option
@json_option
def status(config_path: Path | None, as_json: bool) -> None:
    """What the node is doing: Series, outcomes, jobs, deliveries, dead letters."""
    plan = blueprint(config_path)
    state = read_status(plan.config, open_store(plan), plan.spool(), time.time())
    if as_json:
        print_json(state)
        return
    console = Console()
    received, disk = state["received"], state["disk"]
    alive = [item["role"] for item in state["processes"] if item["alive"]]
    console.print(f"{state['node']['ae_title']}  running: {', '.join(sorted(set(alive))) or 'nothing'}")
    console.print("  ".join(f"{key.replace('_', ' ')} {value}" for key, value in received.items()))
    console.print(
        f"disk free {disk['free_bytes'] / 1e9:.1f} GB (intake stops below {disk['min_free_bytes'] / 1e9:.1f} GB)"
    )
    console.print(_series(state["recent"]))
    for letter in state["dead_letters"]:
        console.print(f"[red]dead letter[/] job {letter['job']} ({letter['kind']}): {letter['reason']}")


def _series(recent: list[dict[str, Any]]) -> Table:
    table = Table("Modality", "Study Instance UID", "Images", "State", "Outcome", "Score", "Detector", "Delivered", "s")
    for item in recent:
        for result in item["results"] or [{}]:
            table.add_row(*_cells(item, result))
    return table


def _cells(item: dict[str, Any], result: dict[str, Any]) -> list[str]:
    outcome = result.get("outcome", "")
    colour = _COLOURS.get(outcome, "default")
    reason = f": {result['reason']}" if outcome in ("not analysed", "failed") else ""
    score = f"{result['score']:.3f} / {result['threshold']:.3f}" if result.get("score") is not None else ""
    seconds = result.get("seconds_from_last_instance")
    sent = ", ".join(
        f"{peer} {count} {state}"
        for peer, states in result.get("objects", {}).items()
        for state, count in states.items()
    )
    return [
        item["Modality"],
        item["StudyInstanceUID"],
        str(item["instances"]),
        f"{item['state']} (generation {item['generation']})",
        f"[{colour}]{outcome}[/]{reason}",
        score,
        result.get("detector") or "",
        sent,
        f"{seconds:.1f}" if seconds is not None else "",
    ]
