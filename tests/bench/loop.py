"""From the last Instance received to the last object delivered, as ``dicomnode demo`` sees it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIMIT_S = 900.0


@dataclass(frozen=True, slots=True)
class StudyTime:
    """One phantom study. ``seconds``: from the last Instance to the last object at the PACS; None: not delivered."""

    study: str
    detector: str
    outcome: str
    seconds: float | None
    delivered: str


@dataclass(frozen=True, slots=True)
class Loop:
    """The studies of one demo, and what was not as promised."""

    studies: tuple[StudyTime, ...]
    faults: tuple[str, ...]


def measure_loop(work: Path) -> Loop:
    """Run ``dicomnode demo --json`` and read its account. Raises RuntimeError when it gave none."""
    command = [sys.executable, "-m", "dicomnode", "demo", "--json", "--out", str(work / "demo-out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    try:
        return read_report(json.loads(done.stdout))
    except (ValueError, KeyError) as error:
        raise RuntimeError(f"the demo gave no account:\n{done.stderr[-2000:]}") from error


def read_report(report: dict[str, Any]) -> Loop:
    """The times out of the demo's JSON."""
    wanted = ("study", "detector", "outcome", "seconds", "delivered")
    studies = tuple(StudyTime(**{key: row[key] for key in wanted}) for row in report["rows"])
    return Loop(studies, tuple(report["faults"]))
