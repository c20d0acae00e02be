"""The sandbox's view: a root of its own, its network, the listeners.

Runs with the privilege that made the namespaces, before anything of the tenant's exists.
"""

import _socket
import ctypes
import fcntl
import os
import sys

from .linux import NUMBERS, Making, call, libc, long, write

OLD = "/.host"
"""Where the host's tree is while this one is built."""

FILES = OLD + "/sys"
"""Where the one file system that the tenant may write to is mounted while the tree is built: where
nothing is that anybody mounts. It goes out of sight with the host's tree, since a umount of its own
would cost a millisecond."""

LISTEN_BACKLOG = 128
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV, ATTR_NOEXEC = 1, 2, 4, 8
SYS_MOUNT_SETATTR, AT_RECURSIVE, AT_FDCWD, MNT_DETACH = 442, 0x8000, -100, 2
SIOCSIFFLAGS, IFF_UP_RUNNING = 0x8914, 0x41

ETC = {
    "passwd": "agent:x:1000:1000:agent:/tmp:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
    "group": "agent:x:1000:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost agent\n::1 localhost\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "hostname": "agent\n",
}

MCP_JSON = """{"mcpServers": {"ring0": {"type": "http", "url": "http://127.0.0.1:%d/mcp"}}}
"""
"""For clients that read from a file where MCP servers are: in the shape that most read."""


def mount(step: str, source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    call(step, "mount", source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags),
         data.encode() if data else None, detail=target)  # fmt: skip


def restrict(target: str, attributes: int, *, recursive: bool) -> None:
    """Read-only and the like, for all mounts beneath too: one that was forgotten is writable."""
    record = (ctypes.c_uint64 * 4)(attributes, 0, 0, 0)
    call("mounts", "syscall", long(SYS_MOUNT_SETATTR), long(AT_FDCWD), target.encode(),
         long(AT_RECURSIVE if recursive else 0), record, long(32), detail=target)  # fmt: skip


def bind(source: str, target: str, attributes: int) -> None:
    """Show a host path inside. The mount point is made on our own fresh tmpfs, never elsewhere."""
    os.makedirs(os.path.dirname(target), 0o755, exist_ok=True)
    if os.path.isdir(OLD + source):
        os.makedirs(target, 0o755, exist_ok=True)
    else:
        write(target, "")
    mount("mounts", OLD + source, target, "", MS_BIND | MS_REC)
    restrict(target, attributes, recursive=True)


def build_tree(making: Making, ids: int) -> None:
    """A new root with what is named and nothing else of the host. `ids`: whose /tmp and /work
    are."""
    _, pivot_root, _, _ = NUMBERS[os.uname().machine]
    mount("mounts", "", "/", "", MS_REC | MS_PRIVATE)
    mount("mounts", "ring0", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV,  # noqa: S108
          "mode=755,size=1m,nr_inodes=4096")  # fmt: skip
    os.chdir("/tmp")  # noqa: S108
    os.mkdir(OLD[1:], 0o700)
    call("mounts", "syscall", long(pivot_root), b".", OLD[1:].encode())
    os.chdir("/")
    for folder in ("dev", "etc", "proc", "run", "run/ring0"):
        os.mkdir(folder, 0o755)
    make_files(making, ids)
    for target, text in making.links:
        os.makedirs(os.path.dirname(target), 0o755, exist_ok=True)
        os.symlink(text, target)
    for source, target in making.mounts:
        bind(source, target, ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV)
    for name in ("null", "zero", "full", "random", "urandom"):
        bind(f"/dev/{name}", f"/dev/{name}", ATTR_RDONLY | ATTR_NOSUID | ATTR_NOEXEC)
    for name, text in (("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"),
                       ("stdout", "/proc/self/fd/1"), ("stderr", "/proc/self/fd/2"),
                       ("shm", "/tmp")):  # fmt: skip  # noqa: S108
        os.symlink(text, f"/dev/{name}")
    for name, text in ETC.items():
        write(f"/etc/{name}", text)
    # subset=pid: no /proc/sys, no /proc/sysrq-trigger, nothing that is about the machine.
    mount("proc", "proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "subset=pid")


def make_files(making: Making, ids: int) -> None:
    """The folders /tmp and, where asked for, /work: of one sized tmpfs, whose top is out of sight.
    So both together have one size, and no mount point lies in what the tenant writes."""
    size = f"size={making.tmp_bytes},nr_inodes={max(1024, making.tmp_bytes // 4096)}"
    mount("mounts", "files", FILES, "tmpfs", MS_NOSUID | MS_NODEV, f"mode=755,{size}")
    for name in ("tmp", "work") if making.workspace else ("tmp",):
        os.mkdir(f"{FILES}/{name}", 0o700)
        os.chown(f"{FILES}/{name}", ids, ids)
        os.mkdir(f"/{name}", 0o755)
        mount("mounts", f"{FILES}/{name}", f"/{name}", "", MS_BIND)


def seal_tree() -> None:
    """The host's tree goes out of sight for ever, the root becomes read-only."""
    call("mounts", "umount2", OLD.encode(), MNT_DETACH, detail=OLD)
    os.rmdir(OLD)
    restrict("/", ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC, recursive=False)


def name_host() -> None:
    """Another name than the machine's, and no domain."""
    _socket.sethostname("agent")
    libc.setdomainname(b"(none)", ctypes.c_size_t(6))


def raise_loopback() -> None:
    probe = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    try:
        request = b"lo".ljust(16, b"\0") + IFF_UP_RUNNING.to_bytes(2, sys.byteorder)
        fcntl.ioctl(probe.fileno(), SIOCSIFFLAGS, request.ljust(40, b"\0"))
    finally:
        probe.close()


def listen(port: int) -> _socket.socket:
    """A listener on the sandbox's own loopback."""
    listener = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", port))
    listener.listen(LISTEN_BACKLOG)
    return listener


def open_doors(port: int) -> tuple[_socket.socket, _socket.socket]:
    """The two listeners, made in here and given away: which one a call comes in by is its name."""
    unix = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    unix.bind("/run/ring0/door.sock")
    os.chmod("/run/ring0/door.sock", 0o666)  # noqa: S103  # the only other uid in here is the tenant
    unix.listen(LISTEN_BACKLOG)
    write("/run/ring0/mcp.json", MCP_JSON % port)
    return listen(port), unix
