"""R2, R8, R20: what a receiving node keeps when it is killed, left in the middle of an object, or used for long."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.alone import BareReceiver
from tests.faults.kills import LIMITS, kill_rounds
from tests.faults.receiver import READY_S, Receiver, chain_is_whole, leftovers, stored, torn_files, wait_until
from tests.faults.scu import SUCCESS, Scu, make_image
from tests.faults.steady import ASSOCIATIONS, MORE_HANDLES, many_instances

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]
ROUNDS, BARE_ROUNDS, INSTANCES = 2, 10, 2000
BYTES_PER_INSTANCE = 2048
ENDS = ["abort", "reset", "close"]
HANDLES_PER_ASSOCIATION = 8


def test_kills_under_load_lose_nothing(tmp_path: Path) -> None:
    """R2: SIGKILL at random moments under load: acknowledged is a subset of stored, nothing torn, nothing left over."""
    node, bare = Receiver(tmp_path / "node", receive=LIMITS), BareReceiver(tmp_path / "bare", receive=LIMITS)
    for receiver, rounds in ((node, ROUNDS), (bare, BARE_ROUNDS)):
        result = kill_rounds(receiver, rounds, seed=20261121)
        assert result.acknowledged > 0
        assert result.good, result


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    """A receiving node."""
    with Receiver(tmp_path_factory.mktemp("node")) as receiver:
        yield receiver


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99], ids=["command only", "half", "almost all"])
def test_an_association_lost_inside_an_object_leaves_nothing_of_it(node: Receiver, end: str, share: float) -> None:
    """R8: nothing of the object that was under way is kept, the earlier ones stay, and it can be sent again."""
    images = [
        make_image(f"2.25.8.{int(share * 100) + 1}.{ENDS.index(end) + 1}", number, side=256) for number in (1, 2, 3)
    ]
    with Scu(node.port) as scu:
        assert [scu.store(image) for image in images[:2]] == [SUCCESS] * 2
        scu.send(images[2], share=share)
        if end == "abort":
            scu.abort()
        elif end == "reset":
            scu.reset()
    wait_until(lambda: leftovers(node.data) == [], READY_S, "no unfinished file")
    held = stored(node.data)
    assert [image.uid in held for image in images] == [True, True, False]
    assert torn_files(node.data) == []
    with Scu(node.port) as scu:
        assert scu.store(images[2]) == SUCCESS
        scu.release()
    assert {image.uid: image.sha256 for image in images}.items() <= stored(node.data).items()


def test_many_instances_leave_memory_handles_and_threads_as_they_were(node: Receiver) -> None:
    """R20: 2,000 instances over five associations (10,000 by make chaos): flat memory, constant handles and threads."""
    result = many_instances(node, INSTANCES)
    assert result.slope < BYTES_PER_INSTANCE, result
    assert result.constant, result
    assert result.most_handles <= result.before[1] + MORE_HANDLES + ASSOCIATIONS * HANDLES_PER_ASSOCIATION, result
    assert chain_is_whole(node.database)
