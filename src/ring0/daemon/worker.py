"""The worker of a daemon: a kernel that is at work until its supervisor says stop, or ends.

It takes no signals: a terminal and a service manager send theirs to every process of a group, and
only the supervisor knows the first from the second. `python -m ring0.daemon.worker OPTIONS FD`.
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import os
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
import uvloop

from ring0 import limits
from ring0.daemon.byitself import ByItself
from ring0.daemon.channel import (
    Beat,
    Channel,
    Failed,
    Go,
    Held,
    Options,
    Ready,
    Said,
    Stop,
    bounded,
)
from ring0.daemon.faults import FAULT_EXIT, keep_fault
from ring0.daemon.journal import Journal
from ring0.daemon.needs import Needs
from ring0.daemon.telemetry import Telemetry
from ring0.errors import Ring0Error, StoreFailed, StoreFull
from ring0.gateway.control import Control, at_work
from ring0.kernel.agent import profiles
from ring0.kernel.agent.observing import OBSERVED
from ring0.kernel.kernel import Kernel
from ring0.kernel.life.recovery import HOLDER
from ring0.kernel.live import LiveRun
from ring0.kernel.operating import changing
from ring0.observability.telemetry import ids
from ring0.runtime import Runtime
from ring0.types import LIVE, Mode, Run, RunState

ORPHAN_EXIT: Final = 71
_PR_SET_PDEATHSIG: Final = 1


class Worker:
    """A kernel with its doors and its socket, which beats as long as its event loop turns."""

    def __init__(
        self,
        options: Options,
        channel: Channel,
        runtime: Runtime,
        environment: Mapping[str, str],
        died_young: int = 0,
    ) -> None:
        """`died_young`: so many workers before it did, in a row."""
        self._home = Path(options.home)
        self._options = options
        self._channel = channel
        self._runtime = runtime
        self._environment = environment
        self._died_young = died_young
        self._stop = asyncio.Event()
        self._by_itself: ByItself | None = None
        self._live: Mapping[str, LiveRun] = {}
        """Runs that go on, once the kernel is there."""
        self._warnings: set[asyncio.Task[None]] = set()
        """Looks for rules that hold for nothing, under way."""

    async def serve(self) -> None:
        """Until it is stopped. Raises what keeps the kernel from its work."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._channel.fileno(), self._heard)
        beats = self._runtime.start(self._beat(), name="beat")
        try:
            async with at_work(self._home, self._runtime, self._environment, runs=True) as (
                kernel,
                control,
            ):
                by_itself = self._by_itself = ByItself(kernel, self._options, self.say)
                by_itself.bind()
                telemetry = Telemetry(kernel, control.measures, self.say)
                telemetry.bind()
                self._live = kernel.gate.live
                kernel.runs.seen = functools.partial(self._seen, kernel)
                needs = Needs(kernel.store, self._runtime, self.say)
                kernel.waiting.needed, kernel.pausing.told = needs.heard, needs.told_no
                kernel.notifying.failed = self._not_told
                kernel.anchoring.say = self.say
                if kernel.memory.indexing is not None:
                    kernel.memory.indexing.say = self.say
                left = await kernel.store.runs(states=LIVE, most=limits.RUNS_LIVE_MAX)
                ours = [row for row in left if row.mode is not Mode.EMBEDDED]
                self._channel.send(Ready(unfinished=len(ours)))
                if (code := await kernel.logins.first_code()) is not None:
                    self.say(f"{code} logs one in, once: `ring0 login --code`")
                if kernel.policies.profile == "observe":
                    self.say(OBSERVED)
                if kernel.held_profile:
                    self.say(changing.told(kernel))
                for warning in kernel.unmatched:
                    self.say(warning)
                try:
                    await self._recover(kernel, len(left) - len(ours))
                    await by_itself.begin()
                    await telemetry.begin()
                    await self._until_it_ends(kernel)
                    await by_itself.end()
                    await self._end(kernel, control)
                finally:
                    await telemetry.close()
                    await by_itself.close()
        finally:
            loop.remove_reader(self._channel.fileno())
            beats.cancel()
            for task in self._warnings:
                task.cancel()

    async def _until_it_ends(self, kernel: Kernel) -> None:
        """Until it is stopped, or its journal has to be opened anew. Raises StoreFailed, and
        StoreDamaged where the journal is not the one that was signed."""
        journal = Journal(self._home, kernel.store, self._runtime, self.say)
        watch = self._runtime.start(journal.until_opened_anew(), name="journal")
        damage = self._runtime.start(kernel.anchoring.until_damaged(), name="anchored")
        stop = self._runtime.start(self._stop.wait(), name="stop")
        try:
            await asyncio.wait({watch, damage, stop}, return_when=asyncio.FIRST_COMPLETED)
            for ended in (damage, watch):
                if ended.done():
                    ended.result()
        finally:
            watch.cancel()
            damage.cancel()
            stop.cancel()

    def _heard(self) -> None:
        messages = self._channel.receive()
        if messages is None or any(isinstance(message, Stop) for message in messages):
            self._stop.set()  # Told to, or the supervisor has gone.

    async def _beat(self) -> None:
        while True:
            self._channel.send(Beat())
            await self._runtime.sleep(limits.BEAT_S)

    def say(self, what: str, run: str = "", row: Run | None = None) -> None:
        """A line of the daemon's log. `row`: that run's, where it goes on no more."""
        live = self._live.get(run)
        row = live.row if live is not None else row
        trace = ids.trace_id(row) if row is not None else ""
        self._channel.send(Said(what=bounded(what), run=run, trace_id=trace))

    def _not_told(self, place: str, why: str) -> None:
        """A place of [[notify]] has begun to fail."""
        self.say(f"{place} was not told of an ask, and is tried again: {why}")

    def _seen(self, kernel: Kernel, row: Run) -> None:
        """A run was started, or has ended."""
        if row.state is RunState.RUNNING:
            how = "is started" if row.epoch == 1 else f"goes on (start {row.epoch})"
            self.say(f"agent {row.agent} {how}, for {row.principal}", row.id, row)
            if kernel.policies.names_tools:
                task = self._runtime.start(self._warn(kernel, row.id), name=f"rules of {row.id}")
                self._warnings.add(task)
                task.add_done_callback(self._warnings.discard)
        else:
            which = "; `ring0 show` marks the effect to settle" * (row.state is RunState.UNKNOWN)
            self.say(f"agent {row.agent} has ended: {row.state}{which}", row.id, row)
        if self._by_itself is not None:
            self._by_itself.seen(row)

    async def _warn(self, kernel: Kernel, run: str) -> None:
        """Of rules that name a tool which nobody has."""
        try:
            for warning in await profiles.warnings(kernel, run):
                self.say(warning, run)
        except (StoreFull, StoreFailed):
            pass  # Whoever writes says so, and the journal is opened anew.

    async def _recover(self, kernel: Kernel, embedded: int) -> None:
        """Goes on with what was left; what can't go on is said, and keeps nothing else back."""
        if embedded:
            self.say(f"embedded runs that wait for their own program: {embedded}")
        before = await _held(kernel)
        try:
            await kernel.recover(died_young=self._died_young)
        except (StoreFull, StoreFailed):
            raise
        except Ring0Error:
            pass  # Told with the others.
        if await _held(kernel) > before:
            self._channel.send(Held())
        for run, error in kernel.runs.not_recovered.items():
            self.say(f"could not go on: {error.what} {error.why} {error.todo}", run)

    async def _end(self, kernel: Kernel, control: Control) -> None:
        """No run is started any more, and no effect is cut off that would be over in a moment."""
        control.is_ending = True
        self.say("stopping: what goes on is kept")
        if not await kernel.turns.drain(self._runtime, limits.WORKER_DRAIN_S_MAX):
            self.say(f"calls are cut off that took longer than {limits.WORKER_DRAIN_S_MAX} s")


async def _held(kernel: Kernel) -> int:
    rows = await kernel.store.runs(states=LIVE, most=limits.RUNS_LIVE_MAX)
    return sum(row.paused_by == HOLDER for row in rows)


def main(arguments: list[str]) -> int:
    """The process of a worker; its exit code."""
    options = msgspec.json.decode(arguments[0], type=Options)
    channel = Channel(socket.socket(fileno=int(arguments[1])))
    # A worker without a supervisor would be frozen for ever where it freezes.
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != options.parent:
        return ORPHAN_EXIT
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)  # Not SIG_IGN, which a program started here keeps.
    go = _may_go(channel)
    if go is None:
        return 0
    worker = Worker(options, channel, Runtime(), dict(os.environ), go.died_young)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(worker.serve())
    except Ring0Error as error:
        channel.send(_failed(error))
        return error.exit_code
    except Exception as fault:
        channel.send(_failed(_told(Path(options.home), fault)))
        return FAULT_EXIT
    return 0


def _may_go(channel: Channel) -> Go | None:
    """All code is loaded, nothing is touched: returns once no other worker lives. None: end."""
    while True:
        channel.wait()
        messages = channel.receive()
        if messages is None or any(isinstance(message, Stop) for message in messages):
            return None
        for message in messages:
            if isinstance(message, Go):
                return message


def _told(home: Path, fault: Exception) -> Ring0Error:
    what = f"A fault of ring0: {type(fault).__name__}."
    try:
        path = keep_fault(home, fault)
    except OSError as error:
        return Fault(what, todo=f"Report it. Its details can't be kept: {error.strerror}.")
    return Fault(what, todo=f"Report it, with {path}: it holds the details.")


class Fault(Ring0Error):
    """A fault of ring0, which is no error that a user can cause."""

    exit_code = FAULT_EXIT


def _failed(error: Ring0Error) -> Failed:
    told = {key: bounded(text) for key, text in error.as_dict().items()}
    return Failed(**told, exit_code=error.exit_code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
