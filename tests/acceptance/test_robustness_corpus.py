"""Broken files of every kind through a running node: each ends in an outcome, and the node goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.robustness import broken
from tests.robustness.corpus import Sample
from tests.robustness.run import (
    ANY_ROUTE,
    PENDING,
    HonestPeer,
    Rows,
    judge,
    look,
    running_node,
    send_all,
    wait_finished,
)
from tests.robustness.table import by_category

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(900)]
WAIT_S = 600.0
HONEST_S = 30.0


def samples(folder: Path) -> list[Sample]:
    """Every broken file, and a whole one at the beginning and at the end."""
    found = []
    for number, (name, content) in enumerate(broken.files().items()):
        path = folder / f"{number:03d}"
        path.write_bytes(content)
        found.append(Sample(name, name.partition("/")[0], path))
    return [*found, found[0]]


def test_broken_files_end_in_an_outcome_and_harm_nobody(tmp_path: Path) -> None:
    """S9, S10, S11, R9, R19: every file is refused or ends in an outcome; no process ends, hangs or grows."""
    (tmp_path / "files").mkdir()
    every = samples(tmp_path / "files")
    with running_node(tmp_path, routes=f"{ANY_ROUTE}[results]\nstatus = []\n") as node:
        rows = Rows(node)
        first = send_all(node.port, every[:2])
        assert wait_finished(rows, WAIT_S) == 0
        before, honest = look(node), HonestPeer(node.port)
        honest.start()
        fates = send_all(node.port, every)
        left = wait_finished(rows, WAIT_S)
        honest.stop()
        for fate in (*first, *fates):
            rows.resolve(fate)
        health = judge(before, look(node), honest, fates, left, honest_limit_s=HONEST_S)
        assert node.stop() == 0
    account = by_category(fates)
    assert health.faults == (), account
    assert all(fate.stored or fate.answers for fate in fates), account
    assert not any(PENDING in fate.outcomes for fate in fates), account
    whole = [fate for fate in (*first, *fates) if fate.sample.category == "whole"]
    assert all(fate.outcomes == ["findings"] for fate in whole), account
    assert {fate.sample.name for fate in fates if not fate.stored} >= {
        "structure/cut in the middle",
        "structure/a length of 4 GB",
        "structure/noise",
        "tag_overflow/a uid with a path",
        "nesting/never closed",
    }, account
