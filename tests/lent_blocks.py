"""Who has memory of a sandbox, and for how long."""

from __future__ import annotations

import mmap
import weakref
from types import ModuleType

import pytest

from dicomnode.sandbox.lent import lent_memory


def blocks_of(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[mmap.mmap]]:
    """Every block that ``module`` makes from now on."""
    found: list[weakref.ref[mmap.mmap]] = []

    def told(size: int) -> mmap.mmap:
        memory = lent_memory(size)
        found.append(weakref.ref(memory))
        return memory

    monkeypatch.setattr(module, "lent_memory", told)
    return found
