"""R20, S11: memory made beforehand is fresh, exactly what was asked for, bounded, and given back."""

from __future__ import annotations

import gc
import mmap
import resource
import weakref
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from dicomnode.sandbox import Sandbox, spare
from dicomnode.sandbox.lent import lent_memory
from dicomnode.sandbox.spare import Spare
from tests.lent_blocks import blocks_of
from tests.unit.test_sandbox import FUNCTIONS, LIMITS, MODULE

MIB = 1 << 20
POPULATE_WRITE = 23


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[mmap.mmap]]:
    """Every block that was prepared."""
    return blocks_of(spare, monkeypatch)


@pytest.fixture
def small() -> Iterator[Spare]:
    one = Spare(least=MIB, most=8 * MIB)
    yield one
    one.drop()


def prepared(one: Spare, size: int) -> None:
    """Have a block of ``size`` ready, as when nobody has waited for some time."""
    one.prepare(size)
    one.wait()


def faults() -> int:
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt


def can_populate() -> bool:
    with closing(lent_memory(mmap.PAGESIZE)) as page:
        try:
            page.madvise(POPULATE_WRITE)
        except OSError:
            return False
        return True


def test_small_blocks_are_not_prepared(small: Spare, made: list[weakref.ref[mmap.mmap]]) -> None:
    """R20: a node that reads small images holds no memory for them, and they do not cut up what is there."""
    small.prepare(MIB - 1)
    assert made == []
    prepared(small, 4 * MIB)
    assert small.take(MIB - 1) is None
    assert small.take(4 * MIB) is made[0]()
    assert small.take(4 * MIB) is None


@pytest.mark.skipif(not can_populate(), reason="the kernel has no MADV_POPULATE_WRITE")
def test_the_pages_are_made_before_they_are_asked_for(small: Spare) -> None:
    """Issue part 4: what takes longest is done when nobody waits for it."""
    size = 8 * MIB
    prepared(small, size)
    block = small.take(size)
    assert block is not None
    before = faults()
    for at in range(0, size, mmap.PAGESIZE):
        block[at] = 1
    assert faults() - before < size // mmap.PAGESIZE // 4


@pytest.mark.parametrize("size", [MIB, 3 * MIB + 17, 4 * MIB, 5 * MIB + 1, 30 * MIB])
def test_a_block_is_as_large_as_was_asked_and_all_zero(small: Spare, size: int) -> None:
    """S11: lengths are checked against what was asked for, however large the Series before was."""
    prepared(small, 4 * MIB)
    block = small.take(size)
    assert block is not None
    assert len(block) == size
    assert not block[:].strip(b"\0")
    block[size - 1] = 7


def test_no_pixel_of_an_earlier_series_is_ever_in_it(small: Spare) -> None:
    """S11: views of old pixels may still be held: their memory is not lent again, and stays theirs."""
    size = 2 * MIB
    prepared(small, size)
    for value in range(1, 4):
        block = small.take(size)
        assert block is not None
        assert not block[:].strip(b"\0")
        block[:] = bytes([value]) * size
        held = memoryview(block)
        prepared(small, size)
        assert set(held) == {value}


def test_one_block_is_held_and_no_more_than_the_bound(small: Spare, made: list[weakref.ref[mmap.mmap]]) -> None:
    """R20: idle memory is bounded, however large a Series was and how often it is asked for."""
    for size in (100 * MIB, 2 * MIB, 100 * MIB):
        small.prepare(size)
    (only,) = made
    memory = only()
    assert memory is not None
    assert len(memory) == 8 * MIB


def test_a_block_is_gone_once_it_is_dropped(small: Spare, made: list[weakref.ref[mmap.mmap]]) -> None:
    """R20: the end of a reader gives back what was prepared for it, also what is being made right now."""
    for wait in (False, True):
        small.prepare(8 * MIB)
        if wait:
            small.wait()
        small.drop()
    assert [memory() for memory in made] == [None, None]


def test_a_block_can_be_taken_while_it_is_made(small: Spare) -> None:
    """S11: nobody waits for the pages; nobody works on them once they are somebody's."""
    for _ in range(20):
        small.prepare(8 * MIB)
        block = small.take(MIB)
        assert block is not None
        assert len(block) == MIB
        block.close()


def test_a_call_gets_what_was_prepared_and_the_end_takes_it_back(made: list[weakref.ref[mmap.mmap]]) -> None:
    """R20, S11: from call to call the bytes are the child's, and nothing stays when the reader is closed."""
    size = 20 * MIB
    with Sandbox(FUNCTIONS, replace(LIMITS, shared_bytes=8 * size)) as sandbox:
        for calls in range(3):
            (block,) = sandbox.call(f"{MODULE}:many_writers", size // 8).blocks
            assert [block[at : at + 1] for at in range(0, size, size // 8)] == [bytes([n]) for n in range(1, 9)]
            assert len(block) == size
            assert len(made) == calls
            assert not made or made[-1]() is block
            del block
            sandbox.prepare(size)
    gc.collect()
    assert [memory() for memory in made] == [None] * 3


def test_what_a_call_may_take_is_bounded_as_before() -> None:
    """S11: prepared memory is no way around the limit of a call."""
    with Sandbox(FUNCTIONS, replace(LIMITS, shared_bytes=20 * MIB)) as sandbox:
        sandbox.prepare(20 * MIB)
        with pytest.raises(Exception, match="the images need more than 20 MiB of memory"):
            sandbox.call(f"{MODULE}:many_writers", 21 * MIB // 8)
