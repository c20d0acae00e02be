"""Runs an agent function behind a door: in the sandboxed process, or embedded in the kernel's own.

Used by `main.py` and by the kernel. It does not post the result: whoever starts a run ends it.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

from ring0 import errors, limits
from ring0.runtime import Runtime
from ring0.sdk import paths, values
from ring0.sdk.context import Context
from ring0.sdk.declare import AgentDeclaration, agent_of, way_back
from ring0.sdk.door import Door, RunInfo

LEFTOVERS_END_S_MAX: Final = 2
"""How long tasks that an agent leaves behind have to end once they are cancelled."""


async def run_agent(
    function: Callable[..., Any], door: Door, info: RunInfo, runtime: Runtime | None = None
) -> Any:
    """The plain JSON value that the agent returns.

    Raises what the kernel refused (a `Ring0Error`), or `RunFailed` with the exception's type,
    message and place for the agent's own faults (`__cause__` is the exception itself). Tasks that
    the agent created and left behind are cancelled.
    """
    declared = agent_of(function)
    if declared is None:
        name = getattr(function, "__name__", repr(function))
        raise errors.AgentInvalid(
            f"{name} is not an agent.", why="it has no @agent", todo="decorate it with @agent"
        )
    context = Context(door, info, declared.model, _kept_back(declared, info))
    runtime = runtime or Runtime()
    with paths.Rooted() as rooted:
        try:
            value = await _called(declared, context, info.task, runtime)
            return values.plain(value, f"The result of {info.agent}")
        except (errors.Ring0Error, KeyboardInterrupt):
            raise
        except (Exception, SystemExit) as error:
            raise errors.RunFailed(
                f"The agent {info.agent} failed: {exception_line(error)}",
                why=place_of(error.__traceback__, folder_of(declared.function)),
                todo="see the traceback in the run's output",
            ) from error
        finally:
            await _end(rooted, runtime)


async def _called(declared: AgentDeclaration, context: Context, task: str, runtime: Runtime) -> Any:
    args = (context, task) if declared.takes_task else (context,)
    if inspect.iscoroutinefunction(declared.function):
        return await declared.function(*args)
    # Off the loop, which carries its calls; and in embedded mode is the kernel's own.
    loop = asyncio.get_running_loop()
    value = await runtime.in_thread(paths.plain(loop, declared.function, *args))
    return await value if inspect.isawaitable(value) else value


def _kept_back(declared: AgentDeclaration, info: RunInfo) -> frozenset[str]:
    """The functions that it has only because they take back what another one does."""
    ways_back = {way_back(tool) for tool in info.tools} & {tool.name for tool in info.tools}
    own = {tool.manifest.name for tool in declared.tools}
    return frozenset(name for name in ways_back - own if "." not in name)


async def _end(rooted: paths.Rooted, runtime: Runtime) -> None:
    """Cancels the tasks that are left, and waits a bounded time for them."""
    left = [task for task in rooted.tasks if not task.done()]
    if not left:
        return
    for task in left:
        task.cancel()
    with paths.Outside():
        try:
            await runtime.wait_for(asyncio.wait(left), LEFTOVERS_END_S_MAX)
        except TimeoutError:
            pass


def exception_line(error: BaseException) -> str:
    """`ValueError: the message`, on one line or a few, bounded."""
    try:
        text = "".join(traceback.format_exception_only(error)).strip()
    except Exception:  # the agent's own __str__ may fail
        text = type(error).__name__
    return values.clip(text, limits.EPISODE_CHARS_MAX)


def folder_of(function: Callable[..., Any]) -> str:
    """The folder of the file that defines `function`; empty where it has none."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return os.path.dirname(os.path.abspath(code.co_filename)) if code is not None else ""


def place_of(trace: TracebackType | None, folder: str = "") -> str:
    """`file.py, line 12, in name`: the innermost frame in `folder`, else the innermost of all."""
    frames = traceback.extract_tb(trace)
    inside = [one for one in frames if folder and one.filename.startswith(folder + os.sep)]
    outside_of_us = [one for one in frames if not one.filename.startswith(_HERE)]
    for chosen in (inside, outside_of_us):
        if chosen:
            last = chosen[-1]
            return f"{os.path.basename(last.filename)}, line {last.lineno}, in {last.name}"
    return ""


_HERE: Final = os.path.dirname(os.path.abspath(__file__)) + os.sep
