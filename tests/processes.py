"""The processes of a node that was killed: those that its supervisor was just starting belong to them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress

import psutil


def end_of_session(leader: int, known: Iterable[psutil.Process], limit_s: float) -> list[psutil.Process]:
    """Wait until every process of the session of ``leader``, who is gone, has ended, and those that are ``known``.

    Returns those that have not after ``limit_s`` seconds. A process that began between a look at the children and
    the end of their parent is nobody's child any more; its session tells whose it was.
    """
    left = {process.pid: process for process in known}
    for process in psutil.process_iter():
        with suppress(ProcessLookupError):
            if os.getsid(process.pid) == leader:
                left.setdefault(process.pid, process)
    _, alive = psutil.wait_procs(left.values(), timeout=limit_s)
    return list(alive)
