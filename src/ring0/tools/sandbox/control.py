"""The kernel's ends of the sockets to a zygote, an init, a tenant's process: what is said on them.

What comes from a sandbox is not trusted: it is read bounded, and what can't be read is said to be.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import socket
from array import array
from collections.abc import Sequence
from typing import Any

import msgspec

from ring0 import limits
from ring0.tools.sandbox.process import readable

_HEARD_SIZE_BYTES_MAX = 8 * limits.KIB
_HEARD_FDS_MAX = 4
_MARSHAL_VERSION = 2
"""The last one that neither shares nor interns strings: it is read in half the time."""


class Message(msgspec.Struct, frozen=True):
    """What is heard. A zygote: ready, born, failed. An init: built, ready, failed, exit. A tenant's
    process: going, refused. `unreadable`: none of it."""

    step: str
    pid: int = 0
    at: str = ""
    errno: int = 0
    detail: str = ""
    code: int | None = None
    signal: int | None = None


class Control:
    """One end of a socket of packets. Close it to tell the other side that all is over."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock

    @staticmethod
    def pair() -> tuple[Control, int]:
        """Ours, and the descriptor of theirs."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return Control(ours), theirs.detach()

    def send(self, value: Any, fds: Sequence[int] = (), *, announced: bool = False) -> None:
        """A value that `marshal` knows, and descriptors, which stay the caller's too. Never waits.
        OSError where nobody hears it. `announced`: one that is large says so in a packet before it,
        to who expects a small one."""
        data = marshal.dumps(value, _MARSHAL_VERSION)
        if len(data) <= limits.SANDBOX_MESSAGE_SIZE_BYTES_MAX:
            self._send(data, fds)
            return
        file = os.memfd_create("message")
        try:
            with os.fdopen(os.dup(file), "wb") as writing:
                writing.write(data)
            if announced:
                self._send(b"file", ())
            self._send(b"file", (*fds, file))
        finally:
            os.close(file)

    def _send(self, data: bytes, fds: Sequence[int]) -> None:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))] if fds else []
        self._sock.sendmsg([data], ancillary)

    async def receive(self) -> tuple[Message, list[int]] | None:
        """The next message and the descriptors that came with it; None at the end."""
        while True:
            with contextlib.suppress(BlockingIOError):
                return self.take()
            await readable(self._sock.fileno())

    def take(self) -> tuple[Message, list[int]] | None:
        """The same without waiting: BlockingIOError where there is none yet."""
        try:
            data, ancillary = self._packet()
        except ConnectionError:  # said once, ahead of what was sent before the end
            data, ancillary = self._packet()
        fds = array("i")
        for _, _, packed in ancillary:
            fds.frombytes(packed[: len(packed) - len(packed) % fds.itemsize])
        if not data:
            for fd in fds:
                os.close(fd)
            return None
        try:
            return msgspec.json.decode(data, type=Message), list(fds)
        except msgspec.MsgspecError:
            return Message(step="unreadable"), list(fds)

    def _packet(self) -> tuple[bytes, list[tuple[int, int, bytes]]]:
        room = socket.CMSG_SPACE(_HEARD_FDS_MAX * 4)
        data, ancillary, _, _ = self._sock.recvmsg(
            _HEARD_SIZE_BYTES_MAX, room, socket.MSG_CMSG_CLOEXEC
        )
        return data, ancillary

    def close(self) -> None:
        self._sock.close()
