"""Logs tell what failed and where; the text of a foreign exception, which may name a patient, never."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
import warnings

import pytest

from dicomnode.node.logs import JsonFormatter, log_to_stderr

NAME = "DOE^JANE"


@pytest.fixture
def quiet():
    root, hook = logging.getLogger(), threading.excepthook
    handlers, level, reports = root.handlers[:], root.level, logging.raiseExceptions
    with warnings.catch_warnings():
        yield
    root.handlers[:], threading.excepthook = handlers, hook
    root.setLevel(level)
    logging.raiseExceptions = reports


def fail() -> None:
    raise ValueError(f"bad value of {NAME}")


def test_an_exception_is_told_by_type_and_place() -> None:
    try:
        fail()
    except ValueError:
        record = logging.makeLogRecord({"msg": "failed", "exc_info": sys.exc_info()})
    line = JsonFormatter("detect").format(record)
    assert json.loads(line)["exception"] == "ValueError"
    assert json.loads(line)["at"].startswith("test_node_logs.py:")
    assert NAME not in line


def test_a_warning_and_a_thread_that_ends_badly_quote_nothing(quiet, capfd: pytest.CaptureFixture) -> None:
    log_to_stderr("detect")
    warnings.warn(f"invalid value {NAME}", stacklevel=1)
    thread = threading.Thread(target=fail, name="codec")
    thread.start()
    thread.join()
    written = capfd.readouterr().err
    assert NAME not in written
    assert json.loads(written)["in_thread"] == "codec"


def test_s17_a_log_that_cannot_be_written_does_not_tell_of_the_error_in_hand(
    quiet, capfd: pytest.CaptureFixture
) -> None:
    """S17: Python's own report of a failed handler quotes the exception that is being handled."""
    log_to_stderr("detect")
    [handler] = logging.getLogger().handlers
    broken = io.StringIO()
    handler.setStream(broken)
    broken.close()
    try:
        fail()
    except ValueError:
        logging.getLogger("dicomnode").error("failed")
    assert NAME not in "".join(capfd.readouterr())
