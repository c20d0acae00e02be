"""What a supervisor and its worker say to each other: one packet a message, on a socket pair.

The end of either is the end of the channel: Linux closes it, whatever else is broken. Not here:
what either does about it.
"""

from __future__ import annotations

import select
import socket
from typing import Final

import msgspec

from ring0 import limits
from ring0.types import Frozen


class Options(Frozen, frozen=True, kw_only=True):
    """How a worker is started."""

    home: str
    parent: int
    """The supervisor's process: a worker of any other ends at once."""
    hooks: str = ""
    """Where it takes deliveries, ADDRESS:PORT; empty: nowhere."""
    hooks_hosts: tuple[str, ...] = ()
    """Names that their senders may have for it."""


class Beat(Frozen, frozen=True, kw_only=True, tag="beat"):
    """The worker's event loop turns."""


class Ready(Frozen, frozen=True, kw_only=True, tag="ready"):
    """The kernel is at work: its folder is locked, old sandboxes are dead, its socket is open."""

    unfinished: int
    """Runs that it goes on with."""


class Held(Frozen, frozen=True, kw_only=True, tag="held"):
    """Runs were held that may have killed the workers before: this one has a better chance."""


class Said(Frozen, frozen=True, kw_only=True, tag="said"):
    """A line for the log."""

    what: str
    run: str = ""
    trace_id: str = ""
    """Of a run that goes on."""


class Failed(Frozen, frozen=True, kw_only=True, tag="failed"):
    """Why the worker ends."""

    code: str
    whose: str
    what: str
    why: str
    todo: str
    exit_code: int


class Go(Frozen, frozen=True, kw_only=True, tag="go"):
    """From the supervisor: no other worker lives; take the folder."""

    died_young: int = 0
    """So many workers before it died in a row, each soon after it came to work, and said nothing.
    Told here and not with the options: a successor is started before the other's death."""


class Stop(Frozen, frozen=True, kw_only=True, tag="stop"):
    """From the supervisor: end in order; runs are kept."""


FromWorker = Beat | Ready | Held | Said | Failed
Message = Beat | Ready | Held | Said | Failed | Go | Stop
_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Message).decode


class Channel:
    """One end. Nothing in it ever waits: what can't be sent now is left out."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end

    def fileno(self) -> int:
        return self._end.fileno()

    def close(self) -> None:
        self._end.close()

    def send(self, message: Message) -> None:
        """A packet, or nothing where the other end does not read or has gone."""
        packet = _encode(message)
        assert len(packet) <= limits.WORKER_MESSAGE_SIZE_BYTES_MAX
        try:
            self._end.send(packet, socket.MSG_NOSIGNAL)
        except OSError:
            pass  # It is stopped, or it has ended; whoever reads finds out.

    def wait(self) -> None:
        """Returns when there is something to receive, or the channel has ended."""
        select.select([self._end], [], [])

    def receive(self) -> list[Message] | None:
        """All that has come; None at the end of the channel."""
        found: list[Message] = []
        while True:
            try:
                packet = self._end.recv(limits.WORKER_MESSAGE_SIZE_BYTES_MAX)
            except BlockingIOError:
                return found
            except OSError:
                return found or None
            if not packet:
                return found or None
            found.append(_decode(packet))


def bounded(text: str) -> str:
    """A text of which several fit into a packet, whatever characters it is made of."""
    most = limits.WORKER_SAYING_SIZE_BYTES_MAX
    if len(_encode(text)) <= most:  # As it is sent: a control character takes six bytes.
        return text
    kept, size = [], 1
    for letter in text[:most]:
        size += len(_encode(letter)) - 2
        if size > most - 4:
            break
        kept.append(letter)
    return "".join(kept) + "…"


def pair() -> tuple[socket.socket, socket.socket]:
    """Both ends. Packets keep their borders, and an end that closes is seen at the other."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
