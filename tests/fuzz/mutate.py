"""Damage to valid input: every mutant is a function of a random generator, so that a seed repeats it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

MAX_BYTES = 256 * 1024
_WIDTHS = (1, 2, 4)
_INTERESTING = (0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0x80000000)
_TOP = (0xFFFFFFF0, 0xFFFFFFFE, 0xFFFFFFFF, 0x10000, 0x1000000, 0x40000000)

Operation = Callable[["Mutator", bytearray], None]


class Mutator:
    """Draws mutants. ``words``: byte strings that mean something to the reader, ``seeds``: valid inputs to splice."""

    def __init__(self, random: Random, words: Sequence[bytes], seeds: Sequence[bytes]) -> None:
        self.random, self.words, self.seeds = random, words or (b"\0",), seeds or (b"\0",)

    def mutant(self, data: bytes) -> bytes:
        """``data`` after one to eight operations, few being likelier; at most MAX_BYTES."""
        found = bytearray(data)
        for _ in range(1 + int(min(7.0, self.random.expovariate(0.7)))):
            self.random.choice(OPERATIONS)(self, found)
            del found[MAX_BYTES:]
        return bytes(found)

    def place(self, data: bytearray) -> int:
        """An offset; the beginning, where lengths and types stand, is likelier."""
        end = len(data)
        if self.random.random() < 0.3:
            end = min(end, 64)
        return self.random.randint(0, end)

    def block(self, data: bytearray) -> slice:
        start = self.place(data)
        return slice(start, start + self.random.choice((1, 2, 4, 8, 16, 64, 512, 4096)))


def _flip(mutator: Mutator, data: bytearray) -> None:
    if data:
        data[mutator.place(data) % len(data)] ^= 1 << mutator.random.randrange(8)


def _overwrite(mutator: Mutator, data: bytearray) -> None:
    if data:
        data[mutator.place(data) % len(data)] = mutator.random.randrange(256)


def _number(mutator: Mutator, data: bytearray) -> None:
    """A length or count that stands at the edge of its type, or just beside what stood there."""
    width, order = mutator.random.choice(_WIDTHS), mutator.random.choice(("little", "big"))
    start = mutator.place(data)
    if mutator.random.random() < 0.4:
        number = int.from_bytes(data[start : start + width], order) + mutator.random.randint(-8, 8)
    else:
        number = mutator.random.choice(_INTERESTING + _TOP)
    data[start : start + width] = (number % 256**width).to_bytes(width, order)


def _remove(mutator: Mutator, data: bytearray) -> None:
    del data[mutator.block(data)]


def _repeat(mutator: Mutator, data: bytearray) -> None:
    where = mutator.block(data)
    times = mutator.random.choice((1, 1, 1, 2, 8, 64, 600))
    data[where.start : where.start] = (bytes(data[where]) * times)[:MAX_BYTES]


def _swap(mutator: Mutator, data: bytearray) -> None:
    one, other = mutator.block(data), mutator.block(data)
    first, second = bytes(data[one]), bytes(data[other])
    data[one] = second
    data[other] = first


def _insert(mutator: Mutator, data: bytearray) -> None:
    start = mutator.place(data)
    data[start:start] = mutator.random.randbytes(mutator.random.choice((1, 2, 4, 8, 40, 300)))


def _word(mutator: Mutator, data: bytearray) -> None:
    word, start = mutator.random.choice(mutator.words), mutator.place(data)
    end = start + (len(word) if mutator.random.random() < 0.5 else 0)
    data[start:end] = word


def _splice(mutator: Mutator, data: bytearray) -> None:
    other = mutator.random.choice(mutator.seeds)
    start = mutator.random.randint(0, len(other))
    data[mutator.place(data) :] = other[start:]


def _cut(mutator: Mutator, data: bytearray) -> None:
    del data[mutator.place(data) :]


OPERATIONS: tuple[Operation, ...] = (
    _flip,
    _flip,
    _overwrite,
    _number,
    _number,
    _number,
    _remove,
    _repeat,
    _swap,
    _insert,
    _word,
    _word,
    _splice,
    _cut,
)
