"""The supervisor of a daemon: keeps one worker at work, and kills one that is silent.

It opens no journal and runs no agent, so that nothing of theirs can hold it up. A worker that is
to be replaced is confirmed dead before the next one starts: two never write side by side. Not here:
the process itself (processes.py), what it says to a person (cli/serving.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from ring0 import limits
from ring0.daemon.channel import Beat, Failed, Held, Message, Ready, Said
from ring0.daemon.faults import FAULT_EXIT
from ring0.errors import Ring0Error, RunFailed, StoreFull
from ring0.runtime import Runtime

Log = Callable[..., None]
"""(what, run): a line for whoever operates the daemon; the run may be empty. Of a run that goes on
also its trace id."""


class WorkerProcess(Protocol):
    """A worker as its supervisor has it."""

    pid: int
    news: asyncio.Event
    """Set when it said something, or died."""

    def receive(self) -> list[Message]: ...

    def go(self, died_young: int) -> None:
        """Lets it take the folder: until then it has only loaded its code. `died_young`: so many
        workers before it did (`_Watch.died_young`), in a row."""

    def stop(self) -> None:
        """Asks it to end in order."""

    def kill(self) -> None:
        """SIGKILL: it ends whatever it does, also where it is stopped."""

    def ended(self) -> int | None:
        """How it ended, once it is dead; None while it is not."""

    def close(self) -> None: ...


class Awake:
    """Seconds in which this process could have heard something.

    A machine that sleeps, a container that is frozen or a terminal's Ctrl-Z stops both: what passed
    meanwhile is no silence of the worker's.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._seen_us = runtime.monotonic_us()
        self.seconds = 0.0

    def look(self) -> float:
        now_us = self._runtime.monotonic_us()
        passed_s = (now_us - self._seen_us) / 1_000_000
        self._seen_us = now_us
        self.seconds += min(passed_s, 2 * limits.BEAT_S)
        return self.seconds


class Supervisor:
    """Starts a worker, and another where that one dies or freezes."""

    def __init__(
        self,
        start: Callable[[], WorkerProcess],
        runtime: Runtime,
        log: Log,
        ready: Callable[[], None] = lambda: None,
    ) -> None:
        self._start = start
        self._runtime = runtime
        self._log = log
        self._ready = ready
        self._stops = 0
        self._asked = asyncio.Event()
        self._is_ready = False
        """One worker was at work already."""
        self._next: WorkerProcess | None = None
        """A successor, made while the worker is late; it waits for the other's death."""

    def stop(self) -> None:
        """Ends the worker in order; asked a second time, at once."""
        self._stops += 1
        self._asked.set()

    async def serve(self) -> bool:
        """Until it is stopped; whether that was in order. Raises the error of workers that can't
        do their work."""
        try:
            return await self._serve()
        finally:
            if self._next is not None:
                self._next.kill()
                self._next.close()

    async def _serve(self) -> bool:
        failures = young = full = 0
        while True:
            worker, self._next = self._next or self._start(), None
            watch = _Watch(worker, self._runtime, self._log, self._came_to_work)
            worker.go(young)
            try:
                error = await self._see_through(watch)
            finally:
                watch.worker.kill()
                watch.worker.close()
            if self._stops:
                return not watch.was_killed
            if error is not None and not self._is_ready:
                raise error  # It never worked: no other worker will either.
            if error is not None:
                self._log(f"{error.what} {error.why}".strip(), "")
            if error is not None and error.code == StoreFull.code:  # No failure of a worker's.
                full += 1
                pause_s = min(limits.WORKER_BACKOFF_S * 2**full, limits.WORKER_FULL_S_MAX)
                self._log("it waits until the disk has room again", "")
            else:
                full = 0
                if watch.held:  # Each such death leaves fewer runs that can cause another.
                    failures = min(failures, limits.WORKER_DEATHS_CAUTIOUS - 1)
                failures = 1 if watch.settled else failures + 1
                young = watch.died_young(young)
                if failures >= limits.WORKER_FAILURES_MAX:
                    raise error or _hopeless()
                pause_s = 0.0 if failures == 1 else limits.WORKER_BACKOFF_S * 2 ** (failures - 2)
            if pause_s:
                self._log(f"the next worker is started in {pause_s:g} s", "")
                await self._pause(pause_s)
                if self._stops:
                    return True

    async def _pause(self, seconds: float) -> None:
        try:
            await self._runtime.wait_for(self._asked.wait(), seconds)
        except TimeoutError:
            pass

    def _came_to_work(self) -> None:
        self._is_ready = True
        self._ready()

    async def _see_through(self, watch: _Watch) -> Ring0Error | None:
        """Until the worker is dead. What it says of its end; None where it says nothing."""
        told = 0
        while watch.worker.ended() is None:
            if self._stops > told:
                told = self._stops
                if told == 1:
                    watch.stop()
                else:
                    watch.kill("asked to end at once")
                self._asked.clear()
            watch.look()
            if watch.is_late and self._next is None:
                self._next = self._start()
            await self._pass(watch)
        watch.look()  # What it said last.
        watch.tell_end()
        return watch.error

    async def _pass(self, watch: _Watch) -> None:
        """Until there is something to see, or it is time to look anyway."""
        news = self._runtime.start(watch.worker.news.wait(), name="worker")
        asked = self._runtime.start(self._asked.wait(), name="asked")
        pause = self._runtime.start(self._runtime.sleep(limits.BEAT_S), name="look")
        try:
            await asyncio.wait({news, asked, pause}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (news, asked, pause):
                task.cancel()
        watch.worker.news.clear()


class _Watch:
    """One worker: what it said, and whether it is still to be waited for."""

    def __init__(
        self, worker: WorkerProcess, runtime: Runtime, log: Log, ready: Callable[[], None]
    ) -> None:
        self.worker = worker
        self._runtime = runtime
        self._log = log
        self._ready = ready
        self._awake = Awake(runtime)
        self._heard_s = 0.0
        self._stop_s: float | None = None
        self._ready_s: float | None = None
        self._killed_s: float | None = None
        self._why = ""
        self.held = False
        """It held runs that were at work when those before it died."""
        self.error: Ring0Error | None = None

    @property
    def was_killed(self) -> bool:
        return self._killed_s is not None

    @property
    def is_late(self) -> bool:
        """It may be frozen: it beat before, and has not for a while."""
        silent_s = self._awake.seconds - self._heard_s
        return self._ready_s is not None and silent_s >= limits.WORKER_LATE_S

    @property
    def settled(self) -> bool:
        """It was at work for long enough to be no failure."""
        return (
            self._ready_s is not None
            and self._awake.seconds - self._ready_s >= limits.WORKER_SETTLED_S
        )

    def died_young(self, before: int) -> int:
        """How many in a row died while their runs had just gone on, given those before this one."""
        if self.settled:
            return 0
        said_why = self.error is not None and self.error.exit_code != FAULT_EXIT
        return before if self._ready_s is None or said_why else before + 1

    def stop(self) -> None:
        self._stop_s = self._awake.seconds
        self.worker.stop()

    def kill(self, why: str) -> None:
        if self._killed_s is None:
            self._log(f"worker {self.worker.pid} is killed: {why}", "")
            self._why = why
        self._killed_s = self._awake.seconds
        self.worker.kill()

    def look(self) -> None:
        """Takes in what the worker said, and kills it where it is late."""
        now_s = self._awake.look()
        for message in self.worker.receive():
            self._take(message, now_s)
        if self._killed_s is not None:
            if now_s - self._killed_s >= limits.LEASE_S and self.worker.ended() is None:
                self._log(f"worker {self.worker.pid} is not dead yet: Linux holds it", "")
                self._killed_s = now_s
        elif self._stop_s is not None and now_s - self._stop_s >= limits.WORKER_STOP_S_MAX:
            self.kill(f"it was asked to end {limits.WORKER_STOP_S_MAX} s ago")
        elif self._ready_s is None:
            if now_s >= limits.WORKER_START_S_MAX:
                self.kill(f"it did not come to work in {limits.WORKER_START_S_MAX} s")
        elif now_s - self._heard_s >= limits.LEASE_S:
            self.kill(f"it was silent for {limits.LEASE_S} s (frozen, or stuck)")

    def _take(self, message: Message, now_s: float) -> None:
        self._heard_s = now_s
        match message:
            case Ready():
                self._ready_s = now_s
                left = message.unfinished
                goes_on = f"; {left} unfinished run{'s' * (left > 1)}" if left else ""
                self._log(f"worker {self.worker.pid} is at work{goes_on}", "")
                self._ready()
            case Held():
                self.held = True
            case Said():
                trace = (message.trace_id,) if message.trace_id else ()
                self._log(message.what, message.run, *trace)
            case Failed():
                self.error = Told(message)
            case Beat():
                pass
            case _:
                pass

    def tell_end(self) -> None:
        code = self.worker.ended()
        assert code is not None
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        self._log(f"worker {self.worker.pid} has ended {how}", "")


class Told(Ring0Error):
    """What a worker said of its end, as it said it."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.what, why=failed.why, todo=failed.todo)
        self.code = failed.code  # type: ignore[misc]
        self.whose = failed.whose  # type: ignore[misc]
        self.exit_code = failed.exit_code  # type: ignore[misc]


def _hopeless() -> RunFailed:
    return RunFailed(
        f"{limits.WORKER_FAILURES_MAX} workers in a row died before they had been at work for"
        f" {limits.WORKER_SETTLED_S} s.",
        why="Each was killed or crashed, and said nothing.",
        todo="The lines above say how each ended; `ring0 doctor` looks at this machine.",
    )
