"""S10, S11: what a sandboxed function breaks is told as a reason, costs the parent nothing, and the next call works."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from dicomnode.errors import Permanent, Transient
from dicomnode.sandbox import Sandbox, SandboxLimits
from tests.unit import sandbox_functions

MODULE = "tests.unit.sandbox_functions"
FUNCTIONS = [
    f"{MODULE}:{name}"
    for name, value in vars(sandbox_functions).items()
    if getattr(value, "__module__", "") == MODULE and callable(value)
]
LIMITS = SandboxLimits(memory_bytes=128 << 20, cpu_s=2, wall_s=60.0, answer_bytes=10_000, shared_bytes=1 << 20)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(FUNCTIONS, LIMITS) as made:
        yield made


def call(sandbox: Sandbox, name: str, request: object = None) -> object:
    return json.loads(sandbox.call(f"{MODULE}:{name}", request).content)


def test_a_call_gets_its_request_and_answers_json(sandbox: Sandbox) -> None:
    """S10: the way of every received file; the same child serves many calls."""
    request = {"text": "é", "numbers": [1, 2.5, None]}
    assert call(sandbox, "echo", request) == request
    assert call(sandbox, "process") == call(sandbox, "process") != os.getpid()


def test_arrays_come_through_memory_that_the_parent_lends(sandbox: Sandbox) -> None:
    """S11: bytes arrive where they were written, and are the parent's own to change."""
    first, second = sandbox.call(f"{MODULE}:arrays", None).blocks
    assert (first[:5], first[4097:4101], len(first)) == (b"begin", b"page", 5000)
    assert (second[9_998:], second[0]) == (b"\7\x08", 0)
    first[0:1] = b"B"
    assert first[:5] == b"Begin"


def test_threads_of_a_child_do_not_write_into_each_other() -> None:
    """S11: images are decoded side by side; each one's bytes arrive whole, whatever the others send meanwhile."""
    size = 5 << 20
    with Sandbox(FUNCTIONS, replace(LIMITS, shared_bytes=8 * size)) as wide:
        block = wide.call(f"{MODULE}:many_writers", size).blocks[0]
        assert [set(block[at * size : (at + 1) * size]) for at in range(8)] == [{at + 1} for at in range(8)]
        assert call(wide, "echo", 1) == 1


@pytest.mark.parametrize(
    ("name", "request_", "reason"),
    [
        ("eat", 1 << 30, "the reader needed more than 128 MiB of memory"),
        ("spin", None, "the reader computed for more than 2 s"),
        ("crash", None, "the reader crashed (SIGSEGV)"),
        ("leave", None, "the reader ended without an answer"),
        ("much", None, "the images need more than 1 MiB of memory"),
        ("astray", (1, 0, 1), "the reader gave an answer that makes no sense"),
        ("astray", (0, 99, 2), "the reader gave an answer that makes no sense"),
        ("astray", (0, (1 << 64) - 1, 1), "the reader gave an answer that makes no sense"),
        ("garbage", "d\0\0\0\1\0", "the reader gave an answer that makes no sense"),
        ("garbage", "d\xff\xff\xff\xff" + 12 * "\0", "the reader gave an answer that makes no sense"),
        ("garbage", "HTTP/1.1 200 OK\r\n", "the reader gave an answer that makes no sense"),
        ("garbage", "a\xff\xff\xff\xff", "the reader gave an answer that makes no sense"),
        ("garbage", "w\0\0\0\2-1", "the reader gave an answer that makes no sense"),
        ("echo", "x" * 20_000, "the reader gave an answer that makes no sense"),
        ("not_a_number", None, "the reader failed: ValueError at"),
        ("outside", None, "the reader failed: ValueError at room.py"),
        ("fail", None, "the reader failed: KeyError at sandbox_functions.py"),
        ("refuse", "no\nsuch thing", "no such thing"),
    ],
)
def test_a_broken_limit_is_permanent_and_the_next_call_works(
    sandbox: Sandbox, name: str, request_: object, reason: str
) -> None:
    """S10, S11: memory, computing time, crash, garbage: a reason without patient data, and a new child."""
    with pytest.raises(Permanent) as refused:
        call(sandbox, name, request_)
    assert reason in str(refused.value)
    assert "DOE" not in str(refused.value)
    assert len(str(refused.value)) <= 600
    assert call(sandbox, "echo", 1) == 1


def test_a_call_that_does_not_end_is_ended_by_the_clock_on_the_wall() -> None:
    """S10: bounded time, whatever the child waits for."""
    with Sandbox(FUNCTIONS, replace(LIMITS, wall_s=1.0)) as hasty:
        hasty.start()
        begun = time.monotonic()
        with pytest.raises(Permanent, match="took longer than 1 s"):
            call(hasty, "sleep")
        assert time.monotonic() - begun < 120
        hasty.limits = LIMITS  # of the next child, which has to answer, on a busy machine too
        assert call(hasty, "echo", 1) == 1


def test_a_child_that_somebody_kills_is_no_fault_of_its_input(sandbox: Sandbox) -> None:
    """S10: the kernel out of memory, an operator: the job is tried again."""
    with pytest.raises(Transient, match="killed"):
        call(sandbox, "die")
    with pytest.raises(Transient, match="the disk is tired"):
        call(sandbox, "try_later")
    child = int(str(call(sandbox, "process")))
    os.kill(child, signal.SIGKILL)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # it is gone; its status is left to the sandbox
    assert call(sandbox, "echo", 1) == 1


def test_a_child_has_no_secrets_no_torch_no_files_and_few_descriptors(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S11: what a codec could do if an image took it over is bounded."""
    monkeypatch.setenv("DICOMNODE_TEST_TOKEN", "secret")
    with Sandbox(FUNCTIONS, LIMITS) as fresh:
        seen = call(fresh, "surroundings")
        assert isinstance(seen, dict)
        assert "DICOMNODE_TEST_TOKEN" not in seen["environment"]
        assert (seen["torch"], seen["core"]) == (False, [0, 0])
        call(fresh, "write_file", str(tmp_path / "dropped"))
        assert not any(path.stat().st_size for path in tmp_path.iterdir())
        assert int(str(call(fresh, "descriptors"))) < LIMITS.open_files


def test_a_child_is_replaced_after_its_calls(sandbox: Sandbox) -> None:
    """S10: whatever leaks in a codec ends with its process."""
    with Sandbox(FUNCTIONS, replace(LIMITS, calls=2)) as short:
        assert len({call(short, "process") for _ in range(4)}) == 2


def test_calls_of_several_threads_run_in_several_children() -> None:
    """S10: threads that decode side by side do not wait for each other, and a child outlives the thread that asked."""
    with Sandbox(FUNCTIONS, LIMITS, children=2) as two:
        for _ in range(2):
            with ThreadPoolExecutor(4) as pool:
                pids = {str(pid) for pid in pool.map(lambda _: call(two, "process"), range(8))}
            assert len(pids) <= 2
        assert all(psutil.pid_exists(int(pid)) for pid in pids)
    assert not any(psutil.pid_exists(int(pid)) for pid in pids)


def test_only_named_functions_run(sandbox: Sandbox) -> None:
    """S10: the parent cannot be talked into running anything else."""
    with pytest.raises(ValueError, match="none of the sandbox"):
        sandbox.call("os:system", "true")
