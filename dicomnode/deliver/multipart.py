"""DICOM files as one multipart/related message (PS3.18 8.6.1.2, RFC 2387), streamed from the disk byte for byte."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from dicomnode.errors import Transient

_PIECE = 256 * 1024


class MultipartFiles:
    """The payload of a Store request. ``length`` in bytes; ``content_type`` names the boundary.

    The boundary is drawn anew for each message: no content can have been made to hold it.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        """Raises OSError when a file is not there."""
        boundary = uuid.uuid4().hex
        self.content_type = f'multipart/related; type="application/dicom"; boundary="{boundary}"'
        self._files = tuple((path, path.stat().st_size) for path in paths)
        self._head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        self._end = f"--{boundary}--\r\n".encode()
        framing = (len(self._head) + 2) * len(self._files) + len(self._end)
        self.length = framing + sum(size for _, size in self._files)

    def pieces(self) -> Iterator[bytes]:
        """The message in order. Raises Transient when a file changed its size or cannot be read."""
        for path, size in self._files:
            yield self._head
            yield from _content(path, size)
            yield b"\r\n"
        yield self._end


def _content(path: Path, size: int) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                size -= len(piece)
                yield piece
    except OSError as error:
        raise Transient("the file could not be read while it was sent") from error
    if size:
        raise Transient("the file changed while it was sent")
