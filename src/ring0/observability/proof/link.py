"""The kernel's end of the conversation with its signer: starts the process, asks, ends it.

Not here: when a checkpoint is made and where it goes (kernel/anchoring.py).
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

import msgspec

from ring0 import limits
from ring0.errors import Ring0Error
from ring0.observability.proof.signer import Answer, Ask
from ring0.runtime import Runtime

FOLDER: Final = "signer"
_read: Final = msgspec.json.Decoder(Answer).decode


class SignerGone(Ring0Error):
    """The signer does not answer."""

    code, whose, exit_code = "signer_gone", "ours", 1


class Link:
    """One signer. `begin` it, `ask` it, `close` it."""

    def __init__(self, home: Path, runtime: Runtime) -> None:
        self._folder = home / FOLDER
        self._runtime = runtime
        self._process: subprocess.Popen[bytes] | None = None
        self._own: socket.socket | None = None
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    def begin(self) -> None:
        """Starts the process, and waits for nothing."""
        own, other = socket.socketpair()
        with other:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-s", "-m", "ring0.observability.proof.signer"),
                    *(os.fspath(self._folder), str(other.fileno())),
                ],
                pass_fds=(other.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={"LANG": "C.UTF-8", "PYTHONPATH": os.environ.get("PYTHONPATH", "")},
                cwd="/",
            )
        own.setblocking(False)
        self._own = own

    async def ask(self, ask: Ask) -> Answer:
        """Raises SignerGone."""
        if self._own is None:
            self.begin()
        try:
            return await self._runtime.wait_for(self._asked(ask), limits.SIGNER_ANSWER_S_MAX)
        except (OSError, TimeoutError, ValueError, msgspec.MsgspecError) as error:
            await self.close()  # What it would say next belongs to no question.
            raise SignerGone(
                "The signer of checkpoints does not answer.",
                why=f"{type(error).__name__}: {error}"[:200],
                todo="It is started again. If it keeps failing, look at the folder `signer`.",
            ) from None
        except BaseException:  # Cancelled: likewise.
            self._let_go()
            raise

    async def _asked(self, ask: Ask) -> Answer:
        if self._streams is None:
            assert self._own is not None, "it was begun"
            self._streams = await asyncio.open_unix_connection(
                sock=self._own, limit=limits.SIGNER_MESSAGE_SIZE_BYTES_MAX
            )
        reader, writer = self._streams
        writer.write(msgspec.json.encode(ask) + b"\n")
        await writer.drain()
        line = await reader.readline()
        if not line.endswith(b"\n"):
            raise ConnectionResetError("it has ended")
        return _read(line)

    async def close(self) -> None:
        """The signer ends when its other end has gone."""
        self._let_go()
        process, self._process = self._process, None
        if process is not None:
            await asyncio.shield(self._runtime.in_thread(_end, process))

    def _let_go(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
        elif self._own is not None:
            self._own.close()
        self._streams = self._own = None


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(limits.SIGNER_ANSWER_S_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
