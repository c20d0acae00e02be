"""Asks the human at this terminal about a held call; where there is none, says how to answer.

Nothing is preselected: a held call goes on by a typed yes and by nothing else.
"""

from __future__ import annotations

import asyncio
import os
import sys
import termios
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from rich.console import Console

from ring0.cli.output import line, text
from ring0.errors import AnswerRefused, CallDenied, Ring0Error
from ring0.types import Approval, Shown

if TYPE_CHECKING:
    from ring0.kernel.kernel import Kernel

Give = Callable[[str, bool], Awaitable[None]]
"""Gives the answer to an approval to whatever kernel has it."""
QUESTION = "approve? [y]es / [n]o / [l]ater: "
ANSWERS = {"y": True, "yes": True, "n": False, "no": False, "l": None, "later": None}
LINE_BYTES = 4_096


def giving(kernel: Kernel) -> Give:
    """To a kernel of this process, by whoever runs it."""

    async def give(approval: str, yes: bool) -> None:
        from ring0.gateway.control import here

        by = (await here(kernel, os.environ)).may("answer")
        await kernel.answer(approval, yes=yes, by=by)

    return give


class Prompt:
    """An `Answer` for a view, in the terminal of whoever runs it."""

    def __init__(self, give: Give, out: Console) -> None:
        self._give = give
        self._out = out
        self._terminal = sys.stdin.isatty() and out.is_terminal
        self._gone = False

    async def ask(self, approval: Approval, shown: Shown) -> None:
        """Gets an answer and gives it to the kernel; `later` leaves the call waiting."""
        if not self._terminal or self._gone:
            self._out.print(
                text(
                    (
                        f"waits for: ring0 approve {approval.id}  or  ring0 deny {approval.id}",
                        "yellow",
                    )
                )
            )
            return
        # What was typed before the call was shown is no answer to it.
        termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)
        while True:
            self._out.print(text((QUESTION, "bold yellow")), end="")
            self._out.file.flush()
            typed = await read_line(sys.stdin.fileno())
            if typed is None:
                self._gone = True
                self._out.print()
            answer = ANSWERS.get((typed or "later").strip().lower(), "?")
            if answer is None:
                self._out.print(text((f"{approval.id} waits.", "yellow")))
                return
            if isinstance(answer, bool):
                break
        try:
            await self._give(approval.id, answer)
        except Ring0Error as error:  # Of another process it comes as it was told, by its code.
            if error.code == AnswerRefused.code:
                self._out.print(text((f"{line(str(error), 400)}", "yellow")))
                self._out.print(text((f"{approval.id} waits.", "yellow")))
            elif error.code != CallDenied.code:
                raise
            # Else somebody was quicker; the view shows who.


async def read_line(descriptor: int) -> str | None:
    """A line from the terminal without blocking the kernel; None at its end."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)
    try:
        return os.read(descriptor, LINE_BYTES).decode("utf-8", "replace") or None
    except OSError:  # The terminal has been closed.
        return None
