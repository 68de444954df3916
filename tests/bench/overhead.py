"""``python -m tests.bench.overhead``: what the node itself costs, from the evidence of completeness to delivered.

A real node process gets a head CT by storescu, analyses it with a detector that answers at once (``instant``), and
sends the result to storescp. ``settle_s`` is 0: with the end of the association the Series is evidently complete.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest.mock import patch

import click
from sqlalchemy import func, select

from dicomnode.config.results import ProfileName
from dicomnode.console.stages import quantile
from dicomnode.store.engine import Store
from dicomnode.store.tables import AssignmentRow, AssociationRow, DeliveryRow, DerivedRow, SeriesRow, StagesRow
from tests.acceptance.node_process import NodeProcess
from tests.bench.document import DOCUMENT, with_section
from tests.bench.instant import ENTRY, NAME, Phantom
from tests.bench.machine import look
from tests.bench.receivers import NO_NAGLE, StorescpReceiver
from tests.docs_conformance.markdown import table
from tests.plugin import install_plugin

ROOT = Path(__file__).parents[2]
TITLE = "Overhead"
TARGET_S = 2.0
LIMIT_S = 300.0
WARM_UP = 2
"""Runs that are not counted: what a process does once in its life is not the overhead of a study."""
STAGES = {
    "complete": "association released to series complete",
    "route": "complete to routed",
    "wait": "routed to claimed",
    "load": "images read and decoded",
    "inference": "the detector",
    "report": "objects made, checked, stored",
    "write": "the rest of the worker's time, and the transaction",
    "deliver": "result stored to all delivered",
    "overhead": "association released to all delivered, without the detector",
}
ROUTE = f'[[route]]\nname = "all CT"\nwhen = {{ Modality = "CT" }}\ndetector = "{NAME}"\nsend_to = ["pacs"]\n'


@dataclass(frozen=True, slots=True)
class Overhead:
    """Seconds of each stage by run, and what one result was: objects by kind, bytes of all."""

    slices: int
    profile: str
    runs: tuple[dict[str, float], ...]
    objects: dict[str, int]
    size: int

    def quantile(self, stage: str, share: float) -> float:
        """The least time of ``stage`` that at least ``share`` of the runs do not exceed."""
        found = quantile(sorted(run[stage] for run in self.runs), share)
        assert found is not None
        return found


def measure_overhead(work: Path, slices: int, runs: int, profile: ProfileName) -> Overhead:
    """Send ``runs`` studies one after the other, and some before that are not counted. Raises RuntimeError."""
    phantom, done, receiver = Phantom(slices), [], StorescpReceiver(work / "pacs")
    receiver.start()
    try:
        with _node(work, receiver.port, profile) as node:
            store = Store(f"sqlite:///{node.database}")
            for number in range(-WARM_UP, runs):
                source = work / f"source{number}"
                phantom.write(source, f"{os.getpid()}-{number}")
                _send(node, source)
                shutil.rmtree(source)
                one = _delivered(store)
                if number >= 0:
                    done.append(one)
            objects, size = _result(store)
            store.close()
    finally:
        receiver.stop()
    return Overhead(slices, profile, tuple(done), objects, size)


@contextmanager
def _node(work: Path, pacs_port: int, profile: str) -> Iterator[NodeProcess]:
    """A node whose only detector is ours; the peer's AE title is of no interest to storescp."""
    routes = f'[results]\nprofile = "{profile}"\n{ROUTE}'
    node = NodeProcess(work / "node", pacs_port, assemble="settle_s = 0", routes=routes)
    path = os.pathsep.join(
        [str(install_plugin(work / "plugin", NAME, ENTRY)), str(ROOT), os.environ.get("PYTHONPATH", "")]
    )
    with patch.dict(os.environ, {"PYTHONPATH": path}):
        node.start()
    try:
        yield node
        node.stop()
    finally:
        node.close()


def _send(node: NodeProcess, folder: Path) -> None:
    command = ["storescu", "-aet", "SCANNER", "-aec", "NODE", "+sd", "127.0.0.1", str(node.port), str(folder)]
    sent = subprocess.run(command, env=NO_NAGLE, capture_output=True, text=True, timeout=LIMIT_S)
    if sent.returncode:
        raise RuntimeError(f"storescu: {sent.stderr[-500:]}")


def _delivered(store: Store) -> dict[str, float]:
    """The stages of the newest Assignment, once all of it is delivered."""
    until = time.monotonic() + LIMIT_S
    while time.monotonic() < until:
        with store.read() as session:
            series = session.scalars(select(SeriesRow).order_by(SeriesRow.id.desc()).limit(1)).one()
            newest = select(AssignmentRow).where(AssignmentRow.series_id == series.id)
            row = session.scalars(newest.order_by(AssignmentRow.id.desc()).limit(1)).first()
            stages = session.get(StagesRow, row.id) if row is not None else None
            if row is not None and row.outcome == "failed":
                raise RuntimeError(f"the analysis failed: {row.reason}")
            if row is not None and stages is not None and stages.total is not None:
                association = session.get_one(AssociationRow, series.association_id)
                return _stages(association, series, row, stages)
        time.sleep(0.2)
    raise RuntimeError("the study was not delivered in time")


def _stages(association: AssociationRow, series: SeriesRow, row: AssignmentRow, took: StagesRow) -> dict[str, float]:
    evident = max(association.ended_at or 0.0, series.last_received_at)
    delivered = took.received_at + (took.total or 0.0)
    worker = (row.finished_at or 0.0) - (row.started_at or 0.0)
    known = {
        stage: getattr(took, stage) or 0.0 for stage in ("route", "wait", "load", "inference", "report", "deliver")
    }
    rest = worker - sum(known[stage] for stage in ("load", "inference", "report"))
    overhead = delivered - evident - known["inference"]
    return {"complete": (series.completed_at or 0.0) - evident, **known, "write": rest, "overhead": overhead}


def _result(store: Store) -> tuple[dict[str, int], int]:
    """What the newest Assignment's destination got, by kind, and its bytes."""
    with store.read() as session:
        newest = session.scalar(select(func.max(DerivedRow.assignment_id)))
        query = select(DerivedRow.kind, func.count(), func.sum(DerivedRow.size)).join(DeliveryRow)
        rows = session.execute(query.where(DerivedRow.assignment_id == newest).group_by(DerivedRow.kind)).all()
    return {kind: count for kind, count, _ in rows}, sum(size for _, _, size in rows)


def section(found: Sequence[Overhead], about: str) -> str:
    """The section of docs/benchmarks.md."""
    what = (
        "What the node itself costs: a head CT is sent by storescu to a node process with `settle_s = 0`, analysed by "
        "a detector that answers at once with one finding on 20 slices, and sent to storescp. The clock runs from the "
        "end of the association, when the series is evidently complete, to the last object stored by the receiver. "
        f"Target for 300 slices: {TARGET_S:g} s (p95)."
    )
    parts = [f"## {TITLE}", f"Written by `make bench-overhead`. {about}", what]
    for one in found:
        what = ", ".join(f"{count} {kind.upper()}" for kind, count in one.objects.items())
        parts.append(
            f"{one.slices} slices, profile `{one.profile}`: {what}, {one.size / 1e6:.0f} MB; {len(one.runs)} studies, "
            f"one after the other."
        )
        rows = [
            (stage, text, f"{one.quantile(stage, 0.5):.3f} s", f"{one.quantile(stage, 0.95):.3f} s")
            for stage, text in STAGES.items()
        ]
        parts.append(table(("stage", "from, to", "p50", "p95"), rows))
    return "\n\n".join(parts)


@click.command()
@click.option("--slices", type=click.IntRange(3), default=300, show_default=True)
@click.option("--runs", type=click.IntRange(1), default=12, show_default=True, help="Studies that are counted.")
@click.option("--profile", default="sc-sr", show_default=True, help="Which objects are sent.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), default=DOCUMENT, help="The document.")
@click.option("--dry", is_flag=True, help="Leave the document as it is.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def main(slices: int, runs: int, profile: ProfileName, output: Path, dry: bool, as_json: bool) -> None:
    """Measure the stages around a detector that takes no time; write docs/benchmarks.md."""
    with tempfile.TemporaryDirectory(prefix="dicomnode-bench-") as folder:
        machine = look(Path(folder))
        found = measure_overhead(Path(folder), slices, runs, profile)
    about = f"{machine.date}; {machine.cpu}, {machine.cores} cores, load average at the start {machine.load:.1f}."
    text = section([found], about)
    if not dry:
        output.write_text(with_section(output.read_text(encoding="utf-8"), TITLE, text), "utf-8")
        click.echo(f"written: {output}", err=True)
    click.echo(json.dumps(asdict(found), indent=1) if as_json else text)


if __name__ == "__main__":
    main()
