"""An event loop on a simulated clock: when nothing is ready, the clock jumps to the next timer.

All of asyncio's timers (sleep, timeout, wait_for) run on it. It never waits and never blocks; who
waits for what will never come is an error that shows every task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NoReturn

START_US = 1_750_000_000_000_000
"""Where the simulated wall clock begins, microseconds since 1970."""
RESOLUTION_S = 1e-9


class Deadlock(Exception):
    """Nothing is ready and no timer is set: whoever waits, waits for ever."""


class Clock:
    """Simulated time. It outlives the loops that move it: a new kernel goes on where one died."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.skew_us = 0
        """What the wall clock is off; a jump moves it, also back."""

    def monotonic_us(self) -> int:
        return round(self.now_s * 1_000_000)

    def wall_us(self) -> int:
        return START_US + self.monotonic_us() + self.skew_us


class _Selector:
    """What the loop asks for input: there is none, only time."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise Deadlock("Nothing is ready, and no timer is set.\n" + self._loop.stacks())
        if timeout > 0:
            self._loop.jump()
        return []

    def close(self) -> None:
        """Nothing is open."""


class SimulatedLoop(asyncio.BaseEventLoop):
    """One kernel's loop. `drop` is the death of its process."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self._selector = _Selector(self)
        self._clock_resolution = RESOLUTION_S
        self.turns = 0
        """How often the loop went round: a bound on what a seed may take."""
        self.turns_max = 0
        self.set_exception_handler(self._heard)
        self.unheard: list[str] = []
        """Exceptions that nobody took."""

    def time(self) -> float:
        return self._clock.now_s

    def jump(self) -> None:
        """To the next timer."""
        self._clock.now_s = max(self._clock.now_s, self._scheduled[0]._when)  # type: ignore[attr-defined]

    def _process_events(self, events: Any) -> None:
        """There are none."""

    def _run_once(self) -> None:
        self.turns += 1
        if self.turns_max and self.turns > self.turns_max:
            raise Deadlock(f"{self.turns} turns and no end.\n" + self.stacks())
        super()._run_once()  # type: ignore[misc]

    def call_soon_threadsafe(
        self, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> Any:  # type: ignore[override]
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> NoReturn:  # type: ignore[override]
        raise AssertionError(f"a thread, in a simulation: {func}")

    def _heard(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        where = context.get("task") or context.get("future") or ""
        self.unheard.append(f"{context.get('message')}: {error!r} {where}")

    def stacks(self) -> str:
        """Every task that waits, and where: a line for each coroutine that it is in."""
        lines = []
        for task in sorted(asyncio.all_tasks(self), key=lambda one: one.get_name()):
            lines.append(f"{task.get_name()}:")
            inner: Any = task.get_coro()
            while inner is not None:
                frame = getattr(inner, "cr_frame", None)
                if frame is not None:
                    place = f"{frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno}"
                    lines.append(f"    {place} {frame.f_code.co_qualname}")
                inner = getattr(inner, "cr_await", None)
        return "\n".join(lines)

    def drop(self) -> None:
        """Nothing of what waits here goes on: no `finally` of it is awaited, no timer comes."""
        tasks = asyncio.all_tasks(self)
        for task in tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        self._ready.clear()  # type: ignore[attr-defined]
        self._scheduled.clear()  # type: ignore[attr-defined]
        self.close()
        for task in tasks:
            try:
                task.get_coro().close()  # type: ignore[union-attr]
            except Exception:
                pass  # It would have awaited something: a dead process does not.
