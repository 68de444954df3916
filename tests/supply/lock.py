"""``requirements.lock``: the pins of ``constraints.txt``, each with the SHA-256 of every file of that version."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONSTRAINTS, LOCK = ROOT / "constraints.txt", ROOT / "requirements.lock"
CPU_LOCK = ROOT / "requirements-cpu.lock"
"""torch without CUDA, which is not on PyPI: kept by hand, tried first."""
HEAD = """\
# Made by `make lock` from constraints.txt: every file of each version, for every platform, by SHA-256.
# `make` installs from it with --require-hashes. docs/decisions/0020-locked-dependencies.md says what it covers.
"""
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s\\;]+)", re.MULTILINE)
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def pins(text: str) -> dict[str, str]:
    """Normalised name (PEP 503) to version."""
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in _PIN.findall(text)}


def hashes(text: str) -> dict[str, set[str]]:
    """``name==version`` to the SHA-256 of its files."""
    found = {}
    for part in re.split(r"\n(?=\S)", text):
        match = _PIN.match(part)
        if match:
            name = re.sub(r"[-_.]+", "-", match[1]).lower()
            found[f"{name}=={match[2]}"] = set(_HASH.findall(part))
    return found


def render(found: Mapping[str, set[str]]) -> str:
    """The text of the lock. Raises ValueError for a version without a hash."""
    lines = [HEAD]
    for pin in sorted(found):
        known = sorted(found[pin])
        if not known:
            raise ValueError(f"{pin} has no hash")
        lines.append(f"{pin} \\\n" + " \\\n".join(f"    --hash=sha256:{digest}" for digest in known) + "\n")
    return "".join(lines)


def make_lock(uv: str) -> str:
    """Ask the package index, by ``uv``, for the hashes of what is pinned. Raises CalledProcessError."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "lock.txt"
        command = [uv, "pip", "compile", "--quiet", "--no-deps", "--generate-hashes", "--no-header", "--no-annotate"]
        pinned = Path(folder) / "constraints.in"
        pinned.write_text(CONSTRAINTS.read_text(encoding="utf-8"), encoding="utf-8")
        subprocess.run([*command, "--python-version", "3.11", "--output-file", str(target), str(pinned)], check=True)
        return render(hashes(target.read_text(encoding="utf-8")))
