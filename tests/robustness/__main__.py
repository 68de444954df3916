"""``python -m tests.robustness FOLDER_OR_TARS``: files through a running node, and the table of what became of each."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from dicomnode.demo.phantoms import make_ct_head, make_dx_chest, make_mr_flair
from tests.acceptance.node_process import NodeProcess
from tests.bench.document import with_section
from tests.bench.machine import look as look_at_machine
from tests.robustness.corpus import Sample, gather
from tests.robustness.document import TITLE, result, said
from tests.robustness.run import Fate, Health, HonestPeer, Rows, judge, look, running_node, send_all, wait_finished
from tests.robustness.table import by_category

WARM_LIMIT_S = 300.0


@click.command()
@click.argument("sources", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--category", "categories", multiple=True, help="Only categories that contain this text.")
@click.option("--node", "settings", multiple=True, help='A line of the node\'s [receive], as "processes = 2".')
@click.option("--limit", "limit_s", default=1800.0, show_default=True, help="Longest wait for outcomes, in seconds.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the table into this document.")
@click.option("--keep", type=click.Path(file_okay=False, path_type=Path), help="Work here, and leave the node's log.")
@click.option("--json", "as_json", is_flag=True, help="Print what became of each file as JSON.")
def main(
    sources: tuple[Path, ...],
    categories: tuple[str, ...],
    settings: tuple[str, ...],
    limit_s: float,
    output: Path | None,
    keep: Path | None,
    as_json: bool,
) -> None:
    """Send every file to a node; exit 1 when one of its promises did not hold."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the node ends with us
    with tempfile.TemporaryDirectory(prefix="dicomnode-robustness-") as folder:
        work = keep or Path(folder)
        (work / "corpus").mkdir(parents=True)
        machine = look_at_machine(work)
        samples = gather(sources, work / "corpus")
        samples = [one for one in samples if not categories or any(text in one.category for text in categories)]
        with running_node(work, "\n".join(settings)) as node:
            _warm(node, work / "warm")
            fates, health = _send(node, samples, limit_s)
            code = node.stop()
    click.echo(f"{by_category(fates)}\n\n{said(health)}", err=as_json)
    if output is not None:
        before = output.read_text(encoding="utf-8")
        output.write_text(with_section(before, TITLE, result(fates, health, machine)), encoding="utf-8")
    if as_json:
        click.echo(json.dumps(_json(fates, health)))
    sys.exit(1 if code or health.faults else 0)


def _warm(node: NodeProcess, folder: Path) -> None:
    """One honest study for each detector first, so that what is loaded on first use is loaded."""
    samples = []
    for number, make in enumerate((make_ct_head, make_dx_chest, make_mr_flair)):
        paths = make(seed=number + 1).write(folder / str(number))
        samples += [Sample(path.name, "warm", path) for path in paths]
    fates = send_all(node.port, samples, apart=False)
    bad = [fate.answers for fate in fates if not fate.stored]
    if bad or wait_finished(Rows(node), WARM_LIMIT_S):
        raise click.ClickException(f"the node does not take honest studies: {bad[:3]}")


def _send(node: NodeProcess, samples: Sequence[Sample], limit_s: float) -> tuple[list[Fate], Health]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    rows, before, honest = Rows(node), look(node), HonestPeer(node.port)
    honest.start()
    with Progress(*columns, console=Console(stderr=True)) as bars:
        sending = bars.add_task("files sent", total=len(samples))
        fates = send_all(node.port, samples, lambda: bars.advance(sending))
        left = wait_finished(rows, limit_s)
    honest.stop()
    for fate in fates:
        rows.resolve(fate)
    return fates, judge(before, look(node), honest, fates, left, honest_limit_s=1.0)


def _json(fates: Sequence[Fate], health: Health) -> dict[str, Any]:
    files = [
        {
            "name": fate.sample.name,
            "category": fate.sample.category,
            "answers": fate.answers,
            "outcomes": fate.outcomes,
            "reasons": fate.reasons,
            "seconds": round(fate.seconds, 3),
            "analysis_s": round(fate.analysis_s, 2),
        }
        for fate in fates
    ]
    told = asdict(health)
    for when in ("before", "after"):
        told[when]["pids"] = sorted(told[when]["pids"])
    return {"health": told, "files": files}


if __name__ == "__main__":
    main()
