"""`Context`: the one object through which an agent reaches anything. Each method is one call.

The methods are plain functions that fix the call's id when they are called and return what is to
be awaited, so `asyncio.gather(ctx.tool(a), ctx.tool(b))` is the same on every run. What does not go
through `ctx` is not recorded and not replayed. `loop` makes many calls, each in its turn.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from ring0 import errors, limits
from ring0.sdk import paths, values
from ring0.sdk.declare import agent_of
from ring0.sdk.door import Door, RunInfo
from ring0.types import CallKind, Request, ToolManifest

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


class Context:
    """What a run has. Made by the runner; an agent gets it as its first argument."""

    def __init__(self, door: Door, info: RunInfo, model: str = "default") -> None:
        self._door = door
        self._info = info
        self._model = model
        self.memory: Final = Memory(self)

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
    ) -> Answer:
        """Model and tools in turns, until the model proposes no more calls.

        context: a text, or what `memory.recall` gave; shown to the model before `user`.
        tools: names of kernel tools (None: all that are granted). local: functions that run in
        the agent's own process, offered beside them; the kernel sees only the proposal.
        A refused or failed call becomes its result's text, `{"error": …}`; `RunDead`,
        `LimitReached` and `ReplayDiverged` end the loop. Calls of one answer run one after another.
        """
        from ring0.sdk.loop import Loop

        turns = Loop(self, self._info.tools, tools, local)
        return await turns.go(system, user, context, model, max_tokens, turns_max)

    def spawn(self, agent: str | Callable[..., Any], task: str) -> Coroutine[Any, Any, Child]:
        """Starts a child run of `agent` (its name, or the `@agent` function) on `task`."""
        declared = agent_of(agent)
        name = declared.manifest.name if declared else str(agent)
        return self._spawned(self._call(CallKind.SPAWN, name, {"task": task}))

    async def _spawned(self, call: Coroutine[Any, Any, Any]) -> Child:
        value = await call
        run = value.get("run") if isinstance(value, dict) else None
        if not isinstance(run, str):
            raise errors.Ring0Error("The kernel named no child run.")
        return Child(self, run)

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

    def log(self, text: object) -> None:
        """A line for whoever looks at the run's output. Not a call."""
        print(text, file=sys.stderr, flush=True)

    def _call(self, kind: CallKind, name: str, args: Any) -> Coroutine[Any, Any, Any]:
        """Fixes the id of a call and its arguments, now; sends it when awaited."""
        if not isinstance(name, str) or len(name) > limits.CALL_NAME_CHARS_MAX:
            raise errors.CallInvalid(
                "The call was not made.",
                why=f"a name is a text of at most {limits.CALL_NAME_CHARS_MAX} characters",
            )
        given = values.plain(args, f"What was given to {name or kind.value}")
        path, counter = paths.take()
        return self._send(Request(kind=kind, name=name, args=given, path=path, counter=counter))

    async def _send(self, request: Request) -> Any:
        with paths.Outside():
            value, _ = await self._door.call(request)
        return value


class Child:
    """A run that this run has started."""

    def __init__(self, context: Context, run: str) -> None:
        self._context = context
        self.run: Final = run

    def wait(self) -> Coroutine[Any, Any, Any]:
        """The child's result once it has ended; its error is raised."""
        return self._context._call(CallKind.WAIT, "", {"run": self.run})


class Memory:
    """What the agent remembers of its earlier runs for the same principal."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def append(self, text: str) -> Coroutine[Any, Any, None]:
        """Keeps a note."""
        return self._context._call(CallKind.MEMORY_APPEND, "", {"text": text})

    def recall(self, query: str, k: int = 5) -> Coroutine[Any, Any, list[dict[str, Any]]]:
        """The k nearest memories: `{"text", "role", "run", "at_us", "integrity"}` each."""
        return self._context._call(CallKind.MEMORY_RECALL, "", {"query": query, "k": k})
