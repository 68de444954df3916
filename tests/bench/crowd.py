"""Many scanners at once: every association open at the same time, every Instance stored."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.bench.loads import INSTANCE, LOADS, data_set_of, message, template_file, uids_of
from tests.bench.receivers import NodeReceiver
from tests.raw_scu import SUCCESS, RawAssociation

LIMIT_S = 300.0


@dataclass(frozen=True, slots=True)
class Crowd:
    """``answers``: how often each status came; ``lost``: acknowledged and not stored, or stored and not whole."""

    associations: int
    instances: int
    seconds: float
    answers: dict[int, int]
    lost: int

    @property
    def refused(self) -> int:
        """Instances that were not answered with success."""
        return sum(count for status, count in self.answers.items() if status != SUCCESS)


def send_crowd(receiver: NodeReceiver, associations: int, each: int, calling: str = "SCANNER") -> Crowd:
    """``associations`` senders open theirs first, then all send ``each`` MR Instances of 40 kB.

    Raises what ``RawAssociation`` raises: an association that is rejected or lost.
    """
    load, token = LOADS["mr"], int(time.time()) % 10**8
    with TemporaryDirectory() as folder:
        data = data_set_of(template_file(Path(folder), load).read_bytes())
    together = threading.Barrier(associations, timeout=LIMIT_S)

    def send(part: int) -> list[tuple[int, str]]:
        answers = []
        with RawAssociation(
            receiver.port, receiver.ae_title, calling, [load.context], timeout_s=LIMIT_S
        ) as association:
            request = message(data, load, association.accepted[load.context], association.max_pdu)
            together.wait()
            for number in range(each):
                uids = uids_of(token, part, part * each + number)
                for name, uid in uids.items():
                    request.put(name, uid)
                answers.append((association.store(request), uids[INSTANCE]))
            association.release()
        return answers

    started = time.perf_counter()
    with ThreadPoolExecutor(associations) as pool:
        answers = [answer for part in pool.map(send, range(associations)) for answer in part]
    seconds = time.perf_counter() - started
    whole = receiver.whole_instances()
    lost = sum(status == SUCCESS and uid not in whole for status, uid in answers)
    return Crowd(associations, len(answers), seconds, dict(Counter(status for status, _ in answers)), lost)
