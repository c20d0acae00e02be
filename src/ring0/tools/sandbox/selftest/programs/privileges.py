"""Tries to become more than it is."""

# An attack: what a linter warns of is meant.
# ruff: noqa: S606

from __future__ import annotations

import ctypes
import os
import stat

from ring0.tools.sandbox.selftest.programs.inside import Missing, Target, libc, read_text

FOLDERS = ("/usr/bin", "/usr/sbin", "/bin", "/usr/lib/openssh", "/usr/lib/dbus-1.0")
NOBODY = 65534


def _programs(wanted: str) -> list[str]:
    """Programs of the system that are set uid root, or have file capabilities."""
    found = []
    for folder in FOLDERS:
        for name in os.listdir(folder) if os.path.isdir(folder) else []:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            if not stat.S_ISREG(status.st_mode):
                continue
            if wanted == "setuid":
                if status.st_mode & stat.S_ISUID and status.st_mode & stat.S_IXOTH:
                    found.append(path)
            elif "security.capability" in _attributes(path):
                found.append(path)
    return found


def _attributes(path: str) -> list[str]:
    try:
        return os.listxattr(path)
    except OSError:
        return []


def program(target: Target) -> str:
    """Start one. The loader tells what it is, unless it runs with powers: then it says nothing."""
    found = _programs(target["given"])
    if not found:
        raise Missing(f"this machine has no program with {target['given']}")
    if not target["inside"] and os.getuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    for path in found:
        if "AT_SECURE" not in _told_by_loader(path):
            return f"{path} ran with powers"
    return ""


def _told_by_loader(path: str) -> str:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        null = os.open("/dev/null", os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 2)
        os.dup2(writing, 1)
        try:
            os.execve(path, [path, "--version"], {"LD_SHOW_AUXV": "1"})
        except OSError:
            os.write(1, b"AT_SECURE is not known: it did not start")
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, errors="replace") as file:
        told = file.read(65_536)
    os.waitpid(child, 0)
    # Without a line of the loader's at all it may be static: then nothing is known of it.
    return told if "AT_" in told or not _is_static(path) else "AT_SECURE is not known"


def _is_static(path: str) -> bool:
    with open(path, "rb") as file:
        return b"ld-linux" not in file.read(4096)


def become_root(target: Target) -> str:
    """Uid 0 with any of its powers. What a rootless runtime starts is uid 0 of a namespace that
    owns nothing, and has none."""
    os.setresuid(0, 0, 0)
    powers = capabilities(target)
    return f"uid {os.geteuid()} with {powers}" if powers else ""


def capabilities(target: Target) -> str:
    """Any that it has, may get, or may hand on."""
    status = read_text("/proc/self/status").splitlines()
    sets = [line.split() for line in status if line.startswith("Cap")]
    return " ".join(f"{name}{value}" for name, value in sets if int(value, 16))


def new_privileges(target: Target) -> str:
    """May a program that it starts have more than it has?"""
    answer = libc.prctl(ctypes.c_int(39), *(ctypes.c_long(0) for _ in range(4)))
    return "it may" if answer == 0 else ""


def mounts_with_powers(target: Target) -> str:
    """Places where set-uid bits count."""
    found = []
    for line in read_text("/proc/self/mountinfo", 1 << 20).splitlines():
        fields = line.split()
        if "nosuid" not in fields[5].split(",") and _holds_something(fields[4]):
            found.append(fields[4])
    return " ".join(found[:3])


def _holds_something(path: str) -> bool:
    """A mount that only hides what is beneath it is empty."""
    try:
        return bool(os.listdir(path)) if os.path.isdir(path) else os.path.getsize(path) > 0
    except OSError:
        return False


def keep_capabilities(target: Target) -> str:
    """Ask Linux to hand capabilities on through a change of uid."""
    if libc.prctl(ctypes.c_int(8), *(ctypes.c_long(value) for value in (1, 0, 0, 0))):
        raise OSError(ctypes.get_errno(), "")
    return capabilities(target)
