"""S11: threads of a sandboxed child: bound like the one that binds them, and not in each other's way."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from dicomnode.sandbox import Sandbox, SandboxLimits
from tests.unit.test_sandbox_system_calls import has_seccomp

MODULE = "tests.unit.sandbox_threads"
SIZE = 5 << 20


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox([f"{MODULE}:{name}" for name in ("early_thread", "many_blocks")], SandboxLimits()) as made:
        yield made


@pytest.mark.skipif(not has_seccomp(), reason="this kernel has no filter of system calls")
def test_a_thread_that_was_there_before_is_bound_too(sandbox: Sandbox) -> None:
    """S11: libraries may start threads when they are imported; the filter holds for all (SECCOMP_FILTER_FLAG_TSYNC)."""
    assert json.loads(sandbox.call(f"{MODULE}:early_thread", None).content) == "refused"


def test_threads_ask_for_memory_while_others_fill_theirs(sandbox: Sandbox) -> None:
    """S11: every block arrives whole, with what its own thread wrote."""
    for _ in range(3):
        blocks = sandbox.call(f"{MODULE}:many_blocks", SIZE).blocks
        assert sorted(block[0] for block in blocks) == list(range(1, 9))
        assert all(block[:] == block[:1] * SIZE for block in blocks)
