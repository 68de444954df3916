"""Where the table of a comparison is written, and by which state of the source."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from dicomnode.train.compare import Plan, Row, about_plan
from dicomnode.train.compare_table import markdown

TABLE_FILE = "results.md"


def write_table(plan: Plan, rows: Sequence[Row]) -> Path:
    """Write ``out``/results.md; answers its path."""
    path = plan.out / TABLE_FILE
    plan.out.mkdir(parents=True, exist_ok=True)
    title = f"Methods on {plan.data.name}, split {plan.split} ({plan.recipe.detector})"
    path.write_text(markdown(title, about_plan(plan), rows), encoding="utf-8")
    return path


def commit() -> str:
    """The commit of the source tree that runs, "-dirty" where it was changed; empty outside a git tree."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""
