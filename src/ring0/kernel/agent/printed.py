"""What a sandboxed process prints: the end of it, bounded, and as a terminal may show it.

Light on purpose: every command of the CLI imports `plain`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

from ring0 import limits

if TYPE_CHECKING:
    from ring0.tools.sandbox import Sandbox

_CONTROL: Final = re.compile(
    r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|.)|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)


def plain(text: str) -> str:
    """Text from outside, fit for a terminal: no escape sequence, no control character."""
    return _CONTROL.sub("", text)


class Output:
    """What a process prints: the end of it, bounded; a listener hears all as it comes."""

    def __init__(self, listener: Callable[[str], object] | None = None) -> None:
        self.stdout = bytearray()
        self.stderr = bytearray()
        self._listener = listener

    async def read(self, sandbox: Sandbox) -> None:
        """Until both streams end."""
        await asyncio.gather(
            self._pump(sandbox.stdout, self.stdout), self._pump(sandbox.stderr, self.stderr)
        )

    async def _pump(self, stream: asyncio.StreamReader, kept: bytearray) -> None:
        while chunk := await stream.read(limits.SANDBOX_PIECE_SIZE_BYTES):
            kept += chunk
            del kept[: max(0, len(kept) - limits.RUN_OUTPUT_SIZE_BYTES_MAX // 2)]
            if self._listener is not None:
                self._listener(plain(chunk.decode("utf-8", "replace")))

    def errors(self) -> str:
        return self.stderr.decode("utf-8", "replace")

    def as_blob(self) -> bytes:
        """Both streams, as they are stored; nothing where nothing was printed."""
        if not self.stdout and not self.stderr:
            return b""
        return msgspec.json.encode(
            {"stdout": self.stdout.decode("utf-8", "replace"), "stderr": self.errors()}
        )
