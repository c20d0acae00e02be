"""A ring0.toml that would be wrong in silence: what is said of it, and where."""

from __future__ import annotations

import os

from cli_world import World
from serving_world import daemon

from ring0.identity import operator_name

ME = operator_name(os.getuid())
ISSUER = "https://login.example.com"
NEVER_SEEN = f"""
[oidc]
issuer = "{ISSUER}"
client_id = "ring0"
[roles]
admin = ["{ME}"]
[principals."00u1 ({ISSUER})"]
only = ["crm.query"]
"""


def says(world: World, text: str) -> None:
    world.home.mkdir(mode=0o700, exist_ok=True)
    (world.home / "ring0.toml").write_text(text)


def test_a_principal_that_nobody_is_so_far_is_named_by_check_reload_and_serve(
    world: World,
) -> None:
    says(world, NEVER_SEEN)
    done = world.ring0("policy", "check")
    assert done.code == 0 and f"00u1 ({ISSUER})" in done.out and "narrows nobody" in done.out
    with daemon(world) as d:
        d.says("narrows nobody")
        done = world.ring0("reload")
        assert done.code == 0 and f"00u1 ({ISSUER})" in done.err
        (warning,) = world.ring0("reload", "--json").json["warnings"]
        assert "narrows nobody" in warning


def test_a_principal_that_nobody_can_be_is_refused_by_check_reload_and_serve(
    world: World,
) -> None:
    says(world, "")
    with daemon(world):
        says(world, '[principals."nobody at all (uid 4000000000)"]\nonly = []\n')
        done = world.ring0("reload")
        assert done.code == 2 and "is nobody here" in done.err and "ring0 whoami" in done.err
        done = world.ring0("policy", "check")
        assert done.code == 2 and "is nobody here" in done.err
    done = world.ring0("serve")
    assert done.code != 0 and "is nobody here" in done.all
    says(world, '[principals."ada"]\nonly = []\n')
    for command in (("policy", "check"), ("doctor",), ("serve",)):
        assert "no principal is called" in world.ring0(*command).all, command


def test_doctor_says_what_keeps_a_kernel_from_coming_up(world: World) -> None:
    says(world, '[[notify]]\nurl = "https://hooks.example.com/x"\nsecret = "NOT_SET"\n')
    for command in (("doctor",), ("serve",)):
        done = world.ring0(*command)
        assert done.code != 0 and "NOT_SET" in done.all, command


def test_doctor_says_that_a_stricter_profile_holds_than_the_one_in_the_file(world: World) -> None:
    says(world, 'profile = "strict"\n')
    assert world.ring0("run", "agent.py:plain", "hi").code == 0
    strict = world.ring0("doctor").out
    assert "two people logged in at an issuer" in strict and "holds on" not in strict
    says(world, "")
    plain = " ".join(world.ring0("doctor").out.split())
    assert "strict holds on; ring0.toml names default" in plain
    assert "two people logged in" not in plain
    assert world.ring0("reload", "--yes-loosen").code == 0
    assert "holds on" not in world.ring0("doctor").out


FAMILY = """
from ring0 import Context, agent


@agent(builtins={"sh": {"use": "shell", "timeout_s": 1}})
async def hasty(ctx: Context, task: str):
    try:
        return await ctx.tool("sh.run", command=task)
    except Exception as error:
        return str(error)


@agent(builtins={"sh": {"use": "shell", "effect": "pure"}})
async def other(ctx: Context, task: str):
    return task


@agent(agents=[hasty, other])
async def parent(ctx: Context, task: str):
    told = await (await ctx.spawn("hasty", task)).wait()
    try:
        await ctx.spawn("other", task)
    except Exception as error:
        return [told, str(error)]
"""
AGENT_TOML = """
name = "parent"
entry = "src/family.py:parent"
agents = ["hasty", "other"]
[tools.sh]
use = "shell"
timeout_s = 20
"""


def test_a_child_has_the_narrower_of_two_settings_and_is_not_spawned_where_there_is_none(
    world: World,
) -> None:
    (world.folder / "src").mkdir()
    world.write("src/family.py", FAMILY)
    world.write("agent.toml", AGENT_TOML)
    done = world.ring0("run", "--manifest", "agent.toml", "--task", "sleep 15", "--json")
    assert done.code == 0, done.all
    hasty, other = done.json["value"]
    assert "took longer than its `timeout_s`" in hasty, "its own 1 s, not its parent's 20"
    assert "other may not be spawned" in other and "effect = 'pure'" in other


def test_a_run_whose_prints_one_may_not_see_says_why_once_and_what_to_ask_for(
    world: World,
) -> None:
    says(world, f'[roles]\noperator = ["{ME}"]\napprover = ["{ME}"]\n')
    with daemon(world):
        ran = world.start("run", "agent.py:clerk", "Ann")
        assert world.ring0("approve", world.pending()).code == 0
        done = world.finish(ran)
        assert done.code == 0 and "asked: Ann" not in done.all
        assert done.err.count("is not shown") == 1
        assert "role viewer" in done.err and f"{ME} has not got it" in done.err
        assert "Ask somebody who has it" in done.err
