"""`ring0 budget`: what a run may use and used, and more of it from an operator."""

from __future__ import annotations

import pytest
from cli_world import World

ASKS = """
from ring0 import Context, agent


@agent(budget="3 calls, 0.25 USD, 50k tokens, 2 children", priority=2)
async def asks(ctx: Context, task: str):
    for _ in range(3):
        await ctx.now()
    try:
        await ctx.now()
    except Exception as error:
        refused = str(error)
    given = await ctx.ask_for_more(calls=2, usd="0.50", why="\\x1b[31mtwo are left")
    await ctx.now()
    return {"refused": refused, "given": given["given"]}


@agent(budget="3 calls, 1 min")
async def waits(ctx: Context, task: str):
    await ctx.now()
    await ctx.sleep(float(task))
    return "slept"
"""


def test_a_run_asks_for_more_and_a_person_gives_it_from_a_second_process(world: World) -> None:
    world.write("asks.py", ASKS)
    first = world.start("run", "asks.py:asks", "hi", "--json")
    run = world.waits_for("budget")
    held = world.ring0("approvals").out
    assert "asks for 2 calls, 0.500000 USD more" in held and "3 × now" in held
    assert "\x1b" not in held
    before = world.ring0("budget", run, "--json").json
    assert before["budget"]["calls"] == {
        "budget": 3,
        "used": 3,
        "reserved": 0,
        "moved": 0,
        "left": 0,
    }
    assert before["budget"]["tokens"]["budget"] == 50_000
    assert before["spent"] == [{"what": "now", "calls": 3, "tokens": 0, "cost_microusd": 0}]
    assert world.ring0("approve", world.pending()).code == 0
    done = world.finish(first)
    assert done.code == 0, done.all
    value = done.json["result"]["value"] if "result" in done.json else done.json["value"]
    assert "3 of 3 calls" in value["refused"] and "3 × now" in value["refused"]
    assert value["given"] == {"calls": 2, "cost_microusd": 500_000}
    after = world.ring0("budget", run).out
    assert "$0.7500" in after and "ask" in after and "now" in after


def test_an_operator_gives_more_to_a_run_whose_kernel_is_at_work(world: World) -> None:
    world.write("asks.py", ASKS)
    with world.holding("run", "asks.py:waits", "1000"):
        run = world.waits_or_runs()
        given = world.ring0(
            "budget", run, "--calls", "+100", "--tokens", "+10k", "--usd", "+0.50",
            "--wall", "+10m", "--json",
        )  # fmt: skip
        assert given.code == 0, given.all
        assert given.json["budget"]["calls"]["budget"] == 103
        assert given.json["budget"]["cost_microusd"]["budget"] == 500_000
        assert given.json["budget"]["tokens"]["budget"] == 2_010_000
        (row,) = world.live()
        assert row["budget"]["wall_s"] == 660


def test_an_operator_gives_more_where_no_kernel_is_at_work(world: World) -> None:
    world.write("asks.py", ASKS)
    with world.holding("run", "asks.py:waits", "1000"):
        run = world.waits_or_runs()
    assert world.ring0("budget", run, "--calls", "1").code == 0
    assert world.ring0("budget", run, "--json").json["budget"]["calls"]["budget"] == 4


def test_a_run_that_has_ended_is_given_nothing(world: World) -> None:
    world.write("asks.py", ASKS)
    assert world.ring0("run", "asks.py:waits", "0").code == 0
    done = world.ring0("budget", "last", "--calls", "+1")
    assert done.code == 2 and "has ended" in done.err


@pytest.mark.parametrize(
    "option",
    [
        ("--calls", "-5"),
        ("--calls", "many"),
        ("--calls", "0"),
        ("--calls", "1.5"),
        ("--usd", "1e9"),
        ("--usd", "-1"),
        ("--wall", "tomorrow"),
        ("--tokens", "99999999999999999999"),
    ],
)
def test_an_amount_that_is_none_is_refused(world: World, option: tuple[str, str]) -> None:
    done = world.ring0("budget", "last", f"{option[0]}={option[1]}")
    assert done.code == 2, done.all


def test_doctor_says_how_old_the_prices_are(world: World) -> None:
    assert "prices" in world.ring0("doctor").out
