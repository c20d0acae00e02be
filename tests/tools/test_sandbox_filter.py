"""The filter on system calls, run as a program: also for machines that the tests are not on."""

from __future__ import annotations

import errno
import struct

import pytest

from ring0.errors import SandboxUnavailable
from ring0.tools.sandbox.seccomp import compile_filter
from ring0.tools.sandbox.syscalls import ALLOWED, EXAMINED

ALLOW, REFUSE, KILL = 0x7FFF0000, 0x50000, 0x80000000
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}


def decide(program: bytes, arch: int, number: int, *args: int) -> int:
    """Run the filter as Linux would."""
    data = struct.pack("<IIQ6Q", number, arch, 0, *(args + (0,) * 6)[:6])
    accumulator, at = 0, 0
    while True:
        code, yes, no, value = struct.unpack_from("=HBBI", program, at * 8)
        at += 1
        if code == 0x20:
            accumulator = struct.unpack_from("<I", data, value)[0]
        elif code == 0x54:
            accumulator &= value
        elif code == 0x05:
            at += value
        elif code == 0x06:
            return value
        else:
            tests = {
                0x15: accumulator == value,
                0x35: accumulator >= value,
                0x45: accumulator & value,
            }
            at += yes if tests[code] else no


@pytest.mark.parametrize("machine", MACHINES)
def test_the_filter_allows_what_is_listed_and_nothing_else(machine: str) -> None:
    column, arch = MACHINES[machine]
    program = compile_filter(machine)
    listed = {numbers[column] for numbers in ALLOWED.values()}
    examined = {numbers[column] for numbers in EXAMINED.values()}
    for number in range(470):
        if number not in examined:
            wanted = ALLOW if number in listed else REFUSE | errno.EPERM
            assert decide(program, arch, number) == wanted, number
    for newer in (470, 0x3FFFFFFF):
        assert decide(program, arch, newer) == REFUSE | errno.ENOSYS
    for other_table in (0x40000000, 0x40000001, 0xFFFFFFFF):
        assert decide(program, arch, other_table) == KILL
    assert decide(program, 0x40000003, 1) == KILL, "another architecture"


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("name", "args", "wanted"),
    [("clone", (0x11,), ALLOW), ("clone", (0x3D0F00,), ALLOW),
     *(("clone", (1 << bit | 0x11,), REFUSE | errno.EPERM) for bit in (17, 25, 26, 27, 28, 29, 30)),
     ("clone3", (0,), REFUSE | errno.ENOSYS),
     ("ioctl", (0, 0x5401), ALLOW), ("ioctl", (0, 0x5412), REFUSE | errno.EPERM),
     ("ioctl", (0, 0xDEADBEEF_00005412), REFUSE | errno.EPERM),
     ("personality", (0,), ALLOW), ("personality", (0xFFFFFFFF,), ALLOW),
     ("personality", (8,), REFUSE | errno.EPERM),
     ("prlimit64", (0,), ALLOW), ("prlimit64", (1,), REFUSE | errno.EPERM),
     ("prlimit64", (0, 4, 0), ALLOW), ("prlimit64", (0, 4, 1), REFUSE | errno.EPERM),
     ("prlimit64", (0, 4, 1 << 32), REFUSE | errno.EPERM), ("prlimit64", (0, 7, 1), ALLOW),
     ("setrlimit", (4,), REFUSE | errno.EPERM), ("setrlimit", (7,), ALLOW),
     ("socket", (1, 5, 0), ALLOW), ("socket", (2, 1 | 0x80800, 6), ALLOW),
     ("socket", (10, 2, 17), ALLOW), ("socket", (0xF_00000028, 1, 0), REFUSE | errno.EAFNOSUPPORT),
     ("socket", (2, 3, 0), REFUSE | errno.EPERM), ("socket", (2, 5, 0), REFUSE | errno.EPERM),
     ("socket", (2, 1, 132), REFUSE | errno.EPROTONOSUPPORT),
     ("socketpair", (1,), ALLOW), ("socketpair", (2,), REFUSE | errno.EAFNOSUPPORT)],
)  # fmt: skip
def test_the_filter_decides_by_arguments(
    machine: str, name: str, args: tuple[int, ...], wanted: int
) -> None:
    column, arch = MACHINES[machine]
    number = EXAMINED[name][column]
    assert number is not None
    assert decide(compile_filter(machine), arch, number, *args) == wanted


def test_a_machine_without_a_list_is_refused() -> None:
    with pytest.raises(SandboxUnavailable):
        compile_filter("riscv64")
