"""`Context`: the one object through which an agent reaches anything. Each method is one call.

The methods are plain functions that fix the call's id when they are called and return what is to
be awaited, so `asyncio.gather(ctx.tool(a), ctx.tool(b))` is the same on every run. What does not go
through `ctx` is not recorded and not replayed. `loop` makes many calls, each in its turn.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, TypeVar

import msgspec

from ring0 import errors, limits
from ring0.sdk import children, paths, values
from ring0.sdk.budget import microusd
from ring0.sdk.children import Child
from ring0.sdk.declare import agent_of
from ring0.sdk.deriving import Deriving
from ring0.sdk.door import Door, RunInfo
from ring0.sdk.locks import Lock
from ring0.sdk.memory import Memory
from ring0.types import CallKind, Label, Request, ToolManifest

T = TypeVar("T")

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class ToolCall(msgspec.Struct, frozen=True):
    """A tool call that a model proposes."""

    id: str
    name: str
    args: dict[str, Any]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a model, or a loop of model and tools, came to."""

    text: str
    tool_calls: tuple[ToolCall, ...] = ()
    """What the model proposes; empty at the end of a loop."""
    turns: int = 1
    """How many times the model was asked."""
    messages: list[dict[str, Any]] = []
    """The whole conversation, the answer included."""
    model: str = ""
    tokens_in: int = 0
    tokens_out: int = 0


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """What another run of the tree, or a person, told this one."""

    value: Any
    sender: str
    """A run's id, or a person's name."""
    number: int
    """Counts what this run was sent, from 1."""


class Context:
    """What a run has. Made by the runner; an agent gets it as its first argument."""

    def __init__(
        self,
        door: Door,
        info: RunInfo,
        model: str = "default",
        kept_back: frozenset[str] = frozenset(),
    ) -> None:
        """`kept_back`: tools that no loop offers a model unless they are named to it."""
        self._door = door
        self._info = info
        self._model = model
        self._kept_back = kept_back
        self.memory: Final = Memory(self)
        self.derive: Final = Deriving(self._call)

    @property
    def run(self) -> str:
        """The run's id."""
        return self._info.run

    @property
    def agent(self) -> str:
        """The agent's name."""
        return self._info.agent

    @property
    def task(self) -> str:
        """The task's text."""
        return self._info.task

    def tool(self, name: str, /, **args: Any) -> Coroutine[Any, Any, Any]:
        """Calls a tool that the kernel carries out: its result, or a `Ring0Error`."""
        return self._call(CallKind.TOOL, name, args)

    async def tools(self) -> list[ToolManifest]:
        """The tools that this run may ask for. Not a call: the run was told when it started."""
        return list(self._info.tools)

    def model(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        model: str | None = None,
        max_tokens: int | None = None,
    ) -> Coroutine[Any, Any, Answer]:
        """Asks a model once.

        messages: `{"role", "content", "tool_calls", "tool_call_id"}`; tools: `{"name",
        "description", "schema"}`; model: None is the one that the agent's declaration names.
        """
        args: dict[str, Any] = {"messages": list(messages), "tools": list(tools or ())}
        if max_tokens is not None:
            args["max_tokens"] = max_tokens
        history = [dict(message) for message in messages]
        return self._answer(self._call(CallKind.MODEL, model or self._model, args), history)

    async def _answer(
        self, call: Coroutine[Any, Any, Any], history: list[dict[str, Any]]
    ) -> Answer:
        try:
            answer = msgspec.convert(await call, Answer)
        except msgspec.ValidationError as error:
            raise errors.Ring0Error("The model's answer can't be read.", why=str(error)) from None
        said: dict[str, Any] = {"role": "assistant", "content": answer.text}
        if answer.tool_calls:
            said["tool_calls"] = [msgspec.to_builtins(one) for one in answer.tool_calls]
        return msgspec.structs.replace(answer, messages=[*history, said], turns=1)

    async def loop(
        self,
        *,
        user: str,
        system: str = "",
        context: str | Sequence[Any] | None = None,
        tools: Sequence[str] | None = None,
        local: Sequence[Callable[..., Any]] = (),
        model: str | None = None,
        max_tokens: int | None = None,
        turns_max: int = limits.MODEL_TURNS_DEFAULT,
        window_tokens: int = 0,
        summarise: bool = False,
    ) -> Answer:
        """Model and tools in turns, until the model proposes no more calls.

        context: a text, or what `memory.recall` gave; shown to the model before `user`.
        tools: names of kernel tools (None: all that the declaration lists). local: functions that
        run in the agent's own process, offered beside them; the kernel sees only the proposal.
        A refused or failed call becomes its result's text, `{"error": …}`; `RunDead`,
        `LimitReached` and `ReplayDiverged` end the loop. Calls of one answer run one after another.
        window_tokens: what the model is asked with takes no more; older turns make room for goal,
        plan, what was done and a summary, and the model is offered `memory_plan`. summarise: it
        sums up itself, which is one more call each time. 0: the conversation grows as it will.
        """
        from ring0.sdk.loop import Loop

        if tools is None:
            tools = [one.name for one in self._info.tools if one.name not in self._kept_back]
        turns = Loop(self, self._info.tools, tools, local)
        if window_tokens:
            turns.keep_window(window_tokens, summarise=summarise, model=model)
        return await turns.go(system, user, context, model, max_tokens, turns_max)

    def spawn(
        self,
        agent: str | Callable[..., Any],
        task: str,
        *,
        only: Sequence[str] | None = None,
    ) -> Coroutine[Any, Any, Child]:
        """Starts a child run of `agent` (its name, or the `@agent` function) on `task`.

        only: what the child may ask for of what its manifest and this run's grants name
        (`["crm.query", "files.*"]`); None: all of that. It never gets more than this run.
        """
        declared = agent_of(agent)
        name = declared.manifest.name if declared else str(agent)
        args: dict[str, Any] = {"task": task}
        if only is not None:
            args["only"] = list(only)
        return self._spawned(self._call(CallKind.SPAWN, name, args))

    async def _spawned(self, call: Coroutine[Any, Any, Any]) -> Child:
        value = await call
        run = value.get("run") if isinstance(value, dict) else None
        if not isinstance(run, str):
            raise errors.Ring0Error("The kernel named no child run.")
        return Child(self._call, run)

    def gather(self, *given: Child, return_errors: bool = False) -> Coroutine[Any, Any, list[Any]]:
        """The results of these children in their order, once all have ended. Of those that failed
        the first one's error is raised, unless they are to be returned."""
        return children.gather(self._call, given, return_errors)

    def wait_any(self, *given: Child) -> Coroutine[Any, Any, Child]:
        """The one of these children that ends first; its `wait()` then has its result."""
        return self._winner(children.first(self._call, given, cancel=False))

    async def _winner(self, ended: Coroutine[Any, Any, tuple[Child, Any]]) -> Child:
        return (await ended)[0]

    def race(self, *given: Child) -> Coroutine[Any, Any, Any]:
        """The result (or error) of the child that ends first. The others are cancelled: when this
        returns they and all beneath them have ended."""
        return self._won(children.first(self._call, given, cancel=True))

    async def _won(self, ended: Coroutine[Any, Any, tuple[Child, Any]]) -> Any:
        _, result = await ended
        if isinstance(result, errors.Ring0Error):
            raise result
        return result

    def ask_for_more(
        self,
        *,
        why: str,
        calls: int = 0,
        tokens: int = 0,
        usd: Decimal | float | str = 0,
        children: int = 0,
        wall_s: int = 0,
    ) -> Coroutine[Any, Any, dict[str, Any]]:
        """Asks a person for more budget, and waits for the answer: `{"given", "left"}`.

        A no is `CallDenied`. A tree of runs may ask only a few times: ask for what is needed.
        """
        more = {
            "calls": calls,
            "tokens": tokens,
            "cost_microusd": microusd(usd),
            "children": children,
            "wall_s": wall_s,
        }
        args = {name: amount for name, amount in more.items() if amount}
        return self._call(CallKind.ASK, "", {**args, "why": why})

    def lock(
        self,
        resource: str,
        *,
        shared: bool = False,
        lease_s: int = limits.LOCK_LEASE_S_DEFAULT,
        wait_s: float | None = None,
    ) -> Lock:
        """Locks a named resource of the tenant (`table:customers`, `ticket:42`) for this run.

        `async with ctx.lock(…)`, or `lock = await ctx.lock(…)` and `await lock.free()`. shared:
        beside other shared ones. lease_s: then it is over, unless it is renewed. wait_s: how long
        to wait for it (None: as long as the run may last); then `LimitReached`. `Deadlock` where
        runs would wait for each other for ever.
        """
        args: dict[str, Any] = {"shared": True} if shared else {}
        if wait_s is not None:
            args["wait_s"] = wait_s
        return Lock(lambda given: self._call(CallKind.LOCK, "", given), resource, args, lease_s)

    def send(self, run: str | Child, value: Any) -> Coroutine[Any, Any, None]:
        """Tells a run of the same tree something; it has it when it receives next."""
        to = run.run if isinstance(run, Child) else run
        return self._call(CallKind.SEND, "", {"run": to, "value": value})

    def receive(self, timeout_s: float | None = None) -> Coroutine[Any, Any, Message]:
        """The next message for this run, in the order sent; waits as a row until one comes.

        `LimitReached` after timeout_s.
        """
        args = {"message": True} | ({} if timeout_s is None else {"timeout_s": timeout_s})
        return self._received(self._call(CallKind.WAIT, "", args))

    async def _received(self, call: Coroutine[Any, Any, Any]) -> Message:
        return msgspec.convert(await call, Message)

    def sleep(self, seconds: float) -> Coroutine[Any, Any, None]:
        """Waits, as a row: the kernel may put the process away meanwhile."""
        return self._call(CallKind.SLEEP, "", {"seconds": seconds})

    def now(self) -> Coroutine[Any, Any, datetime]:
        """The time (UTC), the same on every replay."""
        return self._now(self._call(CallKind.NOW, "", {}))

    async def _now(self, call: Coroutine[Any, Any, Any]) -> datetime:
        return _EPOCH + timedelta(microseconds=int(await call))

    def random(self) -> Coroutine[Any, Any, float]:
        """A number from 0 to below 1, the same on every replay."""
        return self._random(self._call(CallKind.RANDOM, "", {}))

    async def _random(self, call: Coroutine[Any, Any, Any]) -> float:
        return float(await call)

    def wait(self, call: Awaitable[T]) -> T:
        """In an agent that is a plain function: what a call comes to, as `await` is in an async
        one: `rows = ctx.wait(ctx.tool(…))`."""
        return paths.wait(call)

    def log(self, text: object) -> None:
        """A line for whoever looks at the run's output. Not a call."""
        print(text, file=sys.stderr, flush=True)

    def _call(self, kind: CallKind, name: str, args: Any) -> Coroutine[Any, Any, Any]:
        """Fixes the id of a call and its arguments, now; sends it when awaited."""
        return self._send(self._request(kind, name, args))

    def _request(self, kind: CallKind, name: str, args: Any) -> Request:
        if not isinstance(name, str) or len(name) > limits.CALL_NAME_CHARS_MAX:
            raise errors.CallInvalid(
                "The call was not made.",
                why=f"a name is a text of at most {limits.CALL_NAME_CHARS_MAX} characters",
            )
        given = values.plain(args, f"What was given to {name or kind.value}")
        path, counter = paths.take()
        return Request(kind=kind, name=name, args=given, path=path, counter=counter)

    async def _send(self, request: Request) -> Any:
        value, _ = await self._given(request)
        return value

    async def _given(self, request: Request) -> tuple[Any, Label]:
        with paths.Outside():
            return await self._door.call(request)

    async def _told(self, name: str, args: Any) -> tuple[Any, str, str]:
        """As `tool`, with what the kernel says beside the result, and how a model is shown it."""
        given = await self._given(self._request(CallKind.TOOL, name, args))
        return given[0], getattr(given, "notice", ""), getattr(given, "mark", "")
