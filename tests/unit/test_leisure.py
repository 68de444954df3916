"""Issue part 4: stand-ins are made while the result is being sent, and do not slow that down."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from dicomnode.detect.leisure import LESS_URGENT, at_leisure
from dicomnode.errors import Transient


def priority() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def started() -> int:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(priority).result()


def test_what_nobody_waits_for_is_less_urgent_and_its_caller_stays_as_he_is() -> None:
    """Issue part 4: with all threads that it starts, such as those that write to the disk."""
    before = priority()
    nicer = min(19, before + LESS_URGENT)
    assert (at_leisure(priority), at_leisure(started)) == (nicer, nicer)
    assert priority() == before


def test_its_failure_is_its_callers() -> None:
    """The job of the stand-ins is tried again as before."""

    def fail() -> None:
        raise Transient("the disk is tired")

    with pytest.raises(Transient, match="the disk is tired"):
        at_leisure(fail)
