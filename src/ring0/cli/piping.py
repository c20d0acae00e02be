"""This process's own streams, byte for byte, without ever blocking what else goes on.

For a program whose streams are handed through. What ring0 says itself goes through output.py.
"""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from collections.abc import AsyncIterator
from typing import Final

from ring0.cli.outlet import OutputFailed
from ring0.tools.sandbox.process import readable

_PIECE_SIZE_BYTES: Final = 65_536
_PIPE_SIZE_BYTES: Final = 4_096
"""What a pipe that can be written to takes at once (PIPE_BUF)."""


class ReaderGone(Exception):
    """Nobody reads standard output any more (`| head`)."""


def fill_closed_streams() -> None:
    """A standard stream that was closed before we began (`<&-`) becomes /dev/null: else its number
    goes to a pipe or a socket, which the event loop takes for a fault."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)


async def standard_input() -> AsyncIterator[bytes]:
    """What comes in, as it comes; nothing where it is closed."""
    try:
        fd = sys.stdin.fileno()
    except (AttributeError, ValueError):  # it was closed before we began (`<&-`)
        return
    waits = _can_wait(fd)
    while True:
        if waits:
            await readable(fd)
        try:
            piece = os.read(fd, _PIECE_SIZE_BYTES)
        except BlockingIOError:
            continue
        except OSError:  # a terminal that has gone
            return
        if not piece:
            return
        yield piece


async def hand_on(stream: str, data: bytes) -> None:
    """A program's output, as ours. Raises ReaderGone, OutputFailed."""
    fd = (sys.stdout if stream == "stdout" else sys.stderr).fileno()
    waits = _can_wait(fd)
    rest = memoryview(data)
    while rest:
        if waits:
            await _writable(fd)
        try:
            rest = rest[os.write(fd, rest[: _PIPE_SIZE_BYTES if waits else len(rest)]) :]
        except BlockingIOError:
            continue
        except BrokenPipeError:
            if stream == "stdout":
                raise ReaderGone from None
            return
        except OSError as error:
            if stream == "stderr":
                return
            raise OutputFailed(
                f"Standard output can't be written to: {error.strerror}.",
                todo="Send it to where there is room.",
            ) from None


def _can_wait(fd: int) -> bool:
    """A pipe, a socket, a terminal. A file is always ready, and can't be waited for."""
    mode = os.fstat(fd).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(fd)


async def _writable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    # Another descriptor of the same: a program's two streams may be one pipe of ours.
    own = os.dup(fd)
    loop.add_writer(own, _settle, ready)
    try:
        await ready
    finally:
        loop.remove_writer(own)
        os.close(own)


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
