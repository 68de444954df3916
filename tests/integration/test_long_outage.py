"""An archive that is away for a day, and every kind of answer when it is back; dead letters, told and sent again."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from dicomnode.cli import cli
from dicomnode.deliver.back_off import DAY_S
from dicomnode.deliver.worker import Deliverer
from dicomnode.jobs import bury, claim, enqueue
from tests.integration.deliver_fixtures import FakePacs, Outbox
from tests.integration.test_deliver_worker import PATIENT, absent, config, deliverer

STUDIES = 3
STEP_S = 120.0
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None


@pytest.fixture
def outbox() -> Iterator[Outbox]:
    """In memory where there is such a file system: a day has hundreds of attempts, each with its commits."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        made = Outbox(Path(folder))
        yield made
        made.store.close()


class Day:
    """A worker through a simulated day: the clock moves from one moment at which something may be due to the next."""

    def __init__(self, outbox: Outbox, worker: Deliverer) -> None:
        self.outbox, self.worker = outbox, worker
        self.tried_at: list[float] = []

    def until(self, at: float, step_s: float = STEP_S) -> None:
        while self.outbox.now < at:
            while self.worker.step():
                self.tried_at.append(self.outbox.now)
            self.outbox.now += step_s


def test_an_archive_that_is_down_for_a_day_costs_little_loses_nothing_and_gets_each_study_in_order(
    outbox: Outbox,
) -> None:
    """R11: back-off with jitter up to its cap for the whole lane, then everything, each study as it was made."""
    studies = [outbox.add_study() for _ in range(STUDIES)]
    for generation in (1, 2):
        for study in studies:
            outbox.add_result(study, "pacs", kinds=["sc", "sr"], generation=generation)
    made = [row.SOPInstanceUID for row in outbox.derived()]
    peer, begin = absent(), outbox.now
    day = Day(outbox, deliverer(outbox, peer))
    day.until(begin + 60.0, 2.0)
    assert len(day.tried_at) >= 2, "the first attempts follow each other closely: most outages are short"
    day.until(begin + DAY_S)
    gaps = [later - earlier for earlier, later in zip(day.tried_at, day.tried_at[1:], strict=False)]
    assert max(gaps) <= 300.0 + STEP_S, "the cap"
    assert len(set(gaps[20:])) >= 3, "jitter: no two nodes knock in step"
    assert 150 < len(day.tried_at) < 900, "one attempt per back-off, whatever waits"
    assert outbox.states() == ["waiting"] * len(made)
    assert outbox.audit("dead letter") == []
    with FakePacs(port=peer.port) as pacs:
        day.until(outbox.now + 3600)
    assert outbox.states() == ["delivered"] * len(made)
    assert sorted(pacs.uids) == sorted(made)
    for study in range(STUDIES):
        mine = [made[index] for result in (study, study + STUDIES) for index in (2 * result, 2 * result + 1)]
        assert [uid for uid in pacs.uids if uid in mine] == mine


@pytest.mark.parametrize(
    ("status", "state", "job"),
    [
        *((code, "delivered", "done") for code in (0x0000,)),
        *((code, "warning", "done") for code in (0xB000, 0xB006, 0xB007, 0x0111)),
        *((code, "waiting", "ready") for code in (0xA700, 0xA7AB, 0x0110, 0x0213)),
        *((code, "failed", "dead") for code in (0xA900, 0xA9AB, 0xC000, 0xCFAB, 0x0124)),
    ],
    ids=lambda value: f"{value:04X}" if isinstance(value, int) else value,
)
def test_each_class_of_status_has_its_consequence_in_the_database(
    outbox: Outbox, status: int, state: str, job: str
) -> None:
    """R11: A7xx is tried again, A9xx and Cxxx are dead letters at once, 0111 and Bxxx are there, with a warning."""
    outbox.add_result(outbox.add_study(), "pacs", kinds=["sc"])
    with FakePacs(lambda *_: status) as pacs:
        deliverer(outbox, pacs.peer()).step()
    assert outbox.states() == [state]
    assert outbox.jobs()[0].state == job
    assert len(outbox.audit("dead letter")) == (job == "dead")


class Node:
    """The commands of a node whose database is the outbox's."""

    def __init__(self, outbox: Outbox, folder: Path, port: int) -> None:
        self.config = folder / "node.toml"
        self.config.write_text(
            f'[node]\ndata_dir = "{folder}"\ndatabase = "{outbox.store.url}"\n'
            f'[[peer]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = {port}\n'
        )

    def run(self, *arguments: str) -> tuple[int, str]:
        answer = CliRunner().invoke(cli, [*arguments, "--config", str(self.config)])
        return answer.exit_code, answer.output


def work_off(outbox: Outbox, worker: Deliverer) -> None:
    """Do all there is, on a busy machine too: what is put off (an answer that came late) is done when it is due."""
    while True:
        while worker.step():
            pass
        if not any(job.state == "ready" for job in outbox.jobs()):
            return
        outbox.now += STEP_S  # a job may be due while the lane of its Destination is still held


def test_dead_letters_are_listed_alarmed_and_replayed(outbox: Outbox, tmp_path: Path) -> None:
    """R12: all of them, not the newest fifty; an exit status for monitoring; one command sends all again."""
    count = 60
    for _ in range(count):
        outbox.add_result(outbox.add_study(), "pacs", kinds=["sr"])
    with FakePacs(lambda *_: 0xC000) as pacs:
        work_off(outbox, deliverer(outbox, pacs.peer()))
    assert outbox.states() == ["failed"] * count
    node = Node(outbox, tmp_path, pacs.port)
    code, said = node.run("jobs", "list", "--json")
    assert (code, len(json.loads(said))) == (0, count)
    code, said = node.run("status", "--check")
    assert code == 1
    assert f"{count} dead letters" in said
    assert node.run("status")[0] == 0
    assert node.run("jobs", "requeue")[0] == 2
    assert node.run("jobs", "requeue", "--kind", "deliver")[0] == 0
    assert len(outbox.audit("requeued by hand")) == count
    outbox.now = max(job.not_before for job in outbox.jobs())
    with FakePacs(port=pacs.port) as pacs:
        work_off(outbox, Deliverer(config(pacs.peer()), outbox.store, outbox.spool, "d", outbox.clock, limits=PATIENT))
    assert outbox.states() == ["delivered"] * count
    assert json.loads(node.run("jobs", "list", "--json")[1]) == []


def test_every_dead_letter_is_requeued_with_all_and_none_is_an_error(outbox: Outbox, tmp_path: Path) -> None:
    """R12: of whatever kind."""
    with outbox.store.write() as session:
        enqueue(session, "count", "1", {"series_id": 1, "generation": 1}, outbox.now)
        job = claim(session, ("count",), "w", outbox.now, 60.0)
        assert job is not None
        bury(session, job, "no such series", outbox.now)
    node = Node(outbox, tmp_path, 104)
    assert node.run("jobs", "requeue", "--all") == (0, f"job {job.id} is ready again\n")
    assert node.run("jobs", "requeue", "--all")[0] == 1
