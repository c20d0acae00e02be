"""kill -9 at every named point and at random, under calls of every kind, on real processes.

`make test` kills at some of the points; `make crash` at all of them and at 500 random moments, and
prints the table.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from desk_checks import Sums, check, table
from desk_world import Desks

import ring0
from ring0.runtime import POINTS

SHORT_KILLS_MAX = 8
"""More than that many kills asked for (`--kills`): it is `make crash`."""
KILLS_PER_WORLD = 30
BOOT = tuple(point for point in POINTS if point.startswith("kernel."))
"""Only a start passes these: the kernel at work is killed first."""
AFTER_AN_EFFECT = ("call.settled",)
"""A kernel is killed in the middle of an effect first, which is unknown then."""
WAIT_S = 30


def test_the_list_of_points_is_what_the_code_names() -> None:
    named = set()
    for path in Path(ring0.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "reached"
            ):
                constants = [one for one in ast.walk(node) if isinstance(one, ast.Constant)]
                named |= {one.value for one in constants if isinstance(one.value, str)}
    assert named == set(POINTS) and len(POINTS) == len(set(POINTS))


@contextlib.asynccontextmanager
async def desks(
    folder: Path, load: int, dice: random.Random, **environment: str
) -> AsyncIterator[Desks]:
    folder.mkdir()
    d = Desks(folder, load, dice, **environment)
    try:
        await d.open()
        yield d
    finally:
        d.close()


async def at(d: Desks, point: str, passing: int) -> None:
    """Kills a kernel at this passing of the point, once there is something that comes to it."""
    for _ in range(3):
        d.page.arm(point, 1 if point in (*BOOT, *AFTER_AN_EFFECT) else passing)
        if point in BOOT and await d.die() == point:
            return
        if point in AFTER_AN_EFFECT:
            await d.effect()
            if await d.die() == point:
                return
        if await d.die(WAIT_S) == point:
            return
        d.page.disarm()
    d.problems.append(f"{point} was not passed {passing} times in {WAIT_S} s, three times over")


async def life(
    folder: Path,
    dice: random.Random,
    plan: Sequence[tuple[str, int]],
    load: int,
) -> tuple[Desks, Sums]:
    """One world through all of these kills, and to its end."""
    async with desks(folder, load, dice) as d:
        for point, passing in plan:
            if point:
                await at(d, point, passing)
            else:
                await d.die(dice.uniform(0.05, 2.0))
        await d.finish()
        sums = await check(d)
    return d, sums


def told(worlds: list[tuple[Desks, Sums]], seed: int) -> None:
    """The table, and every problem."""
    print(f"\nkill -9 of a kernel at work (seed {seed})\n{table(worlds)}")
    problems = [problem for d, _ in worlds for problem in d.problems]
    assert not problems, "\n".join(problems)


async def test_a_kernel_killed_at_named_points_and_at_random_loses_and_doubles_nothing(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    kills = request.config.getoption("--kills")
    seed = random.SystemRandom().randrange(10**6)
    dice = random.Random(seed)
    if kills <= SHORT_KILLS_MAX:
        points = ["effect.begins", "group.committed", "approval.consumed", "kernel.buried"]
        points.append("window.compacts")
        plan = [(point, 1) for point in points] + [("", 0)]
        worlds = [await life(tmp_path / "short", dice, plan, 1)]
    else:
        plan = [(point, passing) for point in POINTS for passing in (1, dice.randint(1, 3))]
        plan += [("", 0)] * (5 * kills)
        dice.shuffle(plan)
        worlds = []
        for begin in range(0, len(plan), KILLS_PER_WORLD):
            part = plan[begin : begin + KILLS_PER_WORLD]
            load = 1 + len(worlds) % 3
            worlds.append(await life(tmp_path / f"world-{len(worlds)}", dice, part, load))
            print(f"\n{sum(len(d.kills) for d, _ in worlds)} kills", flush=True)
    told(worlds, seed)


async def test_an_undisturbed_world_passes_every_point_but_those_of_a_crash(tmp_path: Path) -> None:
    async with desks(tmp_path / "calm", 1, random.Random(1)) as d:
        until = asyncio.get_running_loop().time() + 40
        while not await d.store.runs(states=frozenset({"done"})):  # type: ignore[union-attr]
            assert asyncio.get_running_loop().time() < until, d.errors
            await asyncio.sleep(0.1)
        await d.finish()
        await check(d)
    assert not d.problems
    never = {point for point, count in d.page.counts().items() if not count}
    assert never <= {"call.settled"}


async def test_a_kernel_that_begins_a_cut_off_effect_anew_would_be_found_out(
    tmp_path: Path,
) -> None:
    async with desks(tmp_path / "broken", 1, random.Random(1), CRASH_BROKEN="1") as d:
        d.http.holds_s = 0.5
        while not d.http.entries:
            await asyncio.sleep(0.01)
        await d.die()
        d.http.holds_s = 0.05
        await d.finish()
        sums = await check(d)
    assert sums.twice >= 1
    assert any("stands twice" in problem for problem in d.problems)
    assert any("intent and no outcome" in problem for problem in d.problems)
