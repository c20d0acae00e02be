"""The writer's core without its thread: groups, refusals alone, a full disk and its reserve."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import apsw
import pytest
from msgspec.structs import replace

import journals
from journals import queued, row_of
from ring0 import limits
from ring0.errors import StoreFailed, StoreFull
from ring0.observability import verify
from ring0.store import GuardFailed, Write, WriteImpossible, base
from ring0.store import events as ev
from ring0.store.sqlite import SqliteStore, create_tables
from ring0.store.sqlite.committing import Answer, Committer, Job
from ring0.store.sqlite.reserve import Reserve
from ring0.store.sqlite.writer import give
from ring0.types import ApprovalState
from simulated import Simulated

_names = (f"/committing-{number}" for number in itertools.count())


class Room(Reserve):
    """A reserve that is room in the database."""

    def __init__(self, db: apsw.Connection, pages: int) -> None:
        self._db, self._pages = db, pages
        self.held = True

    def give_up(self) -> bool:
        if not self.held:
            return False
        self.held = False
        self._db.pragma("max_page_count", self._pages)
        return True


class AtOnce:
    """Runs a committer on the loop: all that was submitted by `go` is one group."""

    def __init__(self, db: apsw.Connection, reserve: Reserve | None = None) -> None:
        self.db = db
        self.committer = Committer(db, -1, Simulated(), give, reserve)
        self.jobs: list[Job] = []

    def submit(self, write: Write | None) -> asyncio.Future[int]:
        job = Job(write)
        self.jobs.append(job)
        return job.future

    def go(self) -> bool:
        return not self.jobs or self.committer.group(self.jobs.pop(0), self)

    def now(self) -> Job | None:
        return self.jobs.pop(0) if self.jobs else None

    def later(self) -> Job | None:
        return None

    def latest_us(self) -> int:
        return self.committer.latest_us

    def stop(self) -> None:
        self.go()

    def close(self) -> None:
        self.committer.close()


class World:
    """A store in memory."""

    def __init__(self) -> None:
        self.name = next(_names)
        self.db = apsw.Connection(self.name, vfs="memdb")
        create_tables(self.db)
        self.begin()

    def begin(self, reserve: Reserve | None = None) -> None:
        """A writer that finds the journal as it is."""
        self.writer = AtOnce(self.db, reserve)
        reader = apsw.Connection(self.name, vfs="memdb")
        self.store = SqliteStore(reader, self.writer, -1, Simulated())

    def write(self, *writes: Write) -> list[asyncio.Future[int]]:
        """One group."""
        told = [self.writer.submit(write) for write in writes]
        self.writer.go()
        return told

    async def ok(self) -> int:
        report = await verify(self.store)
        problems = [one for one in report.problems if "head file" not in one]
        assert not problems, problems
        return report.events

    def pages(self) -> int:
        return int(str(self.db.pragma("page_count")))


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.db.close()


def small(run: str, number: int) -> Write:
    return journals.intended(run, number)


def answers(told: list[asyncio.Future[int]]) -> list[int | BaseException]:
    return [one.exception() or one.result() for one in told]


async def test_a_group_is_answered_when_it_is_written(world: World) -> None:
    told = world.write(queued("r-1"), journals.moved("r-1", epoch=1), small("r-1", 0))
    assert answers(told) == [1, 2, 3]
    assert await world.ok() == 3
    assert len(await world.store.calls("r-1")) == 1


async def test_what_rides_is_told_before_the_commit_and_what_is_durable_after(
    world: World,
) -> None:
    world.write(queued("r-1"))
    rides, durable = small("r-1", 0), small("r-1", 1)
    durable.durable = True
    told = [world.writer.submit(write) for write in (rides, durable)]
    seen: list[tuple[bool, bool]] = []

    def hook() -> bool:
        seen.append((told[0].done(), told[1].done()))
        return False

    world.db.set_commit_hook(hook)
    world.writer.go()
    assert seen == [(True, False)] and told[1].done()


async def test_nothing_that_is_written_because_of_an_answer_is_there_before_the_answer(
    world: World,
) -> None:
    """What is told of a write that goes to the disk `soon` makes its caller write: that is no part
    of the group, so nothing is admitted because of what a crash may still take."""
    world.write(queued("r-1"))
    soon = small("r-1", 0)
    soon.soon = True
    first, commits = world.writer.submit(soon), list[int]()
    world.writer.submit(small("r-1", 1))  # Of the same group, and told no earlier.
    later: list[asyncio.Future[int]] = []
    committer = world.writer.committer
    tell = committer._tell

    def hears(told: Sequence[tuple[Job, Answer]]) -> None:
        tell(told)
        if first.done() and not later:
            later.append(world.writer.submit(small("r-1", 2)))

    committer._tell = hears

    def hook() -> bool:
        commits.append(committer._tree.size)
        return False

    world.db.set_commit_hook(hook)
    world.writer.go()
    assert first.done() and commits == [3] and not later[0].done()
    world.writer.go()
    assert commits == [3, 4] and later[0].done()


async def test_a_group_with_what_goes_to_the_disk_soon_waits_for_no_other(world: World) -> None:
    world.write(queued("r-1"))
    waited: list[Job | None] = []
    world.writer.later = lambda: waited.append(None)  # type: ignore[method-assign]
    world.write(small("r-1", 0))
    assert waited == [None], "what rides waits for company"
    soon = small("r-1", 1)
    soon.soon = True
    world.write(soon)
    assert waited == [None]


async def test_a_writer_that_dies_in_a_group_leaves_what_was_before_it(world: World) -> None:
    world.write(queued("r-1"), small("r-1", 0))

    class Died(BaseException):
        """Nothing catches it."""

    def dies() -> bool:
        raise Died

    world.db.set_commit_hook(dies)
    world.writer.submit(small("r-1", 1))
    with pytest.raises(Died):
        world.writer.go()
    world.db.set_commit_hook(None)
    if world.db.in_transaction:
        world.db.execute("ROLLBACK")
    world.begin()
    assert await world.ok() == 2
    assert answers(world.write(small("r-1", 1))) == [3]


async def test_a_write_that_only_the_database_refuses_takes_no_neighbour_with_it(
    world: World,
) -> None:
    world.write(queued("r-1"))
    bad = small("r-1", 1)
    bad.blobs = {"\ud800": b"under an address that is no text"}
    told = world.write(small("r-1", 0), bad, small("r-1", 2), small("r-1", 0), small("r-1", 3))
    first, refused, second, twice, third = answers(told)
    assert (first, second, third) == (2, 3, 4)
    assert isinstance(refused, WriteImpossible) and isinstance(twice, WriteImpossible)
    assert await world.ok() == 4
    assert answers(world.write(small("r-1", 1))) == [5]
    assert await world.ok() == 5


async def test_a_guard_that_looks_through_a_table_sees_the_writes_of_its_own_group(
    world: World,
) -> None:
    world.write(queued("r-1"))
    below = base.AsksBelow(root="r-1", most=2)
    told = world.write(*(journals.asked("r-1", f"a-{n}", n, guards=[below]) for n in range(4)))
    assert [isinstance(one, GuardFailed) for one in answers(told)] == [False, False, True, True]


async def test_rows_that_are_forgotten_are_read_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ROWS_CACHED_MAX", 3)
    for number in range(12):
        world.write(queued(f"r-{number}"))
    for number in range(12):
        assert answers(world.write(small(f"r-{number}", 0))) == [2]
    assert len(world.writer.committer._tables._known) <= 3
    assert await world.ok() == 24


async def test_a_group_closes_when_it_is_large(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "GROUP_SIZE_BYTES_MAX", 20_000)
    world.write(queued("r-1"))
    told = [world.writer.submit(small("r-1", number)) for number in range(200)]
    world.writer.go()
    assert 5 < sum(one.done() for one in told) < 40
    while world.writer.jobs:
        world.writer.go()
    assert answers(told) == list(range(2, 202))
    assert await world.ok() == 201


# --- a full disk ----------------------------------------------------------------------------------


async def fill(world: World) -> None:
    """Until no page is left; the last group is refused, or written with the reserve's room."""
    for number in range(10_000):
        told = world.write(*(small("r-1", 10 * number + n) for n in range(10)))
        failed = any(one.exception() for one in told)
        if world.writer.committer.full or world.writer.committer.failure:
            assert failed != world.writer.committer.full
            return
    raise AssertionError("it was never full")


async def full_world(world: World) -> Room:
    world.write(queued("r-1"), journals.moved("r-1", epoch=1), queued("r-2"), queued("r-3"))
    world.write(journals.asked("r-1", "a-1", 9_999_999), journals.answered("r-1", "a-1"))
    world.write(journals.sandboxed("r-1", "s-1"))
    world.db.pragma("max_page_count", world.pages() + 20)
    room = Room(world.db, world.pages() + 200)
    world.begin(room)
    await fill(world)
    return room


async def test_without_a_reserve_a_full_disk_ends_the_writer(world: World) -> None:
    world.write(queued("r-1"))
    world.db.pragma("max_page_count", world.pages() + 20)
    await fill(world)
    assert isinstance(world.writer.committer.failure, apsw.FullError)


async def test_what_was_told_before_the_disk_was_full_is_written_with_the_reserve(
    world: World,
) -> None:
    room = await full_world(world)
    assert not room.held
    calls = await world.store.calls("r-1")
    assert len(calls) % 10 == 0 and len(calls) > 10
    await world.ok()


async def test_what_rode_and_was_told_is_not_lost_when_the_commit_finds_the_disk_full(
    world: World,
) -> None:
    world.write(queued("r-1"))
    room = Room(world.db, 10_000)
    world.begin(room)

    def full() -> bool:
        if room.held:
            raise apsw.FullError("no space left")
        return False

    world.db.set_commit_hook(full)
    durable, twice = replace_durable(small("r-1", 1)), small("r-1", 0)
    told = world.write(small("r-1", 0), durable, twice, small("r-1", 2))
    assert [one if isinstance(one, int) else type(one) for one in answers(told)] == [
        *(2, 3, WriteImpossible, 4)
    ]
    assert world.writer.committer.full and not room.held
    assert len(await world.store.calls("r-1")) == 3
    assert await world.ok() == 4


async def test_on_a_full_disk_kills_and_ends_are_put_on_record_and_nothing_else(
    world: World,
) -> None:
    await full_world(world)
    for write in (small("r-1", 99_999), journals.moved("r-2", epoch=1), queued("r-9")):
        (refused,) = answers(world.write(write))
        assert isinstance(refused, StoreFull) and "disk is full" in refused.what
    both = Write(run="r-2", events=[journals.over("r-2").events[0], ev.RunResumed(by="ann")])
    assert isinstance(answers(world.write(both))[0], StoreFull)
    for write in (
        journals.killed("tenant", "acme", 1),
        journals.answered("r-1", "a-1", ApprovalState.REVOKED),
        journals.boxed_up("r-1", "s-1"),
        journals.over("r-1", epoch=2),
    ):
        (seq,) = answers(world.write(write))
        assert isinstance(seq, int), seq
    assert (await row_of(world.store, "r-1")).state == "done"
    assert await world.store.kill_generation() == 1
    await world.ok()


async def test_a_killed_run_is_dead_for_guards_on_a_full_disk(world: World) -> None:
    await full_world(world)
    world.write(journals.killed("run", "r-1", 1))
    end = journals.over("r-1", epoch=2)
    end.guards = [base.NotKilled(run="r-1")]
    assert isinstance(answers(world.write(end))[0], GuardFailed)


async def test_a_kernel_that_finds_no_room_for_its_reserve_runs_nothing_but_can_kill(
    world: World,
) -> None:
    world.write(queued("r-1"))
    room = Room(world.db, 10_000)
    room.held = False
    world.begin(room)
    assert isinstance(answers(world.write(small("r-1", 0)))[0], StoreFull)
    assert answers(world.write(journals.killed("all", "", 1))) == [1]


async def test_ends_with_much_to_say_leave_room_for_a_kill(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DISK_RESERVE_SIZE_BYTES", 200_000)
    await full_world(world)
    loud = journals.over("r-2", epoch=1)
    loud.blobs = {**loud.blobs, **journals.named("r-2", b"x" * 150_000)}
    assert isinstance(answers(world.write(loud))[0], StoreFull)
    assert answers(world.write(journals.over("r-2", epoch=1))) == [2]
    for number in range(50):
        told = answers(world.write(journals.killed("run", f"r-{number}", 1)))
        if isinstance(told[0], StoreFull):
            break
    assert number > 15


async def test_a_reserve_that_is_too_small_ends_the_writer_and_loses_nothing_durable(
    world: World,
) -> None:
    world.write(queued("r-1"))
    world.db.pragma("max_page_count", world.pages() + 20)
    world.begin(Room(world.db, world.pages() + 20))
    durable = 0
    for number in range(10_000):
        write = replace_durable(small("r-1", number))
        (told,) = answers(world.write(write))
        if isinstance(told, Exception):
            assert isinstance(told, StoreFull)
            break
        durable += 1
    assert world.writer.committer.failure is not None
    assert len(await world.store.calls("r-1")) == durable > 5
    await world.ok()


def replace_durable(write: Write) -> Write:
    write.durable = True
    return write


# --- the reserve as a file ------------------------------------------------------------------------


def test_the_reserve_takes_up_room_and_gives_it_back(tmp_path: Path) -> None:
    path = tmp_path / "journal.reserve"
    reserve = Reserve(path)
    assert reserve.held
    assert path.stat().st_blocks * 512 >= limits.DISK_RESERVE_SIZE_BYTES
    assert Reserve(path).held, "it is there already"
    assert reserve.give_up() and not path.exists()
    assert not reserve.give_up()


def test_a_link_in_the_place_of_the_reserve_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "journal.reserve").symlink_to(victim)
    with pytest.raises(OSError):
        Reserve(tmp_path / "journal.reserve")
    assert victim.read_bytes() == b"precious"


async def test_a_flush_is_answered_on_a_full_disk(world: World) -> None:
    await full_world(world)
    job = world.writer.submit(None)
    world.writer.go()
    assert job.result() == 0


async def test_a_failed_writer_answers_with_the_reason(world: World) -> None:
    world.write(queued("r-1"))
    world.db.set_commit_hook(lambda: True)
    write = replace_durable(small("r-1", 0))
    (told,) = answers(world.write(write))
    assert isinstance(told, StoreFailed)
    assert replace(await row_of(world.store, "r-1")).events == 1
