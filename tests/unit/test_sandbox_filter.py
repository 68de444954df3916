"""S11: the filter of system calls, instruction by instruction, for machines that this one is not."""

from __future__ import annotations

import errno
import os
import struct

import pytest

from dicomnode.sandbox import system_calls

OWN, OTHER = 4711, 1
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOWED = 0
X86, ARM = (0xC000003E, "x86_64"), (0xC00000B7, "aarch64")
READ, WRITE_FLAGS, THREAD = os.O_RDONLY, os.O_WRONLY | os.O_CREAT, 0x3D0F00


def judged(machine: tuple[int, str], call: int, *arguments: int, audit_name: int | None = None) -> int:
    """What the kernel would do with ``call``, by classic BPF (networking/filter.rst): 0, or the error it raises."""
    program = [struct.unpack("=HBBI", step) for step in system_calls._filter(system_calls._MACHINES[machine[1]], OWN)]
    padded = (*arguments, *[0] * (6 - len(arguments)))
    data = struct.pack("<iIQ6Q", call, machine[0] if audit_name is None else audit_name, 0, *padded)
    at = held = 0
    while True:
        code, if_true, if_false, value = program[at]
        at += 1
        if code == RETURN:
            assert value == 0x7FFF0000 or value >> 16 == 5
            return ALLOWED if value == 0x7FFF0000 else value & 0xFFFF
        if code == LOAD:
            held = struct.unpack_from("<I", data, value)[0]
            continue
        holds = {EQUAL: held == value, AT_LEAST: held >= value, ANY_BIT: bool(held & value)}[code]
        at += if_true if holds else if_false


CALLS = {
    "read": (X86, 0, (), ALLOWED),
    "open to read": (X86, 2, (0, READ), ALLOWED),
    "open to write": (X86, 2, (0, WRITE_FLAGS), errno.EPERM),
    "openat to read": (X86, 257, (0, 0, READ), ALLOWED),
    "openat to write": (X86, 257, (0, 0, WRITE_FLAGS), errno.EPERM),
    "openat2": (X86, 437, (), errno.ENOSYS),
    "a thread": (X86, 56, (THREAD,), ALLOWED),
    "a process": (X86, 56, (17,), errno.EPERM),
    "clone3": (X86, 435, (), errno.ENOSYS),
    "fork": (X86, 57, (), errno.EPERM),
    "a program": (X86, 59, (), errno.EPERM),
    "socket": (X86, 41, (), errno.EPERM),
    "ptrace": (X86, 101, (), errno.EPERM),
    "signal to itself": (X86, 62, (OWN,), ALLOWED),
    "signal to another": (X86, 62, (OTHER,), errno.EPERM),
    "limits of itself": (X86, 302, (0,), ALLOWED),
    "limits of another": (X86, 302, (OTHER,), errno.EPERM),
    "unlink": (X86, 87, (), errno.EPERM),
    "io_uring": (X86, 425, (), errno.EPERM),
    "read of x32": (X86, 0x40000000, (), errno.EPERM),
    "the highest of x32": (X86, 0x7FFFFFFF, (), errno.EPERM),
    "ARM: read": (ARM, 63, (), ALLOWED),
    "ARM: openat to read": (ARM, 56, (0, 0, READ), ALLOWED),
    "ARM: openat to write": (ARM, 56, (0, 0, WRITE_FLAGS), errno.EPERM),
    "ARM: a thread": (ARM, 220, (THREAD,), ALLOWED),
    "ARM: a process": (ARM, 220, (17,), errno.EPERM),
    "ARM: a program": (ARM, 221, (), errno.EPERM),
    "ARM: socket": (ARM, 198, (), errno.EPERM),
    "ARM: ptrace": (ARM, 117, (), errno.EPERM),
    "ARM: signal to another": (ARM, 129, (OTHER,), errno.EPERM),
    "ARM: unlinkat": (ARM, 35, (), errno.EPERM),
}


@pytest.mark.parametrize("name", CALLS)
def test_s11_each_call_is_judged_as_it_must_be(name: str) -> None:
    """S11: what the kernel of this machine cannot show: the other kind of machine, and calls of the x32 kind."""
    machine, call, arguments, expected = CALLS[name]
    assert judged(machine, call, *arguments) == expected


@pytest.mark.parametrize("machine", [X86, ARM])
def test_s11_calls_by_the_numbers_of_another_machine_are_refused(machine: tuple[int, str]) -> None:
    """S11: 32-bit calls have other numbers, of which the filter says nothing."""
    assert judged(machine, 63 if machine is ARM else 0, audit_name=0x40000003) == errno.EPERM
