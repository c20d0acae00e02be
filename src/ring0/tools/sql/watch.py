"""A statement at work in a thread: its time, and the way to stop it and know what became of it.

A call that is cancelled must have settled when its driver returns: done, or nothing done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from ring0 import limits
from ring0.errors import CallDenied, EffectUnknown, Ring0Error, ToolFailed
from ring0.runtime import Runtime

T = TypeVar("T")


class Watch:
    """The time of one statement. `stop` may come from any thread, at any moment."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._ends_us = runtime.monotonic_us() + limits.SQL_TIME_S_MAX * 1_000_000
        self._interrupt: Callable[[], None] | None = None
        self._break_off: Callable[[], None] | None = None
        self.stopped = False

    def is_over(self) -> bool:
        """Asked by the engine every few thousand steps, or before each step of ours."""
        return self.stopped or self._runtime.monotonic_us() > self._ends_us

    def stop_with(
        self, interrupt: Callable[[], None] | None, break_off: Callable[[], None] | None
    ) -> None:
        """How an engine is stopped that does not ask; None when it is done."""
        self._interrupt, self._break_off = interrupt, break_off
        if interrupt is not None and self.stopped:
            interrupt()

    def stop(self) -> None:
        """Asks the engine to end its statement."""
        self.stopped = True
        if (interrupt := self._interrupt) is not None:
            interrupt()

    def break_off(self) -> None:
        """Ends an engine's connection that does not end by itself."""
        if (break_off := self._break_off) is not None:
            break_off()


async def settled(runtime: Runtime, watch: Watch, work: Callable[[], T], *, effect: bool) -> T:
    """What `work` gives, in a thread. Cancelled, or too late: it is stopped and waited for.

    effect: it changes something. Then a cancelled call still tells: the result where the commit
    was first, ToolFailed where nothing was done; CancelledError only where nobody can know.
    """
    thread = runtime.start(runtime.in_thread(work), name="sql")
    try:
        # The time of the thread's world, not the runtime's: a server hangs in real seconds.
        await asyncio.wait({thread}, timeout=limits.SQL_WALL_S_MAX)
        if thread.done():
            return thread.result()
    except asyncio.CancelledError:
        if thread.cancelled():
            raise
        await _stopped(runtime, watch, thread)
        return _after_all(thread, effect)
    await _stopped(runtime, watch, thread)
    try:
        return thread.result()
    except (CallDenied, ToolFailed):
        raise ToolFailed(
            f"The database gave no answer within {limits.SQL_WALL_S_MAX} s.",
            why="Nothing was changed.",
            todo="Look at the server, its load and its locks.",
        ) from None


def _after_all(thread: asyncio.Task[T], effect: bool) -> T:
    """What a cancelled call tells when its thread has ended."""
    error = thread.exception()
    if error is None and effect:
        return thread.result()
    if not effect or isinstance(error, EffectUnknown) or not isinstance(error, Ring0Error):
        raise asyncio.CancelledError
    raise ToolFailed(
        "The statement was stopped.", why="Its run was ended. Nothing was changed."
    ) from None


async def _stopped(runtime: Runtime, watch: Watch, thread: asyncio.Task[T]) -> None:
    """Asks it to end, and waits, whoever asks to stop waiting: it holds a transaction."""
    stopping = runtime.start(runtime.in_thread(watch.stop), name="sql-stop")
    await _ended(stopping, None)
    await _ended(thread, limits.SQL_STOP_S_MAX)
    if not thread.done():
        watch.break_off()
    await _ended(thread, None)


async def _ended(task: asyncio.Task[T], timeout_s: float | None) -> None:
    while not task.done():
        try:
            await asyncio.wait({task}, timeout=timeout_s)
        except asyncio.CancelledError:
            continue
        if timeout_s is not None:
            return
