"""Two sandboxes, alive at once or one after the other: each runs the same program, in its role."""

# An attack: what a linter warns of is meant.
# ruff: noqa: S108

from __future__ import annotations

import array
import ctypes
import os
import socket

from ring0.tools.sandbox.selftest.programs.inside import (
    Target,
    number,
    pause,
    read_text,
    syscall,
)


def _waits_s(target: Target) -> float:
    """How long for the other one, who may start late on a busy machine."""
    return 2 if target["inside"] else 6


def _folders(target: Target) -> list[str]:
    """Where two could meet: all that can be written to."""
    inside = ["/tmp", "/dev/shm", "/work", "/var/tmp", "/run", "/run/ring0", "/var/lock"]
    return inside if target["inside"] else [target["open_folder"]]


def descriptor(target: Target) -> str:
    """One hands an open file to the other, by a Unix socket with or without a name."""
    paths = [os.path.join(folder, "ring0-meet") for folder in _folders(target)]
    addresses = ["\0" + target["meeting"], *paths]
    return (_give if target["role"] == 0 else _take)(addresses, _waits_s(target))


def _give(addresses: list[str], waits_s: float) -> str:
    listeners = []
    for address in addresses:
        listener = socket.socket(socket.AF_UNIX)
        listener.setblocking(False)
        try:
            listener.bind(address)
            listener.listen()
            listeners.append(listener)
        except OSError:
            continue
    reading, writing = os.pipe()
    os.write(writing, b"from the other one")
    for _ in range(int(waits_s / 0.02)):
        for listener in listeners:
            try:
                connection, _ = listener.accept()
            except BlockingIOError:
                continue
            connection.setblocking(True)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [reading]))
            connection.sendmsg([b"."], [rights])
            return "given"
        pause(0.02)
    return ""


def _take(addresses: list[str], waits_s: float) -> str:
    for _ in range(int(waits_s / 0.02)):
        for address in addresses:
            with socket.socket(socket.AF_UNIX) as connection:
                try:
                    connection.connect(address)
                except OSError:
                    continue
                connection.settimeout(1)
                _, fds, _, _ = socket.recv_fds(connection, 1, 1)
                return os.read(fds[0], 64).decode()
        pause(0.02)
    return ""


def file(target: Target) -> str:
    """One leaves a file where the other looks."""
    paths = [os.path.join(folder, target["meeting"]) for folder in _folders(target)]
    return _leave(target, paths) if target["role"] == 0 else _look(target, paths)


def _leave(target: Target, paths: list[str]) -> str:
    for path in paths:
        try:
            with open(path + "-new", "w") as letter:
                letter.write("from the other one")
            os.rename(path + "-new", path)
        except OSError:
            continue
    if target["together"] and target["inside"]:
        pause(_waits_s(target))  # its files live as long as it does
    return "left"


def _look(target: Target, paths: list[str]) -> str:
    for _ in range(int(_waits_s(target) / 0.05) if target["together"] else 1):
        for path in paths:
            try:
                return read_text(path)
            except OSError:
                continue
        pause(0.05)
    return ""


def segment(target: Target) -> str:
    """One leaves a piece of System V memory, which outlives its process; the other takes it."""
    key, which = target["key"], number(29, 194)
    if target["role"] == 0:
        syscall(which, key, 4096, 0o1666)
        return "left"
    for _ in range(int(_waits_s(target) / 0.05) if target["together"] else 1):
        try:
            syscall(number(31, 195), syscall(which, key, 0, 0), 0, None)
            return "found, and taken away"
        except FileNotFoundError:
            pause(0.05)
    return ""


def key(target: Target) -> str:
    """One leaves a key on its user's keyring; the keyring outlives its process."""
    name = target["meeting"].encode()
    if target["role"] == 0:
        syscall(number(248, 217), b"user", name, b"left", 4, -4)
        return "left"
    identity = syscall(number(250, 219), 10, -4, b"user", name, 0)
    found = ctypes.create_string_buffer(16)
    syscall(number(250, 219), 11, identity, found, 16)
    syscall(number(250, 219), 9, identity, -4)
    return found.value.decode()


def nothing(target: Target) -> str:
    """What counts is who it is, seen from the host."""
    return f"uid {os.getuid()} inside"


def _folder(target: Target) -> str:
    """Where the kernel reads."""
    folder: str = "/work" if target["inside"] else target["own_folder"]
    return folder


def plant_link(target: Target) -> str:
    """answers/answer.txt is a link to a host file."""
    os.makedirs(f"{_folder(target)}/answers", exist_ok=True)
    os.symlink(target["secret"], f"{_folder(target)}/answers/answer.txt")
    return "planted"


def plant_folder(target: Target) -> str:
    """answers is a link to the host's folder, where a file has that name."""
    os.symlink(os.path.dirname(target["answer"]), f"{_folder(target)}/answers")
    return "planted"


def plant_swap(target: Target) -> str:
    """A file and a link to the host change places, as quickly as it can, while the kernel reads."""
    folder = _folder(target)
    os.makedirs(f"{folder}/answers", exist_ok=True)
    with open(f"{folder}/file", "w") as file:
        file.write("harmless")
    os.link(f"{folder}/file", f"{folder}/answers/answer.txt")
    for _ in range(10_000):
        os.symlink(target["secret"], f"{folder}/next")
        os.replace(f"{folder}/next", f"{folder}/answers/answer.txt")
        os.link(f"{folder}/file", f"{folder}/next")
        os.replace(f"{folder}/next", f"{folder}/answers/answer.txt")
    return "planted"
