"""Keeps what this process knows out of core dumps."""

from __future__ import annotations

import resource


def leave_no_dump() -> None:
    """From now on a crash of this process, or of those that it starts, leaves none of its memory
    on disk.

    A limit of 0 holds for files; a dump that is piped to a program ignores it, so nothing is to be
    in that one (`core(5)`, coredump_filter).
    """
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    try:
        with open("/proc/self/coredump_filter", "w", encoding="ascii") as file:
            file.write("0x0")
    except OSError:  # A kernel without core dumps, or a /proc that is not to be written.
        pass
