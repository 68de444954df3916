"""R5, R9: repeats, conflicts and every accepted instance's end, in a whole node with a detector that costs nothing."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.faults.archive import Archive
from tests.faults.load import Account, start_scanners, stop_scanners
from tests.faults.outcomes import DEAD, DONE, WAITING, outcomes, without_outcome
from tests.faults.receiver import audit_bodies, chain_is_whole, stored, wait_until
from tests.faults.scu import SUCCESS, Scu, make_image
from tests.faults.trouble import Trouble, bad_images
from tests.faults.whole import WholeNode

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(900)]
SETTLE_S = 300.0


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[WholeNode, Archive]]:
    """A node and its archive."""
    archive = Archive()
    archive.start()
    with WholeNode(tmp_path_factory.mktemp("site"), archive) as node:
        yield node, archive
    archive.stop()


def test_a_repeat_is_counted_and_a_conflict_is_kept(site: tuple[WholeNode, Archive]) -> None:
    """R5: same UID and bytes: 0000, one copy, no second inference; other bytes: kept, audited, not analysed."""
    node, _ = site
    images = [make_image("2.25.55", number) for number in (1, 2, 3)]
    with Scu(node.port) as scu:
        assert [scu.store(image) for image in images] == [SUCCESS] * 3
        scu.release()
    wait_until(lambda: outcomes(node.database)[DONE] >= 3, SETTLE_S, "the first result")
    inferences = len(audit_bodies(node.database, "inference"))
    jobs = node.rows("SELECT count(*) FROM job")
    other = make_image("2.25.55", 2, fill=77)
    assert (other.uid, other.sha256 == images[1].sha256) == (images[1].uid, False)
    with Scu(node.port) as scu:
        assert [scu.store(image) for image in (images[0], images[0], other)] == [SUCCESS] * 3
        scu.release()
    kept = "SELECT sha256, copies, conflict FROM instance WHERE SOPInstanceUID = ? ORDER BY id"
    assert node.rows(kept, images[0].uid) == [(images[0].sha256, 3, 0)]
    assert node.rows(kept, images[1].uid) == [(images[1].sha256, 1, 0), (other.sha256, 1, 1)]
    assert len(list((node.data / "spool" / "received").rglob("*.dcm"))) == 4
    alarms = [(body["SOPInstanceUID"], body["action"]) for body in audit_bodies(node.database, "instance conflict")]
    assert alarms == [(other.uid, "U")]
    repeats = [(body["SOPInstanceUID"], body["action"]) for body in audit_bodies(node.database, "instance repeated")]
    assert repeats == [(images[0].uid, "R")] * 2
    assert json.loads(node.run("status", "--json").stdout)["received"]["conflicts"] == 1
    third = [make_image("2.25.56", number) for number in (1, 2, 3)]
    with Scu(node.port) as scu:
        assert [scu.store(image) for image in third] == [SUCCESS] * 3
        scu.release()
    wait_until(lambda: outcomes(node.database)[DONE] == 7, SETTLE_S, "the result of a Series that came after")
    assert len(audit_bodies(node.database, "inference")) == inferences + 1
    assert node.rows("SELECT count(*) FROM job") == [(jobs[0][0] + 3,)]


def test_after_chaos_every_instance_has_one_outcome(site: tuple[WholeNode, Archive]) -> None:
    """R9: after kills, an archive that was away and bad data sets, each accepted instance is done, waiting or dead."""
    node, archive = site
    account = Account()
    trouble = Trouble(node, archive, account, 20261121)
    senders = start_scanners(node.port, 3, account, "2.25.99", images=4, side=32)
    try:
        for name in ("bad data sets", "detect process killed", "archive away", "association reset"):
            trouble.cause(name)
        for name in ("receive process killed", "archive out of resources", "deliver process killed"):
            trouble.cause(name)
    finally:
        stop_scanners(senders)
    assert without_outcome(outcomes(node.database)) == {}
    wait_until(lambda: outcomes(node.database)[WAITING] == 0, SETTLE_S, "nothing that waits")
    found = outcomes(node.database)
    accepted = node.rows("SELECT count(*) FROM instance")[0][0]
    assert set(found) <= {DONE, DEAD}
    assert sum(found.values()) == accepted >= len(account.acknowledged) > 0
    held = stored(node.data)
    assert {uid: held.get(uid) for uid in account.acknowledged} == account.acknowledged
    dead = node.rows("SELECT count(*) FROM job WHERE state = 'dead'")[0][0]
    assert bool(dead) == bool(found[DEAD])
    assert chain_is_whole(node.database)


def test_the_count_of_outcomes_finds_what_was_lost(site: tuple[WholeNode, Archive], tmp_path: Path) -> None:
    """R9: the count can fail: a result, a job or an assignment that is gone leaves instances without an end."""
    node, _ = site
    losses = (
        "UPDATE assignment SET outcome = NULL",
        "UPDATE delivery SET state = 'waiting'",
        "DELETE FROM delivery; DELETE FROM derived; DELETE FROM observation; DELETE FROM assignment",
    )
    for number, loss in enumerate(losses):
        copy = tmp_path / f"{number}.sqlite3"
        with closing(sqlite3.connect(node.database)) as database, closing(sqlite3.connect(copy)) as other:
            database.backup(other)
            other.executescript(loss)
        assert sum(without_outcome(outcomes(copy)).values()) >= 3, loss


def test_bad_data_sets_are_what_they_are_called(tmp_path: Path) -> None:
    """R9: the bad data sets of the chaos are different from each other and from a good one."""
    bad = bad_images("2.25.1")
    good = [make_image(f"2.25.1.{index}", 1, series=index) for index in range(1, 6)]
    assert [image.uid for image in bad] == [image.uid for image in good]
    assert all(one.data != other.data for one, other in zip(bad, good, strict=True))
    assert b"\x20\x00\x0e\x00" not in bad[2].data
    assert bad[3].data.endswith(b"\x02\0\0\0\0\0")
