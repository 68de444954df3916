"""Scanners that send side by side and remember what they were promised."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from tests.faults.scu import SUCCESS, ConnectionLost, Image, Scu, make_image


@dataclass(slots=True)
class Account:
    """What one or more scanners were told: UID to SHA-256 of what was acknowledged, and every other status."""

    acknowledged: dict[str, str] = field(default_factory=dict)
    refused: dict[int, int] = field(default_factory=dict)
    lost: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, image: Image, status: int) -> None:
        """Remember the answer to ``image``."""
        with self.lock:
            if status == SUCCESS:
                self.acknowledged[image.uid] = image.sha256
            else:
                self.refused[status] = self.refused.get(status, 0) + 1

    def note_lost(self) -> None:
        """Remember a connection that ended without an answer."""
        with self.lock:
            self.lost += 1


class Scanner(threading.Thread):
    """Sends Studies of ``images`` images each, one Association per Study, until it is stopped or ``studies`` are done.

    An image without Success is sent again, in a new Association where the old one is gone.
    """

    def __init__(
        self,
        port: int,
        root: str,
        account: Account,
        *,
        images: int = 20,
        studies: int | None = None,
        side: int = 64,
        gate: threading.Event | None = None,
    ) -> None:
        """``gate``: a new Study begins only while it is set."""
        super().__init__(daemon=True, name=f"scanner {root}")
        self._gate = gate
        self._port, self._root, self._account = port, root, account
        self._images, self._studies, self._side = images, studies, side
        self.stopped = threading.Event()

    def run(self) -> None:
        study = 0
        while not self.stopped.is_set() and study != self._studies:
            if self._gate is not None and not self._gate.wait(0.5):
                continue
            study += 1
            root = f"{self._root}.{study}"
            self._send([make_image(root, number, side=self._side) for number in range(1, self._images + 1)])

    def _send(self, images: list[Image]) -> None:
        waiting = images
        while waiting and not self.stopped.is_set():
            try:
                with Scu(self._port) as scu:
                    waiting = [image for image in waiting if not self._store(scu, image)]
                    scu.release()
            except (OSError, ConnectionLost):
                self._account.note_lost()
                waiting = [image for image in waiting if image.uid not in self._account.acknowledged]
                self.stopped.wait(0.2)

    def _store(self, scu: Scu, image: Image) -> bool:
        if self.stopped.is_set():
            return False
        status = scu.store(image)
        self._account.note(image, status)
        if status != SUCCESS:
            self.stopped.wait(0.2)
        return status == SUCCESS


def start_scanners(port: int, count: int, account: Account, root: str = "2.25.7", **how: Any) -> list[Scanner]:
    """``count`` scanners at work, each with Studies of its own."""
    scanners = [Scanner(port, f"{root}.{number}", account, **how) for number in range(1, count + 1)]
    for scanner in scanners:
        scanner.start()
    return scanners


def stop_scanners(scanners: list[Scanner], limit_s: float = 90.0) -> None:
    """Let every scanner end what it is at. Raises AssertionError when one does not."""
    for scanner in scanners:
        scanner.stopped.set()
    for scanner in scanners:
        scanner.join(limit_s)
        assert not scanner.is_alive(), f"{scanner.name} hangs"
