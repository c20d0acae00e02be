"""Looks for what the kernel knows: in the environment, in other processes, in its own memory."""

from __future__ import annotations

import ctypes
import os

from ring0.tools.sandbox.selftest.programs.inside import Missing, Target, pids, read_text


def inherited(target: Target) -> str:
    """The environment that it was given."""
    return "\n".join(f"{name}={value}" for name, value in os.environ.items())


def of_processes(target: Target) -> str:
    """/proc/*/<file> of every process, or of the first one."""
    found = []
    for pid in pids():
        if pid != os.getpid() and (target["inside"] or pid == target["victim"]):
            try:
                found.append(read_text(f"/proc/{pid}/{target['given']}"))
            except OSError:
                continue
    return "\n".join(found).replace("\0", "\n")


def of_init(target: Target) -> str:
    """The memory's layout, or the environment, of the process that everything comes from."""
    if target["inside"] and os.getpid() == 1:
        raise Missing("it is process 1 itself")
    pid = 1 if target["inside"] else target["victim"]
    return read_text(f"/proc/{pid}/{target['given']}")


def in_memory(target: Target) -> str:
    """Its own memory, for what an ancestor left in it. The canary comes written backwards, so that
    it is not in the memory that is looked through."""
    wanted = bytes(reversed(target["backwards"].encode()))
    hidden = bytes(byte ^ 0x55 for byte in wanted)
    del wanted
    with open("/proc/self/maps") as file:
        regions = [line.split() for line in file]
    for region in regions:
        name = region[5] if len(region) > 5 else ""
        if not region[1].startswith("r") or name.startswith("[v") or "/" in name:
            continue
        begin, stop = (int(part, 16) for part in region[0].split("-"))
        content = ctypes.string_at(begin, stop - begin)
        if _holds(content, hidden):
            return f"the canary, in {region[0]} {name}"
    return ""


def _holds(content: bytes, hidden: bytes) -> bool:
    """Is the text whose bytes are `hidden` after XOR in there?"""
    if len(content) < len(hidden):
        return False
    table = bytes(byte ^ 0x55 for byte in range(256))
    return hidden in content.translate(table)
