"""``dicomnode status``."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from dicomnode.cli.options import blueprint, config_option, inert, json_option, open_store, print_json
from dicomnode.console.certificates import certificate_troubles
from dicomnode.console.status import read_status, troubles
from dicomnode.store.clock import running

_COLOURS = {"findings": "red", "failed": "red", "no findings": "green", "not analysed": "yellow", "pending": "cyan"}


@click.command()
@config_option
@json_option
@click.option("--check", is_flag=True, help="Exit 1 when somebody has to look: dead letters, silent processes, …")
def status(config_path: Path | None, as_json: bool, check: bool) -> None:
    """What the node is doing: Series, outcomes, jobs, deliveries, dead letters."""
    plan = blueprint(config_path)
    store = open_store(plan)
    state = read_status(plan.config, store, plan.spool(), running(store)())
    if as_json:
        print_json(state)
    else:
        _print(state)
    if check and (found := troubles(state)):
        click.echo(f"look at: {'; '.join(found)}", err=True)
        sys.exit(1)


def _print(state: dict[str, Any]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    received, disk = state["received"], state["disk"]
    alive = sorted({item["role"] for item in state["processes"] if item["alive"]})
    console.print(f"[bold]{state['node']['ae_title']}[/]  running: {', '.join(alive) or 'nothing'}")
    console.print("  ".join(f"{key.replace('_', ' ')}: {value}" for key, value in received.items()))
    console.print(
        f"disk: {disk['free_bytes'] / 1e9:.1f} GB free, intake stops below {disk['min_free_bytes'] / 1e9:.1f} GB"
    )
    for peer, states in state["commitments"].items():
        counts = ", ".join(f"{count} {name}" for name, count in sorted(states.items()))
        console.print(f"storage commitment by {inert(peer)}: {counts}")
    for item in state["drift"]["alarms"]:
        moved = ", ".join(item["alarms"])
        console.print(f"[red]drift[/] {inert(item['detector'])} from {inert(item['CallingAETitle'])}: {moved}")
    for trouble in certificate_troubles(state["certificates"]):
        console.print(f"[red]{inert(trouble)}[/]")
    if state["stages"]:
        stages = ", ".join(_stage(name, times) for name, times in state["stages"].items())
        console.print(f"stages, p50 / p95 of the newest: {stages}")
    for kind, queue in state["queues"].items():
        console.print(f"queue {kind}: {queue['due']} due, {queue['later']} later, oldest {queue['oldest_s']:.0f} s")
    for series in state["recent"]:
        _print_series(console, series)
    for item in state["retrying"]:
        to = f" to {inert(item['destination'])}" if item["destination"] else ""
        attempts = f"tried {item['attempts']} time(s)"
        console.print(
            f"[yellow]tried again[/] job {item['job']} ({item['kind']}{to}), {attempts}: {inert(item['reason'])}"
        )
    for letter in state["dead_letters"]:
        reason = inert(letter["reason"])
        console.print(f"[red]dead letter[/] job {letter['job']} ({letter['kind']}): {reason}")
        console.print(f"  try again with: dicomnode jobs requeue {letter['job']}")


def _stage(name: str, times: dict[str, Any]) -> str:
    middle, late = (f"{value:.2f} s" if value is not None else "none" for value in (times["p50"], times["p95"]))
    return f"{name} {middle} / {late}"


def _print_series(console: Console, series: dict[str, Any]) -> None:
    at = datetime.fromtimestamp(series["last_received_at"], UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    again = f", generation {series['generation']}" if series["generation"] > 1 else ""
    gaps = ", incomplete" if series["incomplete"] else ""
    images = f"{series['instances']} image(s) from {inert(series['CallingAETitle'])}"
    console.print(f"\n[bold]{inert(series['Modality'])}[/] {images}, {at}: {series['state']}{again}{gaps}")
    console.print(f"  study {series['StudyInstanceUID']}", style="dim")
    for result in series["results"]:
        console.print(f"  {_outcome(result)}")
        if timed := [f"{name} {took:.2f} s" for name, took in (result["stages"] or {}).items() if took is not None]:
            console.print(f"    {', '.join(timed)}", style="dim")


def _outcome(result: dict[str, Any]) -> str:
    outcome = result["outcome"]
    gate = f" by the {result['gate']} gate" if result["gate"] else ""
    parts = [f"[{_COLOURS.get(outcome, 'default')}]{outcome}[/]{gate}"]
    unanswered = outcome in ("not analysed", "failed")
    if unanswered:
        parts.append(f"because {inert(result['reason'])}")
    if result["score"] is not None:
        parts.append(f"score {result['score']:.3f} (threshold {result['threshold']:.3f})")
    if result["model"]:
        parts.append(f"by {result['detector']}, {result['model']} {result['model_version']}")
    what = " (status page)" if unanswered else ""
    parts += [
        f"{inert(peer)}: {count} {state}{what}"
        for peer, states in result["objects"].items()
        for state, count in states.items()
    ]
    seconds = result["seconds_from_last_instance"]
    return "; ".join(parts) + (f" {seconds:.1f} s after the last instance" if seconds is not None else "")
