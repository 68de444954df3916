"""S11: code that took over a reader by a broken codec can read and compute, and nothing else."""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomnode.node.doctor import told_of_walls
from dicomnode.sandbox import Sandbox, SandboxLimits, Walls, system_calls, walls
from dicomnode.sandbox.walls import look

MODULE = "tests.unit.sandbox_escapes"
LANDLOCK_SINCE = {"environment of another", "memory of another"}
"""What only a Landlock domain keeps a child from that runs as root."""


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox([f"{MODULE}:{name}" for name in ("escapes", "work", "libraries")], SandboxLimits()) as made:
        yield made


def has_seccomp() -> bool:
    """SECCOMP_GET_ACTION_AVAIL of SECCOMP_RET_ERRNO (seccomp(2)); only machines of which we know the calls."""
    number = {"x86_64": 317, "aarch64": 277}.get(os.uname().machine)
    action = ctypes.byref(ctypes.c_uint32(0x00050000))
    return number is not None and ctypes.CDLL(None).syscall(number, 2, 0, action) == 0


def has_landlock() -> bool:
    return bool(ctypes.CDLL(None).syscall(444, None, 0, 1) >= 1)


@pytest.mark.skipif(not has_seccomp(), reason="this kernel has no filter of system calls")
def test_a_child_gets_no_socket_no_program_and_no_other_process(sandbox: Sandbox, tmp_path: Path) -> None:
    """S11: each way out is refused by the kernel, and nothing is written, removed or changed."""
    file = tmp_path / "image"
    file.write_text("pixels")
    file.chmod(0o644)
    request = {"file": str(file), "folder": str(tmp_path), "parent": os.getpid()}
    said = json.loads(sandbox.call(f"{MODULE}:escapes", request).content)
    open_ways = {name for name, what in said.items() if what != "refused"}
    assert open_ways <= (set() if has_landlock() else LANDLOCK_SINCE)
    assert len(said) == 23
    assert [path.name for path in tmp_path.iterdir()] == ["image"]
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("pixels", 0o644)


def test_what_readers_do_goes_on_behind_the_wall(sandbox: Sandbox, tmp_path: Path) -> None:
    """S11: files, folders, threads and the libraries that are first loaded there."""
    file = tmp_path / "image"
    file.write_text("pixels")
    assert json.loads(sandbox.call(f"{MODULE}:work", str(file)).content) == ["pixels", ["image"], "thread", True]
    total, mean, level = json.loads(sandbox.call(f"{MODULE}:libraries", None).content)
    assert (total, round(mean, 1)) == (4096 * 4095 / 2, 2047.5)
    assert level > 0


def test_a_machine_that_is_not_known_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """S11: no filter of another machine's numbers is put on; the other limits hold there."""
    monkeypatch.setattr(system_calls, "_MACHINES", {})
    assert system_calls.refuse_system_calls() is False


def test_a_child_tells_which_walls_stand_around_it() -> None:
    """S11: what the kernel has holds, and where it has less, somebody is told."""
    assert walls() == Walls(has_seccomp(), has_landlock())


def test_a_child_without_walls_says_so() -> None:
    """S11: the look from inside finds an open door: this process has none of the walls."""
    assert look(None, None) == {"seccomp": False, "landlock": False}


@pytest.mark.parametrize(
    ("found", "level", "missing"),
    [
        (Walls(seccomp=True, landlock=True), "ok", ""),
        (Walls(seccomp=False, landlock=True), "warning", "not confined by seccomp,"),
        (Walls(seccomp=True, landlock=False), "warning", "not confined by Landlock,"),
        (Walls(seccomp=False, landlock=False), "warning", "not confined by seccomp nor Landlock,"),
    ],
)
def test_an_operator_is_told_of_a_missing_wall(found: Walls, level: str, missing: str) -> None:
    """S11: a kernel without them is a warning of ``doctor``, with what to do."""
    told = told_of_walls(found)
    assert (told.check, told.level, bool(told.mend)) == ("reader", level, level == "warning")
    assert missing in told.found
