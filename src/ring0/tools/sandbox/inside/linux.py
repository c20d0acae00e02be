"""The part of Linux that Python has no words for: numbers, calls with errno, reports.

Start-up time counts: `json`, `socket` and `signal` would cost 6, 6 and 4 ms.
"""

import _socket
import ctypes
import marshal
import os
import sys

INSIDE_ID = 1000
"""The tenant's uid and gid as it sees them itself."""

# clone, pivot_root, keyctl, seccomp; newer calls have one number everywhere.
NUMBERS = {"x86_64": (56, 155, 250, 317), "aarch64": (220, 41, 219, 277)}

MESSAGE_SIZE_BYTES = 16 * 1024
"""SANDBOX_MESSAGE_SIZE_BYTES_MAX of limits.py, which can't be imported here."""

libc = ctypes.PyDLL(None, use_errno=True)
for name in ("syscall", "mount", "umount2", "prctl", "unshare", "capset", "setdomainname"):
    getattr(libc, name)  # found once, here


class Making:
    """The sandbox that is asked for, without what runs in it; `making_fields` in spec.py."""

    links: list[tuple[str, str]]  # where, what it says
    mounts: list[tuple[str, str]]  # on the host, inside
    door_port: int  # 0: no doors
    proxy_port: int  # 0: no egress
    workspace: bool
    tmp_bytes: int
    limits: list[tuple[int, int, int]]  # which, soft, hard
    host_uid: int  # 0: keep the uid that the kernel has
    filter: bytes

    def __init__(self, fields: dict[str, object]) -> None:
        self.__dict__.update(fields)


class Failure(Exception):
    """A step that Linux refused: (step, errno, detail)."""


def call(step: str, function: str, *args: object, detail: str = "") -> int:
    """A C library function that gives -1 and errno on failure."""
    result: int = getattr(libc, function)(*args)
    if result == -1:
        raise Failure(step, ctypes.get_errno(), detail)
    return result


def long(value: int) -> ctypes.c_long:
    """What `syscall` and `prctl` take: a plain int would leave the upper half undefined."""
    return ctypes.c_long(value)


def escape(character: str) -> str:
    """One character within a JSON string."""
    if character.isascii() and (character.isalnum() or character in "/._- "):
        return character
    return f"\\u{min(ord(character), 0xFFFD):04x}"


def report(control: _socket.socket, fds: tuple[int, ...] = (), **fields: str | int | None) -> None:
    """One JSON message to the kernel, with file descriptors."""
    parts = []
    for name, value in fields.items():
        if isinstance(value, str):
            parts.append(f'"{name}":"{"".join(map(escape, value))}"')
        else:
            parts.append(f'"{name}":{"null" if value is None else value}')
    text = ("{" + ",".join(parts) + "}").encode()
    ancillary = []
    if fds:
        packed = b"".join(fd.to_bytes(4, sys.byteorder) for fd in fds)
        ancillary = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, packed)]
    control.sendmsg([text], ancillary)


def receive(sock: _socket.socket, fds_most: int) -> tuple[object, list[int]]:
    """What the kernel sends, and up to `fds_most` descriptors: marshalled, in the packet or in a
    memfd that comes last with it. None, and no descriptor, at the end."""
    room = _socket.CMSG_SPACE(4 * (fds_most + 1))
    try:
        data, ancillary, _, _ = sock.recvmsg(MESSAGE_SIZE_BYTES, room, _socket.MSG_CMSG_CLOEXEC)
    except ConnectionError:
        return None, []
    fds = [
        int.from_bytes(packed[at : at + 4], sys.byteorder)
        for _, _, packed in ancillary
        for at in range(0, len(packed) - 3, 4)
    ]
    if not data:
        return None, []
    if data == b"file":
        with open(fds.pop(), "rb") as file:
            file.seek(0)
            data = file.read()
    return marshal.loads(data), fds  # noqa: S302  # the kernel wrote it


def write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def map_ids(step: str, uid: int, gid: int) -> None:
    """In a user namespace just entered: `uid` outside is INSIDE_ID inside, and nobody else is."""
    try:
        write("/proc/self/setgroups", "deny")
        write("/proc/self/gid_map", f"{INSIDE_ID} {gid} 1")
        write("/proc/self/uid_map", f"{INSIDE_ID} {uid} 1")
    except OSError as error:
        raise Failure(step, error.errno, "") from None
