"""Looks for the host's files, devices and switches."""

# An attack: what a linter warns of is meant.
# ruff: noqa: S108

from __future__ import annotations

import os
import socket
import stat

from ring0.tools.sandbox.selftest.programs.inside import Target, ask, first, pids, read_text

HARMLESS_DEVICES = {"null", "zero", "full", "random", "urandom", "tty"}
MAKES_WRITABLE = ("/", "/etc", "/dev", "/run", "/run/ring0", "/usr", "/usr/bin", "/usr/local/bin",
                  "/bin", "/lib", "/proc", "/proc/self", "/var", "/home", "/root", "/opt",
                  "/sys")  # fmt: skip


def read(target: Target) -> str:
    """One file of the host."""
    return read_text(target[target["given"]])


def write(target: Target) -> str:
    """One file of the host that anybody may write to."""
    path = target["writable"]
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, b"attacked")
    finally:
        os.close(fd)
    return "written"


def create(target: Target) -> str:
    """A new file in a folder that is not its own."""
    folders = [*MAKES_WRITABLE, *target["python"]] if target["inside"] else [target["open_folder"]]

    def attempt(folder: str) -> str:
        path = os.path.join(folder, "ring0-selftest")
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        os.unlink(path)
        return path

    return first(attempt, folders)


def names(target: Target) -> str:
    """What lies in a folder of the host's."""
    there = set(os.listdir(target["given"]["folder"]))
    return " ".join(sorted(there & set(target["given"]["names"])))


def exists(target: Target) -> str:
    os.stat(target["given"])
    return "it is there"


def addresses(target: Target) -> str:
    """Where things lie in the memory of the machine's kernel; zeros are no answer."""
    found = [line for line in read_text("/proc/kallsyms", 4096).splitlines() if int(line[:8], 16)]
    return found[0] if found else ""


def content(target: Target) -> str:
    """What any of these files says."""
    return first(lambda path: read_text(path).strip(), list(target["given"]))


def switches(target: Target) -> str:
    """Any of the machine's switches, to be written to. Opening is enough: nothing is written."""
    refusal: OSError | None = None
    for folder, _, files in os.walk("/proc/sys"):
        for name in files:
            path = os.path.join(folder, name)
            try:
                os.close(os.open(path, os.O_WRONLY))
                return path
            except OSError as error:
                refusal = error
    if refusal is not None:
        raise refusal
    return ""


def open_for_writing(target: Target) -> str:
    """A switch of the machine. Opening is enough: nothing is written."""
    for path in target["given"]:
        os.close(os.open(path, os.O_WRONLY))
        return str(path)
    return ""


def release_agent(target: Target) -> str:
    """A program that the machine's kernel starts, as root, when a cgroup becomes empty."""
    for folder, _, files in os.walk("/sys/fs/cgroup"):
        if "release_agent" in files:
            path = os.path.join(folder, "release_agent")
            os.close(os.open(path, os.O_WRONLY))
            return path
        if folder.count("/") > 5:
            break
    raise FileNotFoundError(2, "")


def connect(target: Target) -> str:
    """A daemon's socket: the canary's, and where the real ones are."""

    def attempt(path: str) -> str:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(3)
        connection.connect(path)
        return ask(connection) if path == target[target["given"]] else f"connected to {path}"

    paths = [target[target["given"]]]
    if target["inside"]:
        paths += ["/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock",
                  "/run/dbus/system_bus_socket", "/run/ring0/door.sock",
                  "/run/ring0/control.sock"]  # fmt: skip
    return first(attempt, paths)


def through_proc(target: Target) -> str:
    """Another process's root, folder or open files, as a way to the host's."""

    def attempt(way: str) -> str:
        return read_text(way)

    path = target["secret"]
    ways = []
    for pid in pids():
        if target["inside"] or pid == target["victim"]:
            ways += [f"/proc/{pid}/root{path}", f"/proc/{pid}/cwd{path}"]
            ways += [f"/proc/{pid}/cwd/../../../../../../..{path}"]
    return first(attempt, ways)


def open_files(target: Target) -> str:
    """What other processes have open, also what has no name any more."""
    found = []
    for pid in pids():
        if pid != os.getpid() and (target["inside"] or pid == target["victim"]):
            for fd in range(256):
                try:
                    found.append(read_text(f"/proc/{pid}/fd/{fd}"))
                except OSError:
                    continue
    return "".join(found)


def descriptors(target: Target) -> str:
    """What it inherited beside its three streams."""
    own = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY)
    beside = [fd for fd in map(int, os.listdir(own)) if fd > 2 and fd != own]
    found = []
    for fd in beside:
        try:
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:
            continue  # the listing's own
    return " ".join(found)


def devices(target: Target) -> str:
    """A device other than those that give nothing away."""
    found = []
    for folder, _, files in os.walk("/dev"):
        for name in files:
            path = os.path.join(folder, name)
            try:
                mode = os.stat(path).st_mode
                if name in HARMLESS_DEVICES or not (stat.S_ISCHR(mode) or stat.S_ISBLK(mode)):
                    continue
                os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY))
                found.append(path)
            except OSError:
                continue
    return " ".join(found[:3])


def make_device(target: Target) -> str:
    """/dev/mem under another name; then it only has to be opened."""
    path = os.path.join("/tmp" if target["inside"] else target["open_folder"], "node")
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 1))
    os.unlink(path)
    return "made"


def disk(target: Target) -> str:
    """The machine's disks, by number."""
    path = os.path.join("/tmp" if target["inside"] else target["open_folder"], "disk")
    os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(8, 0))
    os.unlink(path)
    return "made"
