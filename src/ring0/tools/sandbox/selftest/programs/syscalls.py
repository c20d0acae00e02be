"""Knocks at the parts of Linux that a sandboxed program has no business with.

With these arguments each call does nothing, or fails for another reason than a refusal: that Linux
looked at the arguments is what counts, because there the attack would begin.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import struct
from collections.abc import Callable

from ring0.tools.sandbox.selftest.programs.inside import (
    NEW_USER,
    REFUSALS,
    Missing,
    Target,
    end,
    forked,
    libc,
    number,
    reached,
    syscall,
)

PTRACE_SEIZE, PTRACE_TRACEME = 0x4206, 0
AT_FDCWD = -100


def call(target: Target) -> str:
    """The one that is named."""
    return CALLS[target["given"]]()


def _buffer(size: int = 256) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(size)


def _io_uring() -> str:
    """A ring, through which other calls go unseen by the filter."""
    os.close(syscall(425, 2, _buffer()))
    return "a ring"


def _io_uring_more() -> str:
    return reached(427, -1, 0, None, 0)


def _userfaultfd() -> str:
    os.close(syscall(number(323, 282), 1))
    return "a descriptor that stops the kernel in the middle of a copy"


def _perf() -> str:
    """A counter of its own page faults."""
    attributes = (ctypes.c_uint64 * 16)(1 | 128 << 32, 2)
    attributes[5] = 1 << 5 | 1 << 6  # not of the kernel, not of the hypervisor
    os.close(syscall(number(298, 241), attributes, 0, -1, -1, 0))
    return "a counter"


def _ptrace_child() -> str:
    """Its own child's system calls, changed after the filter has looked at them."""
    child = forked(signal.pause)
    try:
        syscall(number(101, 117), PTRACE_SEIZE, child, 0, 0)
    finally:
        end([child])
    return "it holds a process"


def _traceme() -> str:
    syscall(number(101, 117), PTRACE_TRACEME, 0, 0, 0)
    return "it is held"


def _read_memory() -> str:
    """A child's memory, by its pid."""
    secret = ctypes.create_string_buffer(b"of the child")
    child = forked(signal.pause)
    found = _buffer(12)
    try:
        local = (ctypes.c_uint64 * 2)(ctypes.addressof(found), 12)
        remote = (ctypes.c_uint64 * 2)(ctypes.addressof(secret), 12)
        syscall(number(310, 270), child, local, 1, remote, 1, 0)
    finally:
        end([child])
    return found.raw.decode()


def _take_descriptor() -> str:
    """A child's open file, by its pidfd."""
    child = forked(signal.pause)
    pidfd = os.pidfd_open(child)
    try:
        os.close(syscall(438, pidfd, 0, 0))
    finally:
        end([child])
    return "its descriptor"


def _handle() -> tuple[bytes, int]:
    record = ctypes.create_string_buffer((128).to_bytes(4, "little"), 136)
    place = ctypes.create_string_buffer(8)
    syscall(number(303, 264), AT_FDCWD, b"/", record, place, 0)
    return record.raw, int.from_bytes(place.raw[:4], "little")


def _name_to_handle() -> str:
    try:
        _handle()
    except OSError as error:
        if error.errno in REFUSALS:
            raise
    return "a file's number on its disk"


def _open_by_handle() -> str:
    """Any file of the disk, by a number that can be guessed (how Docker was left in 2014)."""
    record = ctypes.create_string_buffer((8).to_bytes(4, "little"), 136)
    return reached(number(304, 265), -1, record, 0)


def _fanotify() -> str:
    fd = syscall(number(300, 262), 0x200, 0)  # FAN_REPORT_FID: for everybody since 5.13
    os.close(fd)
    return "events of files"


def _install(program: bytes, flags: int) -> int:
    """A filter of its own on top of ours."""
    text = ctypes.create_string_buffer(program, len(program))
    head = (ctypes.c_uint64 * 2)(len(program) // 8, ctypes.addressof(text))
    libc.prctl(ctypes.c_int(38), *(ctypes.c_long(value) for value in (1, 0, 0, 0)))
    return syscall(number(317, 277), 1, flags, head)


def _allow() -> str:
    """One that allows everything."""
    _install(struct.pack("=HBBI", 6, 0, 0, 0x7FFF_0000), 0)
    syscall(number(272, 97), NEW_USER)
    return "a user namespace, behind a filter that allows all"


def _notify() -> str:
    """One that asks its listener, which says "go on" to what ours refuses."""
    unshare = number(272, 97)
    load = struct.pack("=HBBI", 0x20, 0, 0, 0)
    jump = struct.pack("=HBBI", 0x15, 0, 1, unshare)
    ask = struct.pack("=HBBI", 6, 0, 0, 0x7FC0_0000)
    allow = struct.pack("=HBBI", 6, 0, 0, 0x7FFF_0000)
    listener = _install(load + jump + ask + allow, 8)
    child = os.fork()
    if child == 0:
        try:
            syscall(unshare, NEW_USER)
            os._exit(0)
        except OSError:
            os._exit(1)
    if select.select([listener], [], [], 1)[0]:
        question = ctypes.create_string_buffer(80)
        syscall(number(16, 29), listener, 0xC050_2100, question)
        answer = ctypes.create_string_buffer(question.raw[:8] + struct.pack("=qiI", 0, 0, 1), 24)
        syscall(number(16, 29), listener, 0xC018_2101, answer)
    status = os.waitpid(child, 0)[1]
    return "a user namespace, by its own word" if status == 0 else ""


def _vmsplice() -> str:
    reading, _ = os.pipe()
    return reached(number(278, 75), reading, 0, 0, 0)


def _terminal(request: int) -> str:
    return reached(number(16, 29), 0, request, _buffer())


def _prlimit_parent() -> str:
    if os.getppid() == 0:
        raise Missing("its parent is not in its namespace")
    return reached(number(302, 261), os.getppid(), 7, None, _buffer())


def _keyring() -> str:
    return reached(number(250, 219), 0, -3, 0)


def _add_key() -> str:
    syscall(number(248, 217), b"user", b"ring0-selftest", b"x", 1, -2)
    return "a key"


def _request_key() -> str:
    return reached(number(249, 218), b"user", b"ring0-none", None, 0)


def _shared_memory() -> str:
    identity = syscall(number(29, 194), 0, 4096, 0o600)
    syscall(number(31, 195), identity, 0, None)
    return "a segment"


def _message_queue() -> str:
    return reached(number(240, 180), b"ring0-none", 0, 0, None)


def _x32() -> str:
    if os.uname().machine != "x86_64":
        number(1, -1)
    return f"getpid says {syscall(0x4000_0000 | 39)}"


def _real_time() -> str:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    return "before everybody else"


def _protection() -> str:
    """pid 1's file descriptors and memory, by a syscall that compares."""
    return reached(number(312, 272), os.getpid(), os.getpid(), 0, 0, 0)


CALLS: dict[str, Callable[[], str]] = {
    "io_uring_setup": _io_uring,
    "io_uring_register": _io_uring_more,
    "bpf": lambda: reached(number(321, 280), 9999, None, 0),
    "userfaultfd": _userfaultfd,
    "perf_event_open": _perf,
    "ptrace_seize": _ptrace_child,
    "ptrace_traceme": _traceme,
    "process_vm_readv": _read_memory,
    "process_vm_writev": lambda: reached(number(311, 271), os.getpid(), None, 0, None, 0, 0),
    "pidfd_getfd": _take_descriptor,
    "kcmp": _protection,
    "kexec_load": lambda: reached(number(246, 104), 0, 0, None, 0xFFFF),
    "init_module": lambda: reached(number(175, 105), None, 0, None),
    "finit_module": lambda: reached(number(313, 273), -1, b"", 0),
    "delete_module": lambda: reached(number(176, 106), b"ring0_none", 0o4000),
    "reboot": lambda: reached(number(169, 142), 0, 0, 0, None),  # the magic numbers are wrong
    "swapon": lambda: reached(number(167, 224), b"/nowhere", 0),
    "settimeofday": lambda: reached(number(170, 170), None, None),
    "syslog": lambda: reached(number(103, 116), 10, None, 0),
    "ioperm": lambda: reached(number(173, -1), 0x80, 1, 0),
    "iopl": lambda: reached(number(172, -1), 3),
    "quotactl": lambda: reached(number(179, 60), 0x800001 << 8, None, 0, None),
    "name_to_handle_at": _name_to_handle,
    "open_by_handle_at": _open_by_handle,
    "fanotify_init": _fanotify,
    "modify_ldt": lambda: reached(number(154, -1), 0, _buffer(), 16),
    "personality": lambda: reached(number(135, 92), 0x0004_0000),
    "vmsplice": _vmsplice,
    "move_pages": lambda: reached(number(279, 239), 0, 0, None, None, None, 0),
    "mbind": lambda: reached(number(237, 235), 0, 0, 0, None, 0, 0),
    "add_key": _add_key,
    "request_key": _request_key,
    "keyctl": _keyring,
    "shmget": _shared_memory,
    "msgget": lambda: reached(number(68, 186), 0x7269_6E67, 0),
    "semget": lambda: reached(number(64, 190), 0x7269_6E67, 0, 0),
    "mq_open": _message_queue,
    "x32": _x32,
    "seccomp_allow": _allow,
    "seccomp_notify": _notify,
    "tiocsti": lambda: _terminal(0x5412),
    "tiocsti_high_bits": lambda: _terminal(0x5412 | 0xDEADBEEF << 32),
    "tioclinux_high_bits": lambda: _terminal(0x541C | 1 << 32),
    "line_discipline": lambda: _terminal(0x5423),
    "prlimit_of_parent": _prlimit_parent,
    "sched_fifo": _real_time,
}
