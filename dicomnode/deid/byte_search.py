"""Many byte strings at once in long byte strings: the time does not depend on how many are looked for.

Tables of 65,536 bits hold the first two bytes of all values, then the two after them; what passes all is compared in
full. ASCII letters match in either case.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LEAST = 3
_SHORT = 6
_PIECE = 16 << 20


@dataclass(frozen=True, slots=True)
class Hit:
    """``value``, as it was given in lower case, begins at byte ``offset``."""

    offset: int
    value: bytes


class ByteSearch:
    """Looks for ``values``; those shorter than ``least`` bytes (three or more) are left out. Threads may share it."""

    def __init__(self, values: Iterable[bytes], least: int = LEAST) -> None:
        self._by_head: dict[bytes, list[bytes]] = {}
        self._tables = np.zeros((least // 2 + least % 2, 1 << 16), bool)
        self.longest = LEAST
        for value in {value.lower() for value in values if len(value) >= least}:
            self._by_head.setdefault(value[:LEAST], []).append(value)
            self.longest = max(self.longest, len(value))
            for number, table in enumerate(self._tables):
                pair = value[2 * number : 2 * number + 2]
                table[_pairs(pair)] = True

    def hits(self, data: bytes) -> Iterator[Hit]:
        """Every place of every value that stands alone: letters or digits on both sides belong to something else."""
        for start in range(0, max(len(data), 1), _PIECE):
            piece = data[start : start + _PIECE + self.longest].lower()
            before = data[start - 1 : start] if start else b""
            for offset in self._candidates(piece):
                if offset >= _PIECE:
                    break
                yield from self._whole(piece, int(offset), start, before.lower())

    def _candidates(self, piece: bytes) -> npt.NDArray[np.int64]:
        padded = piece + b"\0" * (2 * len(self._tables) + 2 + len(piece) % 2)
        found = []
        for shift in (0, 1):
            pairs = np.frombuffer(padded, "<u2", count=(len(padded) - shift) // 2, offset=shift)
            places = np.flatnonzero(self._tables[0][pairs])
            for number, table in enumerate(self._tables[1:], 1):
                places = places[places < len(pairs) - number]
                places = places[table[pairs[places + number]]]
            found.append(places * 2 + shift)
        return np.sort(np.concatenate(found))

    def _whole(self, piece: bytes, offset: int, start: int, before: bytes) -> Iterator[Hit]:
        for value in self._by_head.get(piece[offset : offset + LEAST], ()):
            end = offset + len(value)
            if piece[offset:end] != value:
                continue
            wide = 0 in value
            left = piece[max(0, offset - 1 - wide) : offset] or before
            neighbours = left.strip(b"\0")[-1:], piece[end : end + 1 + wide].strip(b"\0")[:1]
            if all(_alone(one, value) for one in neighbours) and not _longer_uid(value, piece[end : end + 2]):
                yield Hit(start + offset, value)


def _pairs(pair: bytes) -> int | list[int]:
    """The entries of a table for two bytes, or for one with anything after it."""
    return pair[0] | pair[1] << 8 if len(pair) == 2 else [pair[0] | other << 8 for other in range(256)]


def _alone(neighbour: bytes, value: bytes) -> bool:
    """A letter beside letters, or a digit beside digits, makes a longer word or number; of short values either does."""
    if len(value) < _SHORT:
        return not neighbour.isalnum()
    shown = value.replace(b"\0", b"")
    edges = shown[:1] + shown[-1:]
    return not ((neighbour.isalpha() and edges.isalpha()) or (neighbour.isdigit() and edges.isdigit()))


def _longer_uid(value: bytes, after: bytes) -> bool:
    """Whether ``value``, a UID, goes on behind its end with another component."""
    return b"." in value and value[-1:].isdigit() and after[:1] == b"." and after[1:].isdigit()
