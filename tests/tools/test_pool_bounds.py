"""How many sandboxes are made ahead, and how long kept. With a clock, and puppets for them."""

from __future__ import annotations

import asyncio

from ring0 import limits
from ring0.errors import SandboxFailed
from ring0.runtime import Runtime
from ring0.tools.sandbox import SandboxLimits, SandboxSpec
from ring0.tools.sandbox.pool import Parked, Pool
from ring0.tools.sandbox.spec import class_of


class Clock(Runtime):
    """Time goes on when a test says so."""

    def __init__(self) -> None:
        self.us = 0
        self._woken = asyncio.Event()

    def monotonic_us(self) -> int:
        return self.us

    async def sleep(self, seconds: float) -> None:
        until = self.us + seconds * 1_000_000
        while self.us < until:
            await self._woken.wait()

    async def pass_by(self, seconds: float) -> None:
        self.us += int(seconds * 1_000_000)
        woken, self._woken = self._woken, asyncio.Event()
        woken.set()
        await asyncio.sleep(0.005)


class Puppet:
    """A sandbox that is none."""

    def __init__(self, spec: SandboxSpec) -> None:
        self.spec, self.alive = spec, True

    def take_up(self, spec: SandboxSpec) -> None:
        assert class_of(spec) == class_of(self.spec)

    async def close(self) -> None:
        self.alive = False


class World:
    def __init__(self) -> None:
        self.clock = Clock()
        self.made: list[Puppet] = []
        self.at_once = self.most_at_once = 0
        self.fails = False
        self.pool = Pool(self.clock, self._make, self._journal, self._end)  # type: ignore[arg-type]

    async def _make(self, spec: SandboxSpec) -> Puppet:
        if self.fails:
            self.made.append(Puppet(spec))
            raise SandboxFailed("no room")
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0.001)
        self.at_once -= 1
        self.made.append(Puppet(spec))
        return self.made[-1]

    async def _journal(self, made: Puppet) -> str:
        return f"s-{len(self.made)}"

    async def _end(self, one: Parked) -> None:
        await one.sandbox.close()

    @property
    def alive(self) -> int:
        return sum(puppet.alive for puppet in self.made)

    async def settle(self) -> None:
        for _ in range(20):
            await self.clock.pass_by(limits.POOL_REFILL_DELAY_MS / 1_000)


def of_class(number: int) -> SandboxSpec:
    return SandboxSpec(code="1", limits=SandboxLimits(processes=number + 1))


async def test_what_is_asked_for_more_often_is_parked_more_up_to_a_bound() -> None:
    world = World()
    claimed = 0
    for wanted in (1, 2, 4, 8, 8):
        while world.pool.claim(of_class(0)) is not None:
            claimed += 1
        await world.settle()
        assert world.pool.parked == min(wanted, limits.POOL_CLASS_PARKED_MAX)
    assert world.most_at_once <= limits.POOL_MAKING_MAX
    await world.pool.close()
    assert world.alive == claimed > 0, "those are their claimers' to end"
    assert world.pool.claim(of_class(0)) is None


async def test_all_classes_together_have_a_bound_and_the_oldest_makes_room() -> None:
    world = World()
    count = limits.POOL_PARKED_MAX + 3
    for number in range(count):
        assert world.pool.claim(of_class(number)) is None
        await world.settle()
    assert world.pool.parked == world.alive == limits.POOL_PARKED_MAX
    assert world.pool.claim(of_class(0)) is None
    assert world.pool.claim(of_class(count - 1)) is not None
    await world.pool.close()


async def test_a_class_that_nobody_asks_for_is_forgotten() -> None:
    world = World()
    world.pool.claim(of_class(0))
    await world.settle()
    await world.clock.pass_by(limits.POOL_FORGET_S * 0.7)
    world.pool.claim(of_class(1))
    await world.settle()
    assert world.pool.parked == 2
    await world.clock.pass_by(limits.POOL_FORGET_S * 0.5)
    assert world.pool.parked == world.alive == 1
    assert class_of(of_class(0)) not in world.pool._classes
    await world.pool.close()


async def test_classes_that_are_remembered_have_a_bound() -> None:
    world = World()
    world.fails = True
    for number in range(limits.POOL_CLASSES_MAX + 5):
        world.pool.claim(of_class(number))
    assert len(world.pool._classes) == limits.POOL_CLASSES_MAX
    await world.pool.close()


async def test_what_can_not_be_made_is_not_tried_all_the_time() -> None:
    world = World()
    world.fails = True
    for _ in range(5):
        world.pool.claim(of_class(0))
        await world.settle()
    assert len(world.made) == 1
    world.fails = False
    await world.clock.pass_by(limits.POOL_PAUSE_S)
    world.pool.claim(of_class(0))
    await world.settle()
    assert world.pool.parked > 0
    await world.pool.close()


async def test_one_that_comes_when_its_class_is_forgotten_is_ended() -> None:
    world = World()
    world.pool.claim(of_class(0))
    await world.clock.pass_by(limits.POOL_REFILL_DELAY_MS / 1_000)
    world.pool._forget(class_of(of_class(0)))
    await world.settle()
    assert world.made and world.alive == 0
    await world.pool.close()
