"""The sandbox's filter on system calls: an allow-list (syscalls.py) as a classic BPF program.

Compiled in the kernel process and handed to the launcher as bytes. It is no boundary by itself:
it makes the part of Linux that a tenant can reach small. What is not listed gets EPERM.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ring0.errors import SandboxUnavailable
from ring0.tools.sandbox.syscalls import (
    ALLOWED,
    EXAMINED,
    KNOWN_MAX,
    NO_ATTRIBUTES,
    NOT_BY_PATH,
    NOT_WITHOUT_NAMESPACES,
)

# Classic BPF, as in linux/bpf_common.h: load a word, mask, compare, jump, return.
_LOAD: Final = 0x20
_AND: Final = 0x54
_JUMP: Final = 0x05
_JUMP_EQUAL: Final = 0x15
_JUMP_AT_LEAST: Final = 0x35
_JUMP_ANY_BIT: Final = 0x45
_RETURN: Final = 0x06

# Offsets in struct seccomp_data. Both architectures are little-endian: the low 32 bits come first.
_NUMBER: Final = 0
_ARCH: Final = 4

_KILL: Final = 0x8000_0000
_ALLOW: Final = 0x7FFF_0000
_ERRNO: Final = 0x0005_0000

_X32_BIT: Final = 0x4000_0000
_ARCHES: Final = {"x86_64": (0, 0xC000_003E), "aarch64": (1, 0xC000_00B7)}
"""Machine → (column in syscalls.py, AUDIT_ARCH_*)."""

CLONE_NEW_ANY: Final = 0x7E02_0000
"""All CLONE_NEW* that clone() knows: mount, cgroup, uts, ipc, user, pid, net."""

IOCTLS_REFUSED: Final = {
    "TIOCSTI": 0x5412,  # types on a terminal as if a person did
    "TIOCLINUX": 0x541C,  # pastes on a console
    "TIOCCONS": 0x541D,  # takes the console's output
    "TIOCSETD": 0x5423,  # loads line disciplines: a history of kernel bugs
}

_AF_UNIX, _AF_INET, _AF_INET6 = 1, 2, 10
_SOCK_STREAM, _SOCK_DGRAM, _SOCK_SEQPACKET = 1, 2, 5
_RLIMIT_CORE: Final = 4
_PROTOCOLS: Final = (0, 6, 17)  # default, TCP, UDP. Others make Linux load modules


@dataclass(frozen=True)
class _Step:
    """One instruction; `yes` and `no` name labels, None is the next instruction."""

    code: int
    value: int
    yes: str | None = None
    no: str | None = None


_Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, value


def compile_filter(machine: str, *, bare: bool = False, own_uid: bool = True) -> bytes:
    """The program for `machine` (as in `os.uname().machine`): an array of struct sock_filter.

    `bare` is for a sandbox without namespaces: no socket that could reach the machine's, nothing
    that says more of it; where it has not even an `own_uid`, nothing that Landlock lets through
    and that changes what belongs to the kernel's user."""
    if machine not in _ARCHES:
        raise SandboxUnavailable(
            f"The sandbox has no list of system calls for {machine}.",
            why="Without one, no program can be filtered.",
            todo="Run ring0 on x86_64 or aarch64.",
        )
    column, arch = _ARCHES[machine]
    program = _assemble(
        _Step(_LOAD, _ARCH),
        _Step(_JUMP_EQUAL, arch, "known", None),
        _Step(_RETURN, _KILL),
        "known",
        _Step(_LOAD, _NUMBER),
    )
    without = (NOT_WITHOUT_NAMESPACES if bare else frozenset()) | (
        frozenset() if own_uid else NOT_BY_PATH | NO_ATTRIBUTES
    )
    program += _search(_segments(column, without))
    assert len(program) <= 4096, "the kernel takes no more (BPF_MAXINSNS)"
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def _segments(column: int, without: frozenset[str]) -> list[tuple[int, list[_Instruction]]]:
    """Ranges of syscall numbers, each as (first number, what to do); together all 32 bits."""
    leaves = {n[column]: _assemble(_Step(_RETURN, _ALLOW)) for n in ALLOWED.values()}
    leaves |= {EXAMINED[name][column]: check for name, check in _checks().items()}
    refused = _assemble(_refuse(errno.EPERM))
    leaves |= {(ALLOWED | EXAMINED)[name][column]: refused for name in without - NO_ATTRIBUTES}
    absent = _assemble(_refuse(errno.ENOTSUP))
    leaves |= {ALLOWED[name][column]: absent for name in without & NO_ATTRIBUTES}
    if "socket" in without:
        leaves[EXAMINED["socketpair"][column]] = _socketpair_check()
    segments: list[tuple[int, list[_Instruction]]] = []
    for number in range(KNOWN_MAX + 1):
        leaf = leaves.get(number, refused)
        if not segments or segments[-1][1] != leaf:
            segments.append((number, leaf))
    segments.append((KNOWN_MAX + 1, _assemble(_refuse(errno.ENOSYS))))
    # The second table of x86_64; on aarch64 no such numbers exist, and they die there too.
    segments.append((_X32_BIT, _assemble(_Step(_RETURN, _KILL))))
    return segments


def _search(segments: Sequence[tuple[int, list[_Instruction]]]) -> list[_Instruction]:
    """A binary search over the ranges, so that no call costs more than about seven comparisons."""
    if len(segments) == 1:
        return segments[0][1]
    middle = len(segments) // 2
    below, above = _search(segments[:middle]), _search(segments[middle:])
    first = segments[middle][0]
    if len(below) <= 255:
        return [(_JUMP_AT_LEAST, len(below), 0, first), *below, *above]
    # A conditional jump reaches 255 instructions, an unconditional one any.
    return [(_JUMP_AT_LEAST, 0, 1, first), (_JUMP, 0, 0, len(below)), *below, *above]


def _checks() -> dict[str, list[_Instruction]]:
    """The calls whose arguments decide. Linux reads all of these as 32 bits, and so do we: a value
    with its high bits set is the same value (the trap that let TIOCSTI through elsewhere)."""
    allow, refuse = _Step(_RETURN, _ALLOW), _refuse(errno.EPERM)
    ioctls = [_Step(_JUMP_EQUAL, number, "refuse") for number in IOCTLS_REFUSED.values()]
    return {
        "clone": _assemble(
            _argument(0), _Step(_JUMP_ANY_BIT, CLONE_NEW_ANY, "refuse"), allow, "refuse", refuse
        ),
        "clone3": _assemble(_refuse(errno.ENOSYS)),
        "ioctl": _assemble(_argument(1), *ioctls, allow, "refuse", refuse),
        "personality": _assemble(
            _argument(0),
            _Step(_JUMP_EQUAL, 0, "allow"),
            _Step(_JUMP_EQUAL, 0xFFFF_FFFF, "allow"),
            refuse,
            "allow",
            allow,
        ),
        # Only one's own limits: init has the same uid and must not be starved through this. And
        # not the one on core dumps (see inside/init.py), but for reading it: without new values.
        "prlimit64": _assemble(
            _argument(0),
            _Step(_JUMP_EQUAL, 0, None, "refuse"),
            _argument(1),
            _Step(_JUMP_EQUAL, _RLIMIT_CORE, None, "allow"),
            _argument(2),
            _Step(_JUMP_EQUAL, 0, None, "refuse"),
            _Step(_LOAD, 16 + 8 * 2 + 4),
            _Step(_JUMP_EQUAL, 0, "allow"),
            "refuse",
            refuse,
            "allow",
            allow,
        ),
        "setrlimit": _assemble(
            _argument(0), _Step(_JUMP_EQUAL, _RLIMIT_CORE, "refuse"), allow, "refuse", refuse
        ),
        "socketpair": _assemble(
            _argument(0),
            _Step(_JUMP_EQUAL, _AF_UNIX, "allow"),
            _refuse(errno.EAFNOSUPPORT),
            "allow",
            allow,
        ),
        "socket": _socket_check(),
    }


def _socket_check() -> list[_Instruction]:
    return _assemble(
        _argument(0),
        _Step(_JUMP_EQUAL, _AF_UNIX, "allow"),
        _Step(_JUMP_EQUAL, _AF_INET, "type"),
        _Step(_JUMP_EQUAL, _AF_INET6, "type"),
        _refuse(errno.EAFNOSUPPORT),
        "type",
        _argument(1),
        _Step(_AND, 0xF),  # beside the type: SOCK_CLOEXEC, SOCK_NONBLOCK
        _Step(_JUMP_EQUAL, _SOCK_STREAM, "protocol"),
        _Step(_JUMP_EQUAL, _SOCK_DGRAM, "protocol"),
        _refuse(errno.EPERM),
        "protocol",
        _argument(2),
        *(_Step(_JUMP_EQUAL, number, "allow") for number in _PROTOCOLS),
        _refuse(errno.EPROTONOSUPPORT),
        "allow",
        _Step(_RETURN, _ALLOW),
    )


def _socketpair_check() -> list[_Instruction]:
    """Only pairs that stay pairs: one of datagrams can send to, and connect to, any other socket of
    the machine that has a path (journald's, for one)."""
    return _assemble(
        _argument(0),
        _Step(_JUMP_EQUAL, _AF_UNIX, None, "refuse"),
        _argument(1),
        _Step(_AND, 0xF),
        _Step(_JUMP_EQUAL, _SOCK_STREAM, "allow"),
        _Step(_JUMP_EQUAL, _SOCK_SEQPACKET, "allow"),
        "refuse",
        _refuse(errno.EPERM),
        "allow",
        _Step(_RETURN, _ALLOW),
    )


def _argument(index: int) -> _Step:
    """Load the low 32 bits of an argument."""
    return _Step(_LOAD, 16 + 8 * index)


def _refuse(number: int) -> _Step:
    return _Step(_RETURN, _ERRNO | number)


def _assemble(*lines: _Step | str) -> list[_Instruction]:
    """Resolve labels (the strings) to relative jumps. The result may stand anywhere."""
    places: dict[str, int] = {}
    steps: list[_Step] = []
    for line in lines:
        if isinstance(line, str):
            places[line] = len(steps)
        else:
            steps.append(line)

    def distance(at: int, label: str | None) -> int:
        return 0 if label is None else places[label] - at - 1

    return [
        (step.code, distance(at, step.yes), distance(at, step.no), step.value)
        for at, step in enumerate(steps)
    ]
