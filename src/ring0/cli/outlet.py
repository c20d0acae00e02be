"""Standard output and error as they really are: closed by their reader, full, gone.

A reader that has gone (`| head`) is no error: what is said from then on is said to nobody. Any
other failure of standard output is one, unless the stream only shows what goes on (`forgive`): a
run does not end because nobody can watch it.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Final, TextIO, cast

from ring0.errors import Ring0Error

OUTPUT_EXIT: Final = 74
"""EX_IOERR of sysexits.h."""


class OutputFailed(Ring0Error):
    """What was to be printed could not be."""

    code, whose, exit_code = "output_failed", "world", OUTPUT_EXIT


class Outlet:
    """A standard stream that never raises an OSError: it is quiet, or raises OutputFailed once."""

    def __init__(self, stream: TextIO, *, forgiving: bool) -> None:
        self._stream = stream
        self.forgiving = forgiving

    def write(self, words: str) -> int:
        try:
            return self._stream.write(words)
        except OSError as error:
            self._failed(error)
            return len(words)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._failed(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _failed(self, error: OSError) -> None:
        """Whatever is left, also in buffers that Python empties at its end, goes nowhere."""
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, self._stream.fileno())
        os.close(nothing)
        if self.forgiving or isinstance(error, BrokenPipeError):
            return
        raise OutputFailed(
            f"Standard output can't be written to: {error.strerror}.",
            todo="Send it to where there is room.",
        )


def install_outlets() -> None:
    """For a whole process: everything that prints goes through them."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # It was closed before we began (`>&-`).
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    sys.stdout = cast(TextIO, Outlet(sys.stdout, forgiving=False))
    sys.stderr = cast(TextIO, Outlet(sys.stderr, forgiving=True))


def forgive(stream: object) -> None:
    """What goes to this stream only shows what goes on: losing it ends nothing."""
    if isinstance(stream, Outlet):
        stream.forgiving = True
