"""Files to a node, one association each, an honest peer in between, until every Series has an outcome."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

from dicomnode.dicom.sop_classes import VERIFICATION
from dicomnode.errors import DicomNodeError
from tests.acceptance.node_process import NodeProcess
from tests.bench.watch import Vitals, vitals
from tests.plugin import install_plugin
from tests.raw_scu import IMPLICIT, SUCCESS, Context, Ended, RawAssociation, Refused
from tests.robustness.anything import ENTRY, NAME
from tests.robustness.corpus import Sample
from tests.robustness.objects import Attempt, assumed, attempts, distinct, self_named, series_of

CALLING = "SCANNER"
STORE_LIMIT_S = 60.0
ECHO_EVERY_S = 0.5
NOT_NEGOTIATED = "no presentation context"
MISMATCH = "0xA900"
PENDING, CONFLICT = "pending", "conflict"

ROOT = Path(__file__).parents[2]
ANY_ROUTE = f"""
[[route]]
name = "anything"
when = {{{{ SOPClassUID = {{{{ exists = true }}}} }}}}
detector = "{NAME}"
send_to = ["share"]
"""
PEER = """
[[peer]]
name = "share"
folder = "{folder}"
"""
SHIPPED_ROUTES = """
[[route]]
name = "chest x-ray"
when = {{ Modality = ["CR", "DX"] }}
detector = "cxr"
send_to = ["share"]
[[route]]
name = "head CT"
when = {{ Modality = "CT" }}
detector = "ct-head"
send_to = ["share"]
[[route]]
name = "brain FLAIR"
when = {{ Modality = "MR" }}
detector = "mr-brain-flair"
send_to = ["share"]
"""


@dataclass(slots=True)
class Fate:
    """What became of a sample. ``answers``: a status, or how the association ended, of each attempt.

    ``sendable``: its own meta information says how. ``stored``: SHA-256 of each data set that was acknowledged.
    ``outcomes``: of the Series, in their generations, that these Instances arrived in, with ``reasons``.
    """

    sample: Sample
    sendable: bool
    answers: list[str] = field(default_factory=list)
    stored: list[str] = field(default_factory=list)
    outcomes: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    seconds: float = 0.0
    analysis_s: float = 0.0


class HonestPeer(threading.Thread):
    """Associates, echoes and releases all the while. ``seconds``: how long each round took; ``failures``: how many."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._port, self._done = port, threading.Event()
        self.seconds: list[float] = []
        self.failures: list[str] = []

    def run(self) -> None:
        context = Context(VERIFICATION, IMPLICIT)
        while not self._done.wait(ECHO_EVERY_S):
            started = time.monotonic()
            try:
                with RawAssociation(self._port, "NODE", CALLING, [context], timeout_s=STORE_LIMIT_S) as association:
                    status = association.echo(context)
                    association.release()
                if status != SUCCESS:
                    self.failures.append(f"0x{status:04X}")
            except (Refused, Ended, OSError) as error:
                self.failures.append(type(error).__name__)
            self.seconds.append(time.monotonic() - started)

    def stop(self) -> None:
        self._done.set()
        self.join(STORE_LIMIT_S)


@contextmanager
def running_node(folder: Path, receive: str = "", routes: str = SHIPPED_ROUTES + ANY_ROUTE) -> Iterator[NodeProcess]:
    """A node that is quick to call a series complete, with a folder as its archive.

    By default it has the routes of the shipped detectors and one that gives every series to ``anything``.
    """
    archive = folder / "archive"
    archive.mkdir(parents=True)
    plugin = install_plugin(folder / "plugin", NAME, ENTRY)
    assemble = "quiet_period_s = 3\nmax_wait_s = 6\nsettle_s = 0.5"
    routes = (PEER + routes).format(folder=archive)
    node = NodeProcess(folder / "node", 1, assemble=assemble, routes=routes, receive=receive)
    with patch.dict(os.environ, {"PYTHONPATH": f"{plugin}{os.pathsep}{ROOT}"}):
        try:
            node.start()
            yield node
        finally:
            node.close()


def send_all(
    port: int, samples: Sequence[Sample], progress: Callable[[], None] = lambda: None, *, apart: bool = True
) -> list[Fate]:
    """Each sample by an association of its own; the answers are kept, whatever they are.

    With ``apart``, where an Instance or a Series came before, its UIDs are replaced: files of a corpus share them, and
    each is to be a Series with an outcome of its own.
    """
    fates: list[Fate] = []
    seen: set[str] = set()
    for number, sample in enumerate(samples):
        fates.append(send(port, sample, number, seen if apart else set()))
        progress()
    return fates


def send(port: int, sample: Sample, number: int, seen: set[str]) -> Fate:
    """One sample: as its meta information says; where there is none, or it is not negotiated, as CT in plain syntaxes.

    Where the data set is not what the meta information says, also as the data set says.
    """
    content = sample.path.read_bytes()
    todo = attempts(content, number)
    fate = Fate(sample, sendable=not todo[0].assumed)
    started = time.monotonic()
    _try(port, fate, todo, number, seen)
    if fate.answers == [NOT_NEGOTIATED] and not todo[0].assumed:
        _try(port, fate, assumed(content, number), number, seen)
    elif fate.answers == [MISMATCH]:
        _try(port, fate, self_named(todo[0]), number, seen)
    fate.seconds = time.monotonic() - started
    return fate


def _try(port: int, fate: Fate, todo: Iterable[Attempt], number: int, seen: set[str]) -> None:
    for attempt in todo:
        known = {attempt.instance, series_of(attempt)} & seen
        one = distinct(attempt, number + 1) if known else attempt
        answer = _store(port, one)
        fate.answers.append(answer)
        if answer == "0x0000":
            seen |= {one.instance, series_of(one)} - {""}
            fate.stored.append(hashlib.sha256(one.data).hexdigest())
            return


def _store(port: int, attempt: Attempt) -> str:
    try:
        with RawAssociation(port, "NODE", CALLING, [attempt.context], timeout_s=STORE_LIMIT_S) as association:
            status = association.store_stream(attempt.context, attempt.instance, [memoryview(attempt.data)])
            association.release()
    except Refused as error:
        return NOT_NEGOTIATED if "context" in str(error) else f"association rejected: {error}"
    except TimeoutError:
        return "no answer"
    except (Ended, OSError) as error:
        return f"ended: {type(error).__name__}"
    return f"0x{status:04X}"


class Rows:
    """The node's database, read while it runs."""

    def __init__(self, node: NodeProcess) -> None:
        self._node = node

    def __call__(self, query: str, *values: object) -> list[tuple]:
        connection = sqlite3.connect(f"file:{self._node.database}?mode=ro", uri=True, timeout=30.0)
        try:
            return connection.execute(query, values).fetchall()
        finally:
            connection.close()

    def unfinished(self) -> int:
        """Series that collect or have no assignment in their generation, pending outcomes, deliveries and jobs."""
        collecting = self("SELECT count(*) FROM series WHERE state != 'complete'")[0][0]
        without = self(
            "SELECT count(*) FROM series s WHERE s.state = 'complete' AND EXISTS (SELECT 1 FROM instance i WHERE "
            "i.series_id = s.id AND NOT i.conflict) AND NOT EXISTS (SELECT 1 FROM assignment a WHERE "
            "a.series_id = s.id AND a.generation = s.generation)"
        )[0][0]
        pending = self("SELECT count(*) FROM assignment WHERE outcome IS NULL")[0][0]
        waiting = self("SELECT count(*) FROM delivery WHERE state = 'waiting'")[0][0]
        jobs = self("SELECT count(*) FROM job WHERE state NOT IN ('done', 'dead')")[0][0]
        return int(collecting + without + pending + waiting + jobs)

    def processes(self) -> set[tuple[str, int]]:
        """Owner and process id of every process that the node runs; another owner is a restart."""
        return set(self("SELECT owner, pid FROM process WHERE stopped_at IS NULL"))

    def resolve(self, fate: Fate) -> None:
        """Fill in what became of the Instances of ``fate``."""
        for digest in fate.stored:
            for series, generation, conflict in self(
                "SELECT series_id, generation, conflict FROM instance WHERE sha256 = ?", digest
            ):
                if conflict:
                    fate.outcomes.append(CONFLICT)
                    continue
                found = self(
                    "SELECT coalesce(outcome, ?), reason, coalesce(finished_at - started_at, 0) FROM assignment WHERE "
                    "series_id = ? AND generation >= ? ORDER BY generation",
                    PENDING,
                    series,
                    generation,
                )
                fate.outcomes += [row[0] for row in found] or [PENDING]
                fate.reasons += [row[1] for row in found if row[1]]
                fate.analysis_s = max([fate.analysis_s, *(row[2] for row in found)])


def wait_finished(rows: Rows, limit_s: float) -> int:
    """Wait until nothing is unfinished; returns what still is when ``limit_s`` seconds are over."""
    until = time.monotonic() + limit_s
    left = rows.unfinished()
    while left and time.monotonic() < until:
        time.sleep(0.5)
        left = rows.unfinished()
    return left


@dataclass(frozen=True, slots=True)
class Health:
    """The node before and after. ``faults``: every promise that did not hold, in words; empty when all held."""

    before: Vitals
    after: Vitals
    honest_s: float
    honest_rounds: int
    faults: tuple[str, ...]


def judge(
    before: tuple[Vitals, set[tuple[str, int]]],
    after: tuple[Vitals, set[tuple[str, int]]],
    honest: HonestPeer,
    fates: Sequence[Fate],
    left: int,
    *,
    honest_limit_s: float,
) -> Health:
    """Hold what was seen against the promises: nobody died, hung, leaked or starved, everything has an outcome."""
    (was, ran), (now, runs) = before, after
    slowest = max(honest.seconds, default=0.0)
    checks = [
        (ran == runs and {pid for _, pid in runs} <= now.pids, "a process of the node ended or was started again"),
        (now.memory < was.memory * 1.25 + 256 * 2**20, "memory grew"),
        (now.descriptors <= was.descriptors + 16, "file descriptors were not closed"),
        (now.threads <= was.threads + 8, "threads did not end"),
        (not honest.failures, f"an honest peer was turned away {len(honest.failures)} time(s)"),
        (bool(honest.seconds) and slowest < honest_limit_s, f"an honest peer waited {slowest:.1f} s"),
        (not any("no answer" in fate.answers for fate in fates), "an association hung"),
        (left == 0, f"{left} series, analyses or deliveries did not end"),
        (
            all(fate.outcomes and PENDING not in fate.outcomes for fate in fates if fate.stored),
            "an accepted instance has no outcome",
        ),
    ]
    faults = tuple(words for good, words in checks if not good)
    return Health(was, now, slowest, len(honest.seconds), faults)


def look(node: NodeProcess) -> tuple[Vitals, set[tuple[str, int]]]:
    """The processes of a node, as the system and as its own rows know them."""
    if node.process is None:
        raise DicomNodeError("the node was not started")
    return vitals(node.process.pid), Rows(node).processes()
