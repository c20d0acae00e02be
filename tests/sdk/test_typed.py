"""The SDK is typed: mypy --strict checks what an author writes, and finds what is wrong in it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from page import PAGE, PLAIN

TYPED = """
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any, assert_type

from ring0 import Answer, Child, Context, ToolContext, agent, tool


@tool(effect="pure")
def double(n: int) -> int:
    return 2 * n


@tool
async def key(ctx: ToolContext) -> str:
    return ctx.call_id


# A declaration leaves a function what it was.
assert_type(double(21), int)


@agent(tools=[double, key], budget="200 calls, 10 min")
async def clerk(ctx: Context, task: str) -> int:
    assert_type(await ctx.loop(user=task), Answer)
    assert_type((await ctx.model([{"role": "user", "content": task}])).text, str)
    assert_type(await ctx.now(), datetime)
    assert_type(await ctx.random(), float)
    child = await ctx.spawn("other", "a part")
    assert_type(child, Child)
    async with ctx.lock("ticket:1") as lock:
        assert_type(lock.fence, int)
    assert_type((await ctx.receive()).sender, str)
    return 1


@agent
def plain(ctx: Context) -> str:
    assert_type(ctx.wait(ctx.now()), datetime)
    assert_type(ctx.wait(ctx.lock("a")).fence, int)
    return ctx.wait(ctx.loop(user="hi")).text


called: Callable[[Context, str], Coroutine[Any, Any, int]] = clerk
"""

# Each line is wrong: strict mypy reports an ignored error that isn't there.
WRONG = """
from ring0 import Context, agent, tool


@tool(effect="pure")
def double(n: int) -> int:
    return 2 * n


@tool(effect="twice")  # type: ignore[call-overload, untyped-decorator]
def twice(n: int) -> int:
    return 2 * n


@agent(tool=[double])  # type: ignore[call-overload, untyped-decorator]
async def nobody(ctx: Context) -> None: ...


@agent(tools=[double])
async def clerk(ctx: Context, task: str) -> str:
    double("21")  # type: ignore[arg-type]
    await ctx.loop(task)  # type: ignore[call-arg]
    await ctx.sleep("a while")  # type: ignore[arg-type]
    ctx.recall(task)  # type: ignore[attr-defined]
    return await ctx.now()  # type: ignore[return-value]
"""


def test_an_agents_file_is_checked_by_strict_mypy_against_the_sdks_own_types(
    tmp_path: Path,
) -> None:
    files = {"page.py": PAGE, "plain.py": PLAIN, "typed.py": TYPED, "wrong.py": WRONG}
    for name, source in files.items():
        (tmp_path / name).write_text(source)
    # `-m mypy` in a folder that is nobody's: none of this project's own settings.
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", *files],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no issues found in 4 source files" in done.stdout
