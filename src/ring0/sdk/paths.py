"""The task path and counter of each call: which call it is, equal on every replay.

The agent's first task has the path `0`; each task that it creates is `parent.k`, k counting from 1
in order of creation; each call takes the next counter of its task, from 1, at the moment its `ctx`
method is *called*. An agent that is a plain function is one thread, and counts as its first task.
What a timer, any other thread or a select on real time orders is not covered.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Final, TypeVar

from ring0 import errors, limits

T = TypeVar("T")

ROOT: Final = "0"
Factory = Callable[..., "asyncio.Future[Any]"]


class Node:
    """One task of the agent: its path, and what it has numbered. Changed by that task only."""

    __slots__ = ("calls", "children", "owner", "path", "tasks")

    def __init__(self, path: str, tasks: weakref.WeakSet[asyncio.Future[Any]]) -> None:
        self.path = path
        """Empty: nested deeper than a path may say; it may run, but make no calls."""
        self.calls = 0
        self.children = 0
        self.owner: weakref.ref[asyncio.Future[Any]] | None = None
        """The task itself, to notice one that came to be without a node of its own."""
        self.tasks = tasks
        """All tasks below the same root, so that they can be ended with it."""

    def child(self) -> Node:
        """The node of the next task that this one creates."""
        self.children += 1
        path = f"{self.path}.{self.children}" if self.path else ""
        return Node(path if len(path) <= limits.CALL_PATH_CHARS_MAX else "", self.tasks)


_node: contextvars.ContextVar[Node | None] = contextvars.ContextVar("ring0_path", default=None)


_plain: contextvars.ContextVar[asyncio.AbstractEventLoop | None] = contextvars.ContextVar(
    "ring0_plain", default=None
)
"""Where a plain function's calls are sent from, in its thread; None anywhere else."""


def plain(
    loop: asyncio.AbstractEventLoop, function: Callable[..., T], *args: object
) -> Callable[[], T]:
    """What runs a plain agent in a thread: there, and there only, `wait` waits."""

    def run() -> T:
        _plain.set(loop)  # In the thread's own copy of the context.
        return function(*args)

    return run


def wait(call: Awaitable[T]) -> T:
    """What a call comes to, for who can't await. Raises `CallInvalid` in a task."""
    loop = _plain.get()
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        if loop is not None:
            return asyncio.run_coroutine_threadsafe(_awaited(call), loop).result()
    if inspect.iscoroutine(call):
        call.close()
    raise _refused("only an agent that is a plain function waits so", "write `await …`")


async def _awaited(call: Awaitable[T]) -> T:
    return await call


def take() -> tuple[str, int]:
    """The path and the counter of the call that is being made now. Raises `CallInvalid` outside."""
    node = _node.get()
    try:
        task = asyncio.current_task()
    except RuntimeError:
        if _plain.get() is None:
            todo = "make calls in the agent's own tasks"
            raise _refused("it comes from a thread", todo) from None
        task = None
    if node is None:
        raise _refused("it comes from outside of the agent's tasks",
                       "make calls in the agent function and in tasks that it creates")  # fmt: skip
    owner = node.owner() if node.owner is not None else None
    if task is not None and owner is not None and owner is not task:
        raise _refused("its task was created past ring0's task factory, so it has no path",
                       "leave the loop's task factory in place, or wrap it")  # fmt: skip
    if not node.path:
        raise errors.LimitReached(
            "The call was not made.",
            why=f"its task is nested too deep: a path has at most {limits.CALL_PATH_CHARS_MAX}"
            " characters",
            todo="let one task create the others, not each the next",
        )
    node.calls += 1
    return node.path, node.calls


def _refused(why: str, todo: str) -> errors.CallInvalid:
    return errors.CallInvalid("The call was not made.", why=why, todo=todo)


def _reset(token: contextvars.Token[Node | None]) -> None:
    try:
        _node.reset(token)
    except ValueError:
        pass  # an abandoned coroutine, closed by the garbage collector in a foreign context


class Rooted:
    """`with Rooted():` the current task is the agent's first one, path `0`, on a prepared loop."""

    def __init__(self) -> None:
        self.tasks: weakref.WeakSet[asyncio.Future[Any]] = weakref.WeakSet()
        """Every task that the agent has created and that still exists."""

    def __enter__(self) -> Rooted:
        install(asyncio.get_running_loop())
        node = Node(ROOT, self.tasks)
        task = asyncio.current_task()
        assert task is not None
        node.owner = weakref.ref(task)
        self._token = _node.set(node)
        return self

    def __exit__(self, *exc: object) -> None:
        _reset(self._token)


class Outside:
    """`with Outside():` tasks created within are not the agent's and take no number.

    Around the door's own work: a client library creates tasks as its connections need them, which
    is not the same on every run.
    """

    __slots__ = ("_token",)

    def __enter__(self) -> None:
        self._token = _node.set(None)

    def __exit__(self, *exc: object) -> None:
        _reset(self._token)


class _Factory:
    """A task factory that gives paths, around the one that was there before."""

    def __init__(self, before: Factory | None) -> None:
        self._before = before

    def __call__(
        self,
        loop: asyncio.AbstractEventLoop,
        coro: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
        **options: Any,
    ) -> asyncio.Future[Any]:
        parent = _node.get()
        if parent is None:
            return self._create(loop, coro, options)
        node = parent.child()
        # A copy even of a context that the caller named: two tasks in one would share a path.
        given: contextvars.Context | None = options.pop("context", None)
        context = given.copy() if given is not None else contextvars.copy_context()
        context.run(_node.set, node)
        # Run inside, instead of passing `context=`: older factories don't take it, and a task
        # copies the context that it is created in.
        task = context.run(self._create, loop, coro, options)
        node.owner = weakref.ref(task)
        node.tasks.add(task)
        return task

    def _create(
        self, loop: asyncio.AbstractEventLoop, coro: Any, options: dict[str, Any]
    ) -> asyncio.Future[Any]:
        if self._before is not None:
            return self._before(loop, coro, **options)
        return asyncio.Task(coro, loop=loop, **options)


def install(loop: asyncio.AbstractEventLoop) -> None:
    """Gives agents' tasks on `loop` their paths; other tasks don't change. Twice is once."""
    before = loop.get_task_factory()
    if not isinstance(before, _Factory):
        loop.set_task_factory(_Factory(before))
