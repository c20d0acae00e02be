"""The supervisor with workers that a test makes: who is killed, when, and what comes after."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from ring0 import limits
from ring0.daemon.channel import Beat, Channel, Failed, Held, Message, Ready, Said, Stop, pair
from ring0.daemon.supervisor import Supervisor
from ring0.errors import KernelBusy, Ring0Error, RunFailed, StoreFull
from simulated import Simulated

REFUSED = Failed(code="policy_invalid", whose="yours", what="No.", why="w", todo="t", exit_code=2)


class Fake:
    """A worker as a test wants it. It beats unless it is frozen; a kill takes effect at once."""

    def __init__(self, world: World, pid: int) -> None:
        self.pid = pid
        self.news = asyncio.Event()
        self.began_s = world.now_s
        self.frozen = False
        self.says: list[Message] = [Ready(unfinished=0)]
        self.code: int | None = None
        self.dies_at_s = float("inf")
        self.killed_s: float | None = None
        self.dead_s: float | None = None
        self.holds_out_s = 0.0
        """How long after SIGKILL Linux keeps it."""
        self.obeys = True
        self.went = self.closed = False
        self.died_young = 0
        """What it was told of those before it."""
        self._world = world

    def receive(self) -> list[Message]:
        if self.frozen or self.code is not None or not self.went:
            found, self.says = self.says if self.code is not None else [], []
            return found
        found, self.says = [*self.says, Beat()], []
        return found

    def go(self, died_young: int) -> None:
        self.died_young = died_young
        others = [worker for worker in self._world.workers if worker is not self]
        assert all(other.ended() is not None for other in others if other.went), "two at once"
        self.went = True
        self.began_s = self._world.now_s
        self._world.begun(self)

    def stop(self) -> None:
        if self.obeys:
            self.code = 0

    def kill(self) -> None:
        if self.killed_s is None:
            self.killed_s = self._world.now_s

    def ended(self) -> int | None:
        now_s = self._world.now_s
        killed_s = self.killed_s
        if killed_s is not None and self.code is None and now_s - killed_s >= self.holds_out_s:
            self.code = -9
        if self.code is None and now_s >= self.dies_at_s:
            self.code = -9
        if self.code is not None and self.dead_s is None:
            self.dead_s = now_s
        return self.code

    def close(self) -> None:
        assert self.ended() is not None, "a worker was let go of alive"
        self.closed = True


class World:
    """A supervisor on a clock that jumps; `shape` makes each worker what it is."""

    def __init__(self, shape: Callable[[Fake], None], most: int = 50) -> None:
        self.runtime = Simulated()
        self.workers: list[Fake] = []
        self.lines: list[str] = []
        self.ready = 0
        self._shape = shape
        self._most = most
        self.supervisor = Supervisor(
            self._start, self.runtime, lambda what, _: self.lines.append(what), self._is_ready
        )

    @property
    def now_s(self) -> float:
        return self.runtime.monotonic_us() / 1_000_000

    def begun(self, worker: Fake) -> None:
        self._shape(worker)
        if sum(one.went for one in self.workers) >= self._most:
            self.supervisor.stop()

    def _is_ready(self) -> None:
        self.ready += 1

    def _start(self) -> Fake:
        worker = Fake(self, 100 + len(self.workers))
        self.workers.append(worker)
        return worker


async def test_a_silent_worker_is_killed_and_the_next_one_starts_within_twice_the_lease() -> None:
    w = World(lambda _: None, most=2)
    serving = asyncio.ensure_future(w.supervisor.serve())
    while not w.ready:
        await asyncio.sleep(0)
    w.workers[0].frozen = True
    frozen_s = w.now_s
    assert await serving
    first, second = w.workers
    assert first.killed_s is not None
    assert limits.LEASE_S - 1 <= first.killed_s - frozen_s <= limits.LEASE_S + 1
    assert second.began_s - frozen_s <= 2 * limits.LEASE_S
    assert any("silent" in line for line in w.lines)


async def test_a_worker_that_is_late_and_comes_back_goes_on_and_its_successor_waits() -> None:
    w = World(lambda _: None)
    serving = asyncio.ensure_future(w.supervisor.serve())
    while not w.ready:
        await asyncio.sleep(0)
    for _ in range(3):
        w.workers[0].frozen = True
        while w.runtime.monotonic_us() / 1_000_000 - w.workers[0].began_s < limits.WORKER_LATE_S:
            await asyncio.sleep(0)
        for _ in range(100):
            if len(w.workers) > 1:
                break
            await asyncio.sleep(0)
        w.workers[0].frozen = False
        for _ in range(40):
            await asyncio.sleep(0)
    first, spare = w.workers
    assert first.killed_s is None and not spare.went
    w.supervisor.stop()
    assert await serving
    assert spare.killed_s is not None and spare.closed and not spare.went


async def test_a_machine_that_slept_kills_nobody() -> None:
    w = World(lambda _: None)
    serving = asyncio.ensure_future(w.supervisor.serve())
    while not w.ready:
        await asyncio.sleep(0)
    for _ in range(5):
        w.workers[0].frozen = True  # Nothing was heard meanwhile, and nothing could be.
        w.runtime.advance(3_600)
        await asyncio.sleep(0)
        w.workers[0].frozen = False
        for _ in range(20):
            await asyncio.sleep(0)
    assert len(w.workers) == 1 and w.workers[0].killed_s is None
    w.supervisor.stop()
    assert await serving


async def test_the_next_worker_starts_only_when_the_last_is_dead_however_long_that_takes() -> None:
    def shape(worker: Fake) -> None:
        worker.holds_out_s = 40 if worker.pid == 100 else 0

    w = World(shape, most=2)
    serving = asyncio.ensure_future(w.supervisor.serve())
    while not w.ready:
        await asyncio.sleep(0)
    w.workers[0].frozen = True
    assert await serving
    first, second = w.workers
    assert first.dead_s is not None and first.killed_s is not None
    assert first.dead_s - first.killed_s >= 40
    assert second.began_s >= first.dead_s
    assert any("not dead yet" in line for line in w.lines)


async def test_a_first_worker_that_can_not_come_to_work_ends_it_all_with_its_error() -> None:
    def shape(worker: Fake) -> None:
        worker.says, worker.code = [REFUSED], 2

    w = World(shape)
    with pytest.raises(Ring0Error) as caught:
        await w.supervisor.serve()
    assert (caught.value.what, caught.value.exit_code, len(w.workers)) == ("No.", 2, 1)


async def test_a_worker_that_finds_the_folder_taken_after_a_crash_is_tried_again() -> None:
    busy = Failed(**KernelBusy("Busy.").as_dict(), exit_code=6)

    def shape(worker: Fake) -> None:
        if worker.pid == 100:
            worker.dies_at_s = w.now_s + 1
        elif worker.pid < 103:
            worker.says, worker.code = [busy], 6

    w = World(shape, most=4)
    assert await w.supervisor.serve()
    assert len(w.workers) == 4 and any("Busy." in line for line in w.lines)


async def test_workers_that_die_at_once_again_and_again_end_it_and_are_started_ever_later() -> None:
    def shape(worker: Fake) -> None:
        worker.dies_at_s = w.now_s + 1

    w = World(shape)
    with pytest.raises(RunFailed, match="in a row"):
        await w.supervisor.serve()
    assert len(w.workers) == limits.WORKER_FAILURES_MAX
    gaps = [
        after.began_s - (before.dead_s or 0)
        for before, after in zip(w.workers, w.workers[1:], strict=False)
    ]
    assert gaps[0] < 0.5 and gaps == sorted(gaps) and gaps[-1] >= 2


async def test_a_worker_is_told_how_many_before_it_died_young_and_gave_no_reason() -> None:
    settled_s = limits.WORKER_SETTLED_S + 5

    def shape(worker: Fake) -> None:
        number = sum(one.went for one in w.workers)
        worker.dies_at_s = w.now_s + (settled_s if number == 4 else 1)
        if number == 3:  # What it could not do says nothing of the runs.
            worker.says, worker.code = [Ready(unfinished=1), REFUSED], 2

    w = World(shape, most=6)
    assert await w.supervisor.serve()
    assert [one.died_young for one in w.workers if one.went] == [0, 1, 2, 2, 0, 1]


async def test_however_many_runs_kill_their_workers_one_by_one_they_do_not_end_it() -> None:
    def shape(worker: Fake) -> None:
        worker.dies_at_s = w.now_s + 1
        if worker.died_young >= limits.WORKER_DEATHS_CAUTIOUS:
            worker.says = [Ready(unfinished=1), Held()]

    most = 3 * limits.WORKER_FAILURES_MAX
    w = World(shape, most=most)
    assert await w.supervisor.serve()
    assert sum(one.went for one in w.workers) == most


async def test_a_full_disk_is_waited_for_and_is_no_failure_of_a_workers() -> None:
    full = Failed(**StoreFull("The disk is full.").as_dict(), exit_code=6)
    most = 3 * limits.WORKER_FAILURES_MAX

    def shape(worker: Fake) -> None:
        number = sum(one.went for one in w.workers)
        if number == 1:
            worker.dies_at_s = w.now_s + 1
        elif number < most:
            worker.says, worker.code = [full], 6

    w = World(shape, most=most)
    assert await w.supervisor.serve()
    assert sum(one.went for one in w.workers) == most
    gaps = [b.began_s - (a.dead_s or 0) for a, b in zip(w.workers, w.workers[1:], strict=False)]
    assert gaps[1:] == sorted(gaps[1:])
    assert limits.WORKER_FULL_S_MAX <= gaps[-1] < limits.WORKER_FULL_S_MAX + 1
    assert any("until the disk has room" in line for line in w.lines)


async def test_a_full_disk_at_the_very_first_start_is_said_to_whoever_starts_it() -> None:
    full = Failed(**StoreFull("The disk is full.").as_dict(), exit_code=6)

    def shape(worker: Fake) -> None:
        worker.says, worker.code = [full], 6

    w = World(shape)
    with pytest.raises(Ring0Error, match="disk is full"):
        await w.supervisor.serve()


async def test_workers_that_were_at_work_for_a_while_are_replaced_without_end_or_delay() -> None:
    def shape(worker: Fake) -> None:
        worker.dies_at_s = w.now_s + limits.WORKER_SETTLED_S + 5

    most = 3 * limits.WORKER_FAILURES_MAX
    w = World(shape, most=most)
    assert await w.supervisor.serve()
    assert len(w.workers) == most


async def test_a_worker_that_never_says_that_it_is_at_work_is_killed_but_given_its_time() -> None:
    def shape(worker: Fake) -> None:
        worker.says = []

    w = World(shape, most=2)
    assert await w.supervisor.serve()
    first = w.workers[0]
    assert first.killed_s is not None
    assert 0 <= first.killed_s - first.began_s - limits.WORKER_START_S_MAX <= 2


async def test_asked_to_end_it_ends_its_worker_in_order_and_starts_no_other() -> None:
    w = World(lambda _: None, most=1)
    assert await w.supervisor.serve()
    assert w.workers[0].code == 0 and len(w.workers) == 1


async def test_asked_twice_it_kills_its_worker_at_once() -> None:
    def shape(worker: Fake) -> None:
        worker.obeys = False

    w = World(shape)
    serving = asyncio.ensure_future(w.supervisor.serve())
    while not w.ready:
        await asyncio.sleep(0)
    w.supervisor.stop()
    for _ in range(30):
        await asyncio.sleep(0)
    assert w.workers[0].killed_s is None  # It was asked only once.
    w.supervisor.stop()
    asked_s = w.now_s
    assert not await serving
    assert (w.workers[0].killed_s or 0) - asked_s < 1 and len(w.workers) == 1


async def test_a_worker_that_does_not_end_when_it_is_asked_is_killed_after_a_while() -> None:
    def shape(worker: Fake) -> None:
        worker.obeys = False

    w = World(shape, most=1)
    assert not await w.supervisor.serve()
    killed_s = w.workers[0].killed_s
    assert killed_s is not None and killed_s - w.workers[0].began_s >= limits.WORKER_STOP_S_MAX


async def test_a_stop_between_two_workers_starts_none() -> None:
    def shape(worker: Fake) -> None:
        worker.dies_at_s = w.now_s + 1

    w = World(shape)
    serving = asyncio.ensure_future(w.supervisor.serve())
    while not any("next worker" in line for line in w.lines):
        await asyncio.sleep(0)
    w.supervisor.stop()
    assert await serving
    assert all(worker.dead_s is not None for worker in w.workers)


def test_a_channel_never_waits_and_tells_of_its_end() -> None:
    ours, its = (Channel(end) for end in pair())
    for _ in range(10_000):  # Nobody reads: the rest is left out.
        ours.send(Beat())
    ours.send(Stop())
    found = its.receive()
    assert found and all(isinstance(message, Beat) for message in found)
    ours.send(Said(what="é", run="r-1"))
    assert its.receive() == [Said(what="é", run="r-1")]
    assert its.receive() == []
    ours.close()
    assert its.receive() is None
    its.send(Stop())  # To nobody: no error.
    its.close()
