"""Looks for processes that are not its own, and tries to outlive its end."""

# An attack: what a linter warns of is meant.
# ruff: noqa: S606

from __future__ import annotations

import ctypes
import os
import signal
import sys

from ring0.tools.sandbox.selftest.programs.inside import (
    Target,
    first_process,
    forked,
    number,
    pids,
    read_text,
    syscall,
)


def visible(target: Target) -> str:
    """Processes other than init, itself and its own."""
    status = [line.split() for line in read_text("/proc/self/status").splitlines()]
    own = {1, os.getpid(), *(int(field[1]) for field in status if field[0] in ("PPid:", "NSpid:"))}
    return " ".join(str(pid) for pid in pids() if pid not in own)


def signals(target: Target) -> str:
    """A process of the host's."""
    os.kill(target["prey"], signal.SIGTERM)
    return "sent"


def group_signal(target: Target) -> str:
    """The same by its group."""
    os.killpg(target["prey"], signal.SIGTERM)
    return "sent"


def by_pidfd(target: Target) -> str:
    signal.pidfd_send_signal(os.pidfd_open(target["prey"]), signal.SIGTERM)
    return "sent"


def init(target: Target) -> str:
    """Process 1 of the sandbox, and with it whoever watches; a process that is prey, outside."""
    pid = first_process(target)
    if pid != 1:
        os.kill(pid, signal.SIGKILL)
        return "sent"
    for which in (signal.SIGTERM, signal.SIGSEGV, signal.SIGKILL, 0):
        os.kill(pid, which)
    return ""  # it is still there: Linux keeps from it what comes from inside


def limits_of(target: Target) -> str:
    """Starve another process: no file may be opened any more."""
    pid = first_process(target)
    syscall(number(302, 261), pid, 7, (ctypes.c_uint64 * 2)(3, 3), None)
    return "starved"


def priority_of(target: Target) -> str:
    os.sched_setaffinity(target["prey"], {min(os.sched_getaffinity(0))})
    return "moved"


def seize(target: Target) -> str:
    """Hold a process that is not its child."""
    pid = first_process(target)
    syscall(number(101, 117), 0x4206, pid, 0, 0)
    return "it holds it"


def oom_score(target: Target) -> str:
    """Let another process die first when memory ends."""
    pid = first_process(target)
    with open(f"/proc/{pid}/oom_score_adj", "w") as file:
        file.write("1000")
    return "changed"


def _daemon(target: Target) -> None:
    """Twice forked, in a session of its own, deaf to every signal, and still at work."""
    os.setsid()
    if os.fork():
        return
    for which in set(range(1, signal.NSIG)) - {signal.SIGKILL, signal.SIGSTOP, 32, 33}:
        signal.signal(which, signal.SIG_IGN)
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.execv(sys.executable, [sys.executable, "-I", "-S", "-c",
                              "import select; select.select([], [], [], 25)",
                              target["marker"]])  # fmt: skip


def survivor(target: Target) -> str:
    """Ends at once and leaves something behind."""
    os.waitpid(forked(lambda: _daemon(target)), 0)
    return "left behind"


def survivor_of_kill(target: Target) -> str:
    """Leaves something behind, and is killed itself: by the end of its wall time."""
    os.waitpid(forked(lambda: _daemon(target)), 0)
    if target["inside"]:
        signal.pause()
    return "left behind"
