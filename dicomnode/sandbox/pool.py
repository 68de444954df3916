"""Some children that serve calls from any thread; a broken one is replaced."""

from __future__ import annotations

import queue
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

from dicomnode.sandbox.limits import SandboxLimits
from dicomnode.sandbox.process import Answer, SandboxProcess
from dicomnode.sandbox.spare import Spare


class Sandbox:
    """Runs ``functions`` ("module:name", imported by the children and by nobody else) on untrusted input.

    ``children``: how many calls may run at once; further ones wait. A child lives through many calls and is replaced
    when it broke a limit, died or has served ``limits.calls``. Children end with this object, and with this process
    however that ends.
    """

    def __init__(self, functions: Sequence[str], limits: SandboxLimits, children: int = 1) -> None:
        self._functions, self.limits = tuple(functions), limits
        self._spare = Spare()
        self._starter = ThreadPoolExecutor(1, "sandbox")
        self._places: queue.LifoQueue[SandboxProcess | None] = queue.LifoQueue()
        for _ in range(children):
            self._places.put(None)

    def start(self) -> None:
        """Start one child now, so that the first call does not wait for it. Raises Transient."""
        child = self._places.get()
        try:
            child = self._lively(child)
        finally:
            self._places.put(child)

    def call(self, function: str, request: Any) -> Answer:
        """Run ``function`` of ``functions`` on ``request`` (JSON) in a child.

        Raises ValueError for another function; Permanent with the reason, free of patient data, when the function
        refuses its input or breaks a limit; Transient when it does, or when no child can be had.
        """
        if function not in self._functions:
            raise ValueError(f"{function} is none of the sandbox's functions")
        child = self._places.get()
        try:
            child = self._lively(child)
            return child.call(function, request)
        finally:
            self._places.put(child)

    def prepare(self, size: int) -> None:
        """Make a block of ``size`` bytes for a call to come, while nobody waits for it (``Spare``); returns at once."""
        self._spare.prepare(size)

    def close(self) -> None:
        """End all children that are idle; nothing can be called any more."""
        for child in [self._places.get() for _ in range(self._places.qsize())]:
            if child is not None:
                child.end()
            self._places.put(None)
        self._starter.shutdown()
        self._spare.drop()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _lively(self, child: SandboxProcess | None) -> SandboxProcess:
        """``child``, or a new one in its place, started in a thread that lives as long as this object."""
        if child is not None and child.usable:
            return child
        if child is not None:
            child.end()
        return self._starter.submit(SandboxProcess, self._functions, self.limits, self._spare).result()
