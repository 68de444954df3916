"""Known vulnerabilities of what is pinned: asked for, or said to be unknown; never passed in silence.

pip-audit ends with "No known vulnerabilities found" and status 0 also when the service knew none of the packages; so
its report is read, not its exit status.
"""

from __future__ import annotations

import json
import subprocess
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
EXCEPTIONS = ROOT / "docs" / "dependency-exceptions.toml"
SERVICES = ("pypi", "osv")
LIMIT_S = 300


@dataclass(frozen=True)
class Exemption:
    """A known vulnerability that we live with until a date, and why."""

    id: str
    package: str
    version: str
    until: date
    reason: str


@dataclass(frozen=True)
class Verdict:
    """``open``: vulnerabilities without a valid exception. ``unknown``: packages that nobody could be asked about."""

    asked: int
    unknown: tuple[str, ...]
    open: tuple[str, ...]
    excused: tuple[str, ...]

    @property
    def text(self) -> str:
        """For people."""
        lines = [f"VULNERABLE: {one}" for one in self.open] + [f"excused: {one}" for one in self.excused]
        if self.unknown:
            which = ", ".join(self.unknown[:5]) + (" …" if len(self.unknown) > 5 else "")
            lines.append(f"COULD NOT BE ASKED: {len(self.unknown)} of {self.asked + len(self.unknown)} ({which})")
        if self.asked:
            lines.append(f"{self.asked} packages asked about, {len(self.open)} open vulnerabilities")
        return "\n".join(lines)


def exemptions(path: Path = EXCEPTIONS) -> list[Exemption]:
    """The written exceptions. Raises TypeError for an entry that lacks something."""
    raw = tomllib.loads(path.read_text(encoding="utf-8")).get("exception", [])
    return [Exemption(**entry) for entry in raw]


def judge(dependencies: Iterable[Mapping[str, Any]], excused: Sequence[Exemption], today: date) -> Verdict:
    """What pip-audit's report means. An exception counts for its version, and to its date."""
    asked, unknown, still_open, forgiven = 0, [], [], []
    for one in dependencies:
        name = str(one["name"])
        if "vulns" not in one:
            unknown.append(name)
            continue
        asked += 1
        for found in one["vulns"]:
            ids = {found["id"], *found.get("aliases", ())}
            said = f"{name} {one['version']}: {found['id']}"
            valid = [e for e in excused if e.id in ids and (e.package, e.version) == (name, one["version"])]
            kept = next((e for e in valid if e.until >= today), None)
            (still_open if kept is None else forgiven).append(said if kept is None else f"{said} until {kept.until}")
    return Verdict(asked, tuple(unknown), tuple(still_open), tuple(forgiven))


def report(pip_audit: str, requirements: Path, service: str) -> list[dict[str, Any]]:
    """The packages as ``service`` answers for them; empty when it does not answer at all."""
    command = [pip_audit, "--requirement", str(requirements), "--no-deps", "--disable-pip", "--format", "json"]
    command += ["--progress-spinner", "off", "--vulnerability-service", service, "--timeout", "10"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
        found: list[dict[str, Any]] = json.loads(answer.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError, TypeError):
        return []
    return found


def audit(pip_audit: str, requirements: Path, today: date) -> Verdict:
    """Ask the first service that knows the packages; none: everything is unknown."""
    from tests.supply.lock import pins

    names = tuple(pins(requirements.read_text(encoding="utf-8")))
    verdict = Verdict(0, names, (), ())
    for service in SERVICES:
        found = judge(report(pip_audit, requirements, service), exemptions(), today)
        if found.asked > verdict.asked:
            verdict = found
        if verdict.asked and not verdict.unknown:
            break
    return verdict
