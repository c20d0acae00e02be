"""Tries to get into other namespaces, where it would have every capability again."""

from __future__ import annotations

import ctypes
import os
import signal
import socket

from ring0.tools.sandbox.selftest.programs.inside import (
    ARM,
    NEW_USER,
    NEW_UTS,
    Target,
    end,
    first,
    libc,
    number,
    pids,
    syscall,
)


def unshare(target: Target) -> str:
    """`given` is the flag; a user namespace brings all capabilities."""
    if libc.unshare(ctypes.c_int(target["given"])):
        raise OSError(ctypes.get_errno(), "")
    return "in a namespace of its own making"


def clone(target: Target) -> str:
    flags = NEW_USER | signal.SIGCHLD
    pid = syscall(number(56, 220), flags, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return "a child in a user namespace"


def clone3(target: Target) -> str:
    """The same, with the flags where a filter can't read them."""
    record = (ctypes.c_uint64 * 11)(NEW_USER, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, 0)
    pid = syscall(435, record, 88)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return "a child in a user namespace"


def join(target: Target) -> str:
    """Somebody else's namespaces, by /proc or by a pidfd."""
    children: list[int] = []
    if not target["inside"]:
        children.append(_in_other_namespace())

    def attempt(pid: str) -> str:
        with open(f"/proc/{pid}/ns/uts") as file:
            if os.readlink(f"/proc/{pid}/ns/uts") == os.readlink("/proc/self/ns/uts"):
                return ""
            syscall(number(308, 268), file.fileno(), NEW_UTS)
        return f"in the namespace of {pid}"

    try:
        return first(attempt, [str(pid) for pid in (children or pids())])
    finally:
        end(children)


def join_by_pidfd(target: Target) -> str:
    """All of init's namespaces in one call."""
    child = 0 if target["inside"] else _in_other_namespace()
    pidfd = syscall(434, 1 if target["inside"] else child, 0)
    try:
        syscall(number(308, 268), pidfd, NEW_UTS)
    finally:
        if child:
            end([child])
    return "in its namespace"


def _in_other_namespace() -> int:
    """A child that has another host name than we do."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        libc.unshare(ctypes.c_int(NEW_UTS))
        os.write(writing, b".")
        signal.pause()
    os.read(reading, 1)
    return pid


def rename_machine(target: Target) -> str:
    """The host's name belongs to its namespace's owner."""
    socket.sethostname("attacked")
    return socket.gethostname()


def interrupt_32(target: Target) -> str:
    """The system calls of i386, whose numbers a filter for x86_64 does not know: getpid."""
    if ARM:
        number(1, -1)
    import mmap

    code = b"\x53\xb8\x14\x00\x00\x00\xcd\x80\x5b\xc3"  # push rbx; mov eax, 20; int 0x80; ...
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    answer = ctypes.CFUNCTYPE(ctypes.c_long)(address)()
    return f"getpid says {answer}" if answer == os.getpid() else ""
