"""The intake journal: one cheap sync makes received files durable before their own, dear syncs are due.

A new file costs a journal commit of the file system (inode, folder, blocks) when it is synced. Written once more into
a file whose blocks exist already, the same bytes are durable after one ``fdatasync`` of data alone, which all
Associations that wait at that moment share. The write goes past the page cache where the file system can do that
(open(2), O_DIRECT): the bytes are copied once less. The files themselves are synced in the background, a segment at a
time; a start puts back from the journal what a power failure took from them (``journal_replay``).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import mmap
import os
import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dicomnode.errors import Transient
from dicomnode.store.journal_record import Record, RecordMemory, span
from dicomnode.store.spool import Spool, sync_folder, write_all
from dicomnode.store.sync import FileSystemSync

SEGMENTS = 2
MAX_SHARED = 64
RETRY_S = 5.0
_ZEROS_BYTES = 1024 * 1024
_log = logging.getLogger(__name__)


class Saving:
    """The record of one file on its way to the disk. Its segment keeps it until the block ends.

    That may be the durable copy of the file only while there is a file: the block ends when it has its name, or is
    given up.
    """

    def __init__(self, segment: _Segment, record: Record, block: memoryview) -> None:
        self.segment, self.record, self.block = segment, record, block
        self._error: OSError | None = None
        self._under_way = threading.Lock()
        self._under_way.acquire()

    def __enter__(self) -> Saving:
        return self

    def __exit__(self, *_: object) -> None:
        """The memory of the record is the caller's again."""
        with self._under_way, self.segment.lock:
            self.segment.held -= 1

    def end(self, error: OSError | None) -> None:
        """It is durable; or ``error`` says why not."""
        self._error = error
        self._under_way.release()

    def wait(self) -> None:
        """Return when it is durable, however often it is asked. Raises Transient when the disk failed."""
        with self._under_way:
            error = self._error
        if error is not None:
            raise Transient(f"spool: disk error {error.errno}") from error


@dataclass(slots=True)
class _Segment:
    """One preallocated file. ``records``: of spool files that are durable nowhere else; ``held``: how many of them
    may have no file yet.
    """

    file: Path
    descriptor: int
    end: int = 0
    held: int = 0
    records: list[Record] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


class IntakeJournal:
    """The journal of one process. Any thread may call ``begin``."""

    def __init__(self, spool: Spool, owner: str, segment_bytes: int) -> None:
        """Prepare; the segments are made in the background, until then nothing is saved. ``owner`` names the files."""
        self._spool, self._owner, self._bytes = spool, owner, segment_bytes
        self._segments: list[_Segment] = []
        self._received = FileSystemSync(spool.root / "received")
        self._current = 0
        self._lock = threading.Lock()
        self._wanted = threading.Event()
        self._closing = self._broken = False
        self._asked: queue.SimpleQueue[Saving | None] = queue.SimpleQueue()
        self._worker = threading.Thread(target=self._run, name="journal", daemon=True)
        self._writer = threading.Thread(target=self._write_all, name="journal writer", daemon=True)
        self._worker.start()
        self._writer.start()

    def begin(self, path: str, memory: RecordMemory, size: int) -> Saving | None:
        """Begin to make ``size`` bytes of ``memory.content(path)``, those of the spool file ``path``, durable.

        They must not change before that is done. None: there is no room now, sync it yourself. When the disk fails,
        nothing is saved by this journal any more.
        """
        with self._lock:
            saving = self._reserve(path, memory, size)
            if saving is not None:
                self._asked.put(saving)
        return saving

    def close(self) -> None:
        """Sync the files of which it holds the durable copy, and remove it; what cannot be synced stays in it."""
        with self._lock:
            self._closing = True
        self._wanted.set()
        self._worker.join()
        self._asked.put(None)
        self._writer.join()
        for segment in self._segments:
            if not segment.held and self._settle(segment):
                segment.file.unlink(missing_ok=True)
            os.close(segment.descriptor)
        self._segments = []
        self._received.close()

    def _reserve(self, path: str, memory: RecordMemory, size: int) -> Saving | None:
        room = span(path, size)
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
        segment.records.append(record)
        with segment.lock:
            segment.held += 1
        return Saving(segment, record, memory.block(record))

    def _write_all(self) -> None:
        """Whatever waits is written, and shares one sync that begins after it."""
        while (first := self._asked.get()) is not None:
            waiting = [first]
            while len(waiting) < MAX_SHARED and not self._asked.empty():
                following = self._asked.get()
                if following is None:
                    self._asked.put(None)
                    break
                waiting.append(following)
            self._write(waiting)

    def _write(self, waiting: Sequence[Saving]) -> None:
        failed = None
        try:
            for row in _in_a_row(waiting):
                write_all(row[0].segment.descriptor, [one.block for one in row], row[0].record.offset)
            for descriptor in {one.segment.descriptor for one in waiting}:
                os.fdatasync(descriptor)
        except OSError as error:
            self._broken, failed = True, error
        for one in waiting:
            one.end(failed)

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
        try:
            return _Segment(file, self._fill(file, os.O_DIRECT))
        except OSError as error:
            if error.errno != errno.EINVAL:  # the file system has no such way
                raise
        return _Segment(file, self._fill(file, 0))

    def _fill(self, file: Path, flags: int) -> int:
        """Make ``file`` with all its blocks; returns its descriptor, opened with ``flags``."""
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | flags, 0o600)
        zeros = memoryview(mmap.mmap(-1, _ZEROS_BYTES))
        try:
            for start in range(0, self._bytes, _ZEROS_BYTES):
                write_all(descriptor, (zeros,), start)
            os.fsync(descriptor)
            sync_folder(file.parent)
        except OSError:  # what is left of it would keep a full disk full
            os.close(descriptor)
            file.unlink(missing_ok=True)
            raise
        return descriptor

    def _recycle(self, number: int, segment: _Segment) -> None:
        """A segment that takes no more records, and whose files are durable by themselves, begins anew."""
        with self._lock:
            is_due = number != self._current and segment.end > 0 and segment.held == 0
        if is_due and self._settle(segment):
            with self._lock:
                segment.end = 0

    def _settle(self, segment: _Segment) -> bool:
        """Sync the files of a segment that nobody writes; says whether all are durable by themselves now."""
        try:
            self._received.sync(SEGMENTS * self._bytes)
        except OSError:  # one by one: to learn which, or not to wait for what others write
            return self._settle_each(segment)
        segment.records = []
        return True

    def _settle_each(self, segment: _Segment) -> bool:
        left = [record for record in segment.records if not self._settle_file(segment, record)]
        folders = {self._spool.absolute(record.path).parent for record in segment.records}
        try:
            for folder in folders:
                with contextlib.suppress(FileNotFoundError):  # nothing was ever placed there
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
            with segment.file.open("rb") as stream:  # the descriptor may read whole blocks only
                content = os.pread(stream.fileno(), record.size, record.content_offset)
            self._spool.store((content,), area, name)
        except (OSError, Transient):
            return False
        return True


def _in_a_row(waiting: Sequence[Saving]) -> Iterator[list[Saving]]:
    """Records that follow each other in one segment, together: they are written by one call."""
    row: list[Saving] = []
    for one in waiting:
        end = row[-1].record.offset + len(row[-1].block) if row else None
        if row and (one.segment is not row[0].segment or one.record.offset != end):
            yield row
            row = []
        row.append(one)
    yield row
