"""Runs a sandbox's program to its end: feeds it, hears it, stops it where it goes too far.

Whatever the program does (floods, closes its streams, daemonises, ignores signals), nothing of it
is left afterwards. It knows nothing of what the program is for.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import msgspec

from ring0 import limits
from ring0.errors import InvalidInput
from ring0.runtime import Runtime
from ring0.tools.sandbox.process import Exit
from ring0.tools.sandbox.sandbox import Sandbox

Heard = Callable[[str, bytes], Awaitable[None] | None]
"""Called with ("stdout" or "stderr", bytes) as they come. One that is awaitable is waited for, and
the program with it, once its pipe is full."""

SIGNALLED_EXIT: Final = 128
"""A program that a signal ended has no exit code; a shell says 128 and the signal's number."""


class Ran(msgspec.Struct, frozen=True):
    """How a program ended, and what it said."""

    exit: Exit
    stdout: bytes
    stderr: bytes
    stopped: str
    """Which bound ended it (`wall`, `output`, `memory`, `cpu`, `disk`); empty: none of them."""

    @property
    def code(self) -> int:
        """As a shell would say it: the exit code, or 128 and the signal."""
        if self.exit.code is not None:
            return self.exit.code
        return SIGNALLED_EXIT + (self.exit.signal or 0)


class _Flood(Exception):
    """It printed more than it may."""


async def run(
    sandbox: Sandbox,
    runtime: Runtime,
    *,
    stdin: bytes | AsyncIterator[bytes] = b"",
    heard: Heard | None = None,
    wall_s: float,
    output_bytes: int,
    keep: bool = True,
) -> Ran:
    """From `go` to the last process's end; returns, or raises, when all of them are gone.

    `output_bytes` bounds stdout and stderr together; what is within it is returned (and, with
    `keep` false, only heard). A cancel ends everything at once. `SandboxFailed` where it can't."""
    if wall_s <= 0 or output_bytes < 0:
        raise InvalidInput("A program's wall time must be above 0, its output 0 or above.")
    output = _Output(output_bytes, heard, keep=keep)
    feeding = runtime.start(_feed(sandbox, stdin), name=f"feed-{sandbox.identity.pid}")
    whole = asyncio.gather(
        _until_dead(sandbox, output),
        output.read(sandbox.stdout, "stdout"),
        output.read(sandbox.stderr, "stderr"),
    )
    stopped = ""
    try:
        await runtime.wait_for(whole, wall_s)
    except TimeoutError:
        stopped = "wall"
    except _Flood:
        stopped = "output"
    finally:
        # First the kill: what follows must not keep a program alive.
        try:
            await sandbox.kill()
        finally:
            whole.cancel()
            feeding.cancel()
            await asyncio.gather(whole, feeding, return_exceptions=True)
    ended = await sandbox.wait()
    return Ran(
        exit=ended,
        stdout=bytes(output.kept["stdout"]),
        stderr=bytes(output.kept["stderr"]),
        stopped=stopped or _used_up(sandbox, ended),
    )


def _used_up(sandbox: Sandbox, ended: Exit) -> str:
    """Which total of the sandbox, or limit of one process, ended it."""
    return sandbox.stopped or ("cpu" if ended.signal == signal.SIGXCPU else "")


async def _until_dead(sandbox: Sandbox, output: _Output) -> None:
    await sandbox.wait()
    output.writers_are_dead()


async def _feed(sandbox: Sandbox, stdin: bytes | AsyncIterator[bytes]) -> None:
    """All of `stdin`, as fast as it is read. A program that doesn't want it is no error."""
    with contextlib.suppress(ConnectionError, BrokenPipeError):
        try:
            async for piece in _pieces(stdin) if isinstance(stdin, bytes) else stdin:
                sandbox.stdin.write(piece)
                await sandbox.stdin.drain()
        finally:
            sandbox.stdin.close()


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), limits.SANDBOX_PIECE_SIZE_BYTES):
        yield data[start : start + limits.SANDBOX_PIECE_SIZE_BYTES]


class _Output:
    """What a program prints on both streams, up to a bound."""

    def __init__(self, size_bytes_max: int, heard: Heard | None, *, keep: bool) -> None:
        self.kept = {"stdout": bytearray(), "stderr": bytearray()}
        self._left = size_bytes_max
        self._heard = heard
        self._keep = keep
        self._pause_s: float | None = None
        """How long a stream may be silent before that is its end; None while someone can write."""
        self._reads: dict[str, asyncio.Timeout] = {}

    def writers_are_dead(self) -> None:
        """From now on the end can't be far: who still holds a pipe open is someone who should not
        have it, and nobody waits for them."""
        self._pause_s = limits.SANDBOX_PIPE_END_S_MAX
        for pause in self._reads.values():
            pause.reschedule(asyncio.get_running_loop().time() + self._pause_s)

    async def read(self, stream: asyncio.StreamReader, name: str) -> None:
        """Until its end. Raises _Flood at the first byte too many."""
        while piece := await self._next(stream, name):
            allowed = piece[: self._left]
            self._left -= len(allowed)
            if self._keep:
                self.kept[name] += allowed
            if self._heard is not None and allowed:
                told = self._heard(name, allowed)
                if inspect.isawaitable(told):
                    await told
            if len(allowed) < len(piece):
                raise _Flood

    async def _next(self, stream: asyncio.StreamReader, name: str) -> bytes:
        try:
            async with asyncio.timeout(self._pause_s) as self._reads[name]:
                return await stream.read(limits.SANDBOX_PIECE_SIZE_BYTES)
        except TimeoutError:
            return b""
        finally:
            del self._reads[name]
