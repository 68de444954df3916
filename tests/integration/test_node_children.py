"""A child process ends when it is told to, whatever state it is in, and says why it cannot start."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from dicomnode.config import parse_config
from dicomnode.deliver.commit_worker import CommitWorker
from dicomnode.errors import ConfigError
from dicomnode.node.build import Blueprint
from dicomnode.node.children import Child
from dicomnode.node.roles import DUTIES, Assignment
from dicomnode.store.schema import migrate


@pytest.fixture
def child(tmp_path: Path):
    made = Child("console", blueprint(tmp_path), "console")
    yield made
    if made.process is not None and made.process.is_alive():
        made.process.kill()
        made.process.join()


def blueprint(folder: Path, settings: str = "") -> Blueprint:
    text = f'[node]\ndata_dir = "{folder}"\nhost = "127.0.0.1"\nconsole_port = 0\n{settings}\n'
    plan = Blueprint(*parse_config(text))
    store = plan.store()
    migrate(store)
    store.close()
    return plan


def started(child: Child) -> int:
    child.start()
    assert child.hear(120.0) is not None
    assert child.process is not None
    assert child.process.pid is not None
    return child.process.pid


def test_a_child_that_is_told_to_stop_drains(child: Child) -> None:
    started(child)
    child.ask_to_stop()
    child.wait_stopped(time.monotonic() + 60.0)
    assert child.exit_code == 0


def test_several_signals_end_a_child_once(child: Child) -> None:
    pid = started(child)
    for number in (signal.SIGSTOP, signal.SIGINT, signal.SIGTERM, signal.SIGTERM, signal.SIGCONT):
        os.kill(pid, number)  # all of them before it does anything, however busy the machine is
    child.wait_stopped(time.monotonic() + 60.0)
    assert child.exit_code == 0


def test_a_frozen_child_does_not_hold_up_the_stop(child: Child) -> None:
    os.kill(started(child), signal.SIGSTOP)
    before = time.monotonic()
    child.ask_to_stop()
    child.wait_stopped(time.monotonic() + 0.5)
    assert time.monotonic() - before < 60.0
    assert child.process is not None
    child.process.join(60.0)
    assert child.exit_code == -signal.SIGKILL


def test_a_signal_during_the_start_is_kept_until_it_can_be_handled(child: Child, capfd: pytest.CaptureFixture) -> None:
    child.start()
    assert child.process is not None
    assert child.process.pid is not None
    os.kill(child.process.pid, signal.SIGINT)
    child.wait_stopped(time.monotonic() + 60.0)
    assert child.exit_code == 0
    assert "Traceback" not in capfd.readouterr().err


def test_a_taken_port_is_told_by_name(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        receiver = Child("receive", blueprint(tmp_path, f"port = {port}"), "receive")
        receiver.start()
        with pytest.raises(ConfigError, match=f"node.port: 127.0.0.1:{port} cannot be used"):
            receiver.hear(120.0)
        receiver.wait_stopped(time.monotonic() + 60.0)


def test_the_process_ends_with_the_thread_that_asks_for_commitment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that it is started again; without that thread storage commitment would stop and nobody would see it."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(CommitWorker, "run", broken)
    duty = Assignment("deliver", "deliver-1", blueprint(tmp_path))
    stop = threading.Event()
    too_late = threading.Timer(120.0, stop.set)
    too_late.start()
    try:
        with pytest.raises(ZeroDivisionError):
            DUTIES["deliver"](duty, stop, lambda _: None)
    finally:
        too_late.cancel()
