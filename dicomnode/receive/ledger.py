"""Group commit: Instances that arrive at once, over several Associations, share one transaction and its fsync.

Whoever comes first writes for all that wait; nobody is answered before the transaction that holds its rows is durable.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from dicomnode.audit.chain import append_many
from dicomnode.receive.records import Batch, Recorded, SpooledInstance
from dicomnode.store.engine import Store

MAX_BATCH = 64


@dataclass(slots=True, eq=False)
class _Waiting:
    """One Instance in the queue, and what became of it."""

    spooled: SpooledInstance
    durable: Callable[[], None]
    recorded: Recorded | None = None
    error: BaseException | None = None


class Ledger:
    """Writes the rows of received Instances. Any thread may call ``record``."""

    def __init__(self, store: Store, is_there: Callable[[str], bool]) -> None:
        self._store, self._is_there = store, is_there
        self._queue: list[_Waiting] = []
        self._callers = 0
        self._lock = threading.Lock()
        self._writing = threading.Lock()

    def record(self, spooled: SpooledInstance, durable: Callable[[], None]) -> Recorded:
        """Return when the rows and audit records of ``spooled`` are durable.

        ``durable`` returns when its file is, or raises: the commit of its rows begins after it. Where no other
        Instance is being recorded, its rows are written meanwhile.
        Raises Transient when the database is not available, whatever else failed as it came; nothing of
        ``spooled`` is in the database then.
        """
        mine = _Waiting(spooled, durable)
        with self._lock:
            alone, self._callers = self._callers == 0, self._callers + 1
        try:
            if not alone:  # the others' transactions do not wait for this file
                durable()
            self._enter(mine)
        finally:
            with self._lock:
                self._callers -= 1
        if mine.error is not None:
            raise mine.error
        assert mine.recorded is not None  # noqa: S101 - one of the two is set
        return mine.recorded

    def _enter(self, mine: _Waiting) -> None:
        with self._lock:
            self._queue.append(mine)
        with self._writing:
            while mine.recorded is None and mine.error is None:
                self._write(self._take())

    def _take(self) -> list[_Waiting]:
        with self._lock:
            taken, self._queue = self._queue[:MAX_BATCH], self._queue[MAX_BATCH:]
        return taken

    def _write(self, waiting: list[_Waiting]) -> None:
        """Write all in one transaction; what one of them spoils is tried again one by one."""
        try:
            self._commit(waiting)
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits for it, and raised there
            if len(waiting) > 1:
                for one in waiting:
                    self._write([one])
                return
            waiting[0].error = error

    def _commit(self, waiting: list[_Waiting]) -> None:
        with self._store.transaction() as connection:
            batch = Batch(connection, self._is_there)
            found = [batch.record(one.spooled) for one in waiting]
            append_many(connection, batch.entries)
            for one in waiting:
                one.durable()
        for one, recorded in zip(waiting, found, strict=True):
            one.recorded = recorded
