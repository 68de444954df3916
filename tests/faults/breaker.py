"""The switch of breaker.c."""

from __future__ import annotations

from pathlib import Path

from tests.faults.shims import build


class Breaker:
    """A disk that fails on demand. ``environment``: for the node that is to have it."""

    def __init__(self, folder: Path) -> None:
        """Build the shim in ``folder``. Raises CalledProcessError."""
        self.control = folder / "breaker"
        self.control.write_text("")
        self.environment = {"LD_PRELOAD": str(build("breaker", folder)), "BREAKER_CONTROL": str(self.control)}

    def fail(self, number: int, below: Path) -> None:
        """Let every change below a path fail with this ``errno``."""
        self._write(f"{number} {below}")

    def mend(self) -> None:
        """Let the disk work again."""
        self._write("")

    def _write(self, text: str) -> None:
        new = self.control.with_suffix(".new")
        new.write_text(text)
        new.replace(self.control)
