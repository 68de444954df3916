"""What every test shares: how many run at once, that no example is timed by the clock, that nothing is skipped."""

from __future__ import annotations

import os

import hypothesis
import pytest

MOST_PROCESSES = 8

hypothesis.settings.register_profile("busy machine", deadline=None)
hypothesis.settings.load_profile("busy machine")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """For ``--numprocesses auto``: one more than there are cores, since many tests wait for a node or an archive."""
    return min(len(os.sched_getaffinity(0)) + 1, MOST_PROCESSES)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """With DICOMNODE_NO_SKIPS a skipped test is a failed one: CI installs what the tests need."""
    outcome = yield
    report = outcome.get_result()
    if report.skipped and os.environ.get("DICOMNODE_NO_SKIPS"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped where it has to run: {reason}"
