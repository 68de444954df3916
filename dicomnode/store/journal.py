"""The intake journal: one cheap sync makes received files durable before their own, dear syncs are due.

A new file costs a journal commit of the file system (inode, folder, blocks) when it is synced. Written once more into
a file whose blocks exist already, the same bytes are durable after one ``fdatasync`` of data alone, which all
Associations that wait at that moment share. The files themselves are synced in the background, a segment at a time; a
start puts back from the journal what a power failure took from them (``journal_replay``).
"""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path

from dicomnode.errors import Transient
from dicomnode.store.journal_record import Record, encode_head, span
from dicomnode.store.spool import Spool, sync_folder, write_all

SEGMENTS = 2
RETRY_S = 5.0
_ZEROS = bytes(1024 * 1024)
_log = logging.getLogger(__name__)


class GroupSync:
    """``fdatasync`` of one file, shared by all threads that wait for it when it begins."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._turn = threading.Condition()
        self._asked = self._durable = 0
        self._running = False

    def sync(self) -> None:
        """Return after a sync that began after this call. Raises OSError."""
        with self._turn:
            self._asked += 1
            mine = self._asked
            while self._running and self._durable < mine:
                self._turn.wait()
            if self._durable >= mine:
                return
            self._running, upto = True, self._asked
        done = 0
        try:
            os.fdatasync(self._descriptor)
            done = upto
        finally:
            with self._turn:
                self._running = False
                self._durable = max(self._durable, done)
                self._turn.notify_all()


@dataclass(slots=True)
class _Segment:
    """One preallocated file. ``records``: of spool files that are durable nowhere else; ``writers``: threads at it."""

    file: Path
    descriptor: int
    group: GroupSync
    end: int = 0
    writers: int = 0
    records: list[Record] = field(default_factory=list)


class IntakeJournal:
    """The journal of one process. Any thread may call ``save``."""

    def __init__(self, spool: Spool, owner: str, segment_bytes: int) -> None:
        """Prepare; the segments are made in the background, until then nothing is saved. ``owner`` names the files."""
        self._spool, self._owner, self._bytes = spool, owner, segment_bytes
        self._segments: list[_Segment] = []
        self._current = 0
        self._lock = threading.Lock()
        self._wanted = threading.Event()
        self._closing = self._broken = False
        self._worker = threading.Thread(target=self._run, name="journal", daemon=True)
        self._worker.start()

    def save(self, path: str, content: bytes | bytearray) -> bool:
        """Make ``content``, that of the spool file ``path``, durable. False: there is no room now, sync it yourself.

        Raises Transient when the disk fails; nothing is saved by this journal any more then.
        """
        reserved = self._reserve(path, len(content))
        if reserved is None:
            return False
        segment, record = reserved
        try:
            write_all(segment.descriptor, (encode_head(record), content), record.offset)
            segment.group.sync()
        except OSError as error:
            self._broken = True
            raise Transient(f"spool: disk error {error.errno}") from error
        finally:
            with self._lock:
                segment.writers -= 1
        return True

    def close(self) -> None:
        """Sync the files of which it holds the durable copy, and remove it; what cannot be synced stays in it."""
        self._closing = True
        self._wanted.set()
        self._worker.join()
        for segment in self._segments:
            if self._settle(segment):
                segment.file.unlink(missing_ok=True)
            os.close(segment.descriptor)
        self._segments = []

    def _reserve(self, path: str, size: int) -> tuple[_Segment, Record] | None:
        room = span(path, size)
        with self._lock:
            if self._broken or self._closing or not self._segments or room > self._bytes:
                return None
            segment = self._segments[self._current]
            if segment.end + room > self._bytes:
                self._wanted.set()
                following = (self._current + 1) % len(self._segments)
                if self._segments[following].end:
                    return None
                self._current, segment = following, self._segments[following]
            record = Record(path, segment.end, size)
            segment.end += room
            segment.writers += 1
            segment.records.append(record)
            return segment, record

    def _run(self) -> None:
        try:
            made = [self._make(number) for number in range(SEGMENTS)]
        except OSError as error:
            _log.warning("no intake journal, every file is synced by itself", extra={"error": error.errno})
            return
        with self._lock:
            self._segments = made
        while not self._closing:
            self._wanted.wait(RETRY_S)
            self._wanted.clear()
            for number, segment in enumerate(made):
                self._recycle(number, segment)

    def _make(self, number: int) -> _Segment:
        file = self._spool.journal / f"{self._owner}.{number}"
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            for start in range(0, self._bytes, len(_ZEROS)):
                write_all(descriptor, (_ZEROS,), start)
            os.fsync(descriptor)
            sync_folder(file.parent)
        except OSError:  # what is left of it would keep a full disk full
            os.close(descriptor)
            file.unlink(missing_ok=True)
            raise
        return _Segment(file, descriptor, GroupSync(descriptor))

    def _recycle(self, number: int, segment: _Segment) -> None:
        """A segment that takes no more records, and whose files are durable by themselves, begins anew."""
        with self._lock:
            is_due = number != self._current and segment.end > 0 and segment.writers == 0
        if is_due and self._settle(segment):
            with self._lock:
                segment.end = 0

    def _settle(self, segment: _Segment) -> bool:
        """Sync the files of a segment that nobody writes; says whether all are durable by themselves now."""
        left = [record for record in segment.records if not self._settle_file(segment, record)]
        folders = {self._spool.absolute(record.path).parent for record in segment.records}
        try:
            for folder in folders:
                sync_folder(folder)
        except OSError:
            left = segment.records
        segment.records = left
        return not left

    def _settle_file(self, segment: _Segment, record: Record) -> bool:
        """Sync a file. A failed sync may have dropped its pages for good: then it is written again from the journal."""
        try:
            descriptor = os.open(self._spool.absolute(record.path), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        try:
            os.fsync(descriptor)
        except OSError:
            return self._write_again(segment, record)
        finally:
            os.close(descriptor)
        return True

    def _write_again(self, segment: _Segment, record: Record) -> bool:
        _log.error("a received file could not be synced", extra={"path": record.path})
        area, _, name = record.path.split("/")
        try:
            content = os.pread(segment.descriptor, record.size, record.content_offset)
            self._spool.store((content,), area, name)
        except (OSError, Transient):
            return False
        return True
