"""Defence in depth: who is at the other end of a run's unix socket, as Linux says it.

The listener names the run; this only looks whether the process belongs there. Credentials are
those of the moment of `connect`; where Linux has SO_PEERPIDFD (6.5), the process itself is looked
at, by a descriptor that can't come to mean another one.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import Final

_PEER: Final = struct.Struct("3i")
_SO_PEERPIDFD: Final = 77
"""Python 3.11 has no name for it."""


def uid_of(connection: socket.socket) -> int:
    """The uid of whoever connected."""
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    return int(_PEER.unpack(packed)[1])


def namespace_of(pid: int) -> str:
    """The pid namespace of a process; empty where it can't be looked at."""
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""


def is_of_namespace(connection: socket.socket, namespace: str) -> bool:
    """Whether whoever connected lives there. True where this Linux can't tell; False for one that
    has ended since."""
    if connection.family != socket.AF_UNIX:
        return True
    try:
        pidfd = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError as error:
        return error.errno != errno.ESRCH
    try:
        return namespace_of(_process(pidfd)) == namespace
    finally:
        os.close(pidfd)


def _process(pidfd: int) -> int:
    """Its number; 0 where it has ended."""
    with open(f"/proc/self/fdinfo/{pidfd}") as file:
        said = dict(row.partition(":")[::2] for row in file)
    return max(0, int(said.get("Pid", "0")))
