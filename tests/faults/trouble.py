"""What goes wrong in a hospital, one thing at a time, on purpose."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from tests.faults.archive import Archive
from tests.faults.load import Account
from tests.faults.plugin import POISON
from tests.faults.scu import SUCCESS, ConnectionLost, Image, Scu, make_image
from tests.faults.whole import WholeNode


def bad_images(root: str) -> list[Image]:
    """Data sets that no scanner should send: cut off, of another UID, without a Series, with pixels missing, noise."""
    good = [make_image(f"{root}.{index}", 1, series=index) for index in range(1, 6)]
    cut, other, nameless, short, noise = good
    series = make_image(f"{root}.3", 1, series=3).data.index(b"\x20\x00\x0e\x00")
    pixels = short.data.index(b"\xe0\x7f\x10\x00")
    return [
        Image(cut.uid, cut.data[: len(cut.data) // 2]),
        Image(other.uid, good[0].data),
        Image(nameless.uid, nameless.data[:series] + nameless.data[series + 8 + nameless.data[series + 4] :]),
        Image(short.uid, short.data[: pixels + 4] + b"\x02\0\0\0\0\0"),
        Image(noise.uid, random.Random(root).randbytes(4096)),
    ]


def poison_series(root: str) -> list[Image]:
    """A Series that kills the process that analyses it."""
    return [make_image(root, number, fill=POISON) for number in (1, 2, 3)]


class Trouble:
    """Causes trouble to a node and its archive; ``caused`` counts what."""

    def __init__(self, node: WholeNode, archive: Archive, account: Account, seed: int) -> None:
        self._node, self._archive, self._account = node, archive, account
        self._random, self._serial = random.Random(seed), 0
        self.caused: Counter[str] = Counter()
        self.causes: dict[str, Callable[[], None]] = {
            "receive process killed": lambda: self.kill("receive"),
            "flow process killed": lambda: self.kill("flow"),
            "detect process killed": lambda: self.kill("detect"),
            "deliver process killed": lambda: self.kill("deliver"),
            "archive away": lambda: self.away(self._random.uniform(1, 8)),
            "archive slow": lambda: self.slow(self._random.uniform(1, 8)),
            "archive out of resources": lambda: self.moody(0xA700, self._random.uniform(1, 5)),
            "association aborted": lambda: self.break_off("abort"),
            "association reset": lambda: self.break_off("reset"),
            "association left": lambda: self.break_off("leave"),
            "bad data sets": self.send_bad,
            "series that kills its worker": self.send_poison,
        }

    def cause(self, name: str | None = None) -> str:
        """Cause one trouble, a random one unless ``name`` says which; returns its name."""
        chosen = name or self._random.choice(sorted(self.causes))
        self.causes[chosen]()
        self.caused[chosen] += 1
        return chosen

    def kill(self, duty: str) -> None:
        """SIGKILL to a process of that duty, where one runs: the number of one that has ended may be a stranger's."""
        members = {process.pid for process in self._node.members()}
        for owner, pid in self._node.duties().items():
            if owner.startswith(f"{duty}-") and pid in members:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                return

    def away(self, seconds: float) -> None:
        """The archive does not listen for some time."""
        self._archive.stop()
        time.sleep(seconds)
        self._archive.start()

    def slow(self, seconds: float) -> None:
        """The archive takes its time for every object."""
        self._archive.delay_s = 0.5
        time.sleep(seconds)
        self._archive.delay_s = 0.0

    def moody(self, status: int, seconds: float) -> None:
        """The archive refuses every object."""
        self._archive.status = status
        time.sleep(seconds)
        self._archive.status = 0x0000

    def break_off(self, how: str) -> None:
        """A scanner that goes away in the middle of an object."""
        with suppress(OSError, ConnectionLost), Scu(self._node.port) as scu:
            scu.send(make_image(self._root(), 1, side=128), share=self._random.random())
            if how == "abort":
                scu.abort()
            elif how == "reset":
                scu.reset()

    def send_bad(self) -> None:
        """Every kind of bad data set; what is accepted all the same counts as accepted."""
        self._send(bad_images(self._root()))

    def send_poison(self) -> None:
        """A Series that kills its worker."""
        self._send(poison_series(self._root()))

    def _send(self, images: list[Image]) -> None:
        for image in images:
            with suppress(OSError, ConnectionLost), Scu(self._node.port) as scu:
                status = scu.store(image)
                if status == SUCCESS:
                    self._account.note(image, status)
                scu.release()

    def _root(self) -> str:
        self._serial += 1
        return f"2.25.66.{self._serial}"
