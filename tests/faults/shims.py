"""The shims, built from their C files where a test needs them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")


def build(name: str, folder: Path) -> Path:
    """Compile ``name``.c into a library for LD_PRELOAD in ``folder``. Raises CalledProcessError."""
    library = folder / f"{name}.so"
    source = Path(__file__).with_name(f"{name}.c")
    command = ["gcc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", str(library), str(source), "-lpthread"]
    subprocess.run(command, check=True, timeout=240)
    return library
