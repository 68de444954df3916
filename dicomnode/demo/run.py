"""The demo: play the scanner, run a node, play the PACS, show what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicomnode.audit import AuditFilter, export_csv, verify
from dicomnode.config import Peer, load_config
from dicomnode.console.status import read_status
from dicomnode.deliver.send import send_paths
from dicomnode.demo.pacs import AE_TITLE, demo_pacs
from dicomnode.demo.subprocess_node import RunningNode, running_node
from dicomnode.node.build import Blueprint
from dicomnode.store.clock import running
from dicomnode.store.engine import Store

SCANNER = "DEMOSCANNER"
NODE = "DICOMNODE"
LIMIT_S = 900.0
_SETTLED = ("findings", "no findings", "not analysed", "failed")

_CONFIG = """
[node]
ae_title = "{node}"
host = "127.0.0.1"
port = 0
data_dir = "{data}"
console_port = 0

[[peer]]
name = "scanner"
ae_title = "{scanner}"
host = "127.0.0.1"
port = {port}
may_send = true

[[peer]]
name = "pacs"
ae_title = "{pacs}"
host = "127.0.0.1"
port = {port}

[[route]]
name = "chest x-ray"
when = {{ Modality = ["CR", "DX"] }}
detector = "cxr"
send_to = ["pacs"]

[[route]]
name = "head CT"
when = {{ Modality = "CT" }}
detector = "ct-head"
send_to = ["pacs"]

[[route]]
name = "brain FLAIR"
when = {{ Modality = "MR" }}
detector = "mr-brain-flair"
send_to = ["pacs"]
"""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class DemoOutcome:
    """What the demo saw. ``series``: the node's own account; ``delivered``: files that the PACS holds."""

    series: tuple[dict[str, Any], ...]
    delivered: tuple[Path, ...]
    audit_rows: int
    audit_fault: str
    sent: int
    refused: int


def play(sources: Sequence[Path], out: Path, work: Path, progress: Progress) -> DemoOutcome:
    """Send ``sources`` through a fresh node whose data lies in ``work``; results and audit CSV go to ``out``.

    ``progress(stage, done, total)`` is called as things move. Raises Permanent when the node does not start.
    """
    with demo_pacs(out / "results") as pacs:
        config = work / "demo.toml"
        names = {"node": NODE, "scanner": SCANNER, "pacs": AE_TITLE}
        config.write_text(_CONFIG.format(data=work / "data", port=pacs.port, **names), encoding="utf-8")
        blueprint = Blueprint(*load_config(config))
        progress("starting the node", 0, 1)
        with running_node(config, out / "node.log") as node:
            progress("starting the node", 1, 1)
            sent, refused = _scan(sources, node, progress)
            _wait(blueprint, progress)
        series = tuple(_state(blueprint)["recent"])
        rows, fault = _audit(blueprint.store(), out / "audit.csv")
        return DemoOutcome(series, tuple(dict.fromkeys(pacs.received)), rows, fault, sent, refused)


def _scan(sources: Sequence[Path], node: RunningNode, progress: Progress) -> tuple[int, int]:
    """Play the scanner; returns how many objects were stored and how many were not."""
    target = Peer(name="node", ae_title=NODE, host="127.0.0.1", port=node.port)
    good = bad = 0
    for status in send_paths(sources, target, SCANNER):
        good += status.ok
        bad += not status.ok
        progress("scanner sends", good + bad, 0)
    return good, bad


def _state(blueprint: Blueprint) -> dict[str, Any]:
    store = blueprint.store()
    return read_status(blueprint.config, store, blueprint.spool(), running(store)())


def _wait(blueprint: Blueprint, progress: Progress) -> None:
    """Until every Series has an outcome and every object is delivered or given up, or the limit is reached."""
    until = time.monotonic() + LIMIT_S
    while time.monotonic() < until:
        state = _state(blueprint)
        done = sum(_settled(series) for series in state["recent"])
        total = len(state["recent"])
        progress("series analysed and delivered", done, total)
        if total and done == total:
            return
        time.sleep(0.3)


def _settled(series: dict[str, Any]) -> bool:
    results = [result for result in series["results"] if result["generation"] == series["generation"]]
    return bool(results) and all(
        result["outcome"] in _SETTLED and not any("waiting" in states for states in result["objects"].values())
        for result in results
    )


def _audit(store: Store, target: Path) -> tuple[int, str]:
    """Verify the log, then write it as CSV."""
    with store.read() as session:
        verdict = verify(session)
        with target.open("w", encoding="utf-8", newline="") as file:
            rows = export_csv(session, AuditFilter(), file)
    store.close()
    return rows, verdict.reason
