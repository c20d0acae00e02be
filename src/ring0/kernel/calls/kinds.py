"""The kernel's own drivers: one for every kind of call that is not a tool."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from ring0 import limits, memory, models
from ring0.errors import LimitReached
from ring0.identity import narrowing
from ring0.kernel.calls.proposals import Observed, Proposal
from ring0.kernel.calls.waits import Sleep, Wait
from ring0.kernel.steps.slots import bucket_tokens
from ring0.runtime import Runtime
from ring0.store import Store
from ring0.tools.driver import CallContext, Prepared, Result
from ring0.tools.registry import Tool
from ring0.types import CallKind, Effect, Integrity, Label, ModelConfig, Run, Scope, ToolManifest

_SYSTEM = Label(integrity=Integrity.SYSTEM)


class Ports(msgspec.Struct):
    """What these drivers need of the kernel, each as a plain function."""

    provider: Callable[[Run, str], models.Provider]
    model_config: Callable[[Run, str], ModelConfig]
    spawn: Callable[[Run, str, str, str, list[str] | None], Awaitable[str]]
    """(parent, agent, task, call id, grant) to the child's id; the same call gives the same
    child."""
    model_needs: Callable[[ModelConfig], tuple[tuple[str, ...], str]]
    """The slots and the bucket that a call of this model takes."""
    reserve_again: Callable[[Run, str, Prepared], Awaitable[None]]
    """(run, call, prepared): as much once more, before another attempt. Raises LimitReached."""
    wait: Callable[[CallContext, dict[str, Any]], Awaitable[Result]]
    """What became of the children that a `wait` names, once that is clear."""
    receive: Callable[[CallContext, float | None], Awaitable[Result]]
    """The next message to the run; waits for it, at most so many seconds."""
    sleep: Callable[[CallContext, int], Awaitable[None]]
    """Until then (microseconds since 1970)."""


def _schema(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
    }


class _Kind:
    """What most of them have in common: nothing to prepare."""

    manifest: ToolManifest

    async def prepare(self, args: dict[str, Any], context: CallContext) -> Prepared:
        return Prepared(driver_bytes=msgspec.json.encode(args, order="sorted"))


class Now(_Kind):
    """`now`: microseconds since 1970."""

    manifest = ToolManifest(
        name="now", description="The time.", schema=_schema({}), effect=Effect.PURE
    )

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        return Result(value=self._runtime.now_us(), label=_SYSTEM)


class Random(_Kind):
    """`random`: a number from 0 to 1, 53 bits of it random."""

    manifest = ToolManifest(
        name="random", description="A random number.", schema=_schema({}), effect=Effect.PURE
    )

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        number = int.from_bytes(self._runtime.random_bytes(7), "big") >> 3
        return Result(value=number / 2**53, label=_SYSTEM)


class Append(_Kind):
    """`memory.append`: a note, with the label of the run that writes it."""

    manifest = ToolManifest(
        name="memory.append",
        description="Remember a note.",
        effect=Effect.IDEMPOTENT,
        schema=_schema(
            {"text": {"type": "string", "minLength": 1, "maxLength": limits.EPISODE_CHARS_MAX}}
        ),
    )

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        return Result(value=None, label=_SYSTEM, remember=args["text"], remember_role="note")


class Recall(_Kind):
    """`memory.recall`: episodes of the run's own scope, each with its label."""

    manifest = ToolManifest(
        name="memory.recall",
        description="Search what is remembered.",
        effect=Effect.PURE,
        schema=_schema(
            {
                "query": {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": limits.RECALL_QUERY_CHARS_MAX,
                }
            },
            {"k": {"type": "integer", "minimum": 1, "maximum": limits.RECALL_K_MAX}},
        ),
    )

    def __init__(self, store: Store) -> None:
        self._store = store

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        run = context.run
        scope = Scope(tenant=run.tenant, principal=run.principal, agent=run.agent)
        k = args.get("k", 5)
        found = await memory.recall(self._store, scope, args["query"], k + 1)
        # Its own task is what it has before it anyway.
        found = [one for one in found if (one.run, one.role) != (run.id, "task")][:k]
        label = Label(integrity=Integrity.SYSTEM, sources=("memory",))
        for episode in found:  # As good as the worst of what came back.
            label = label.join(
                Label(
                    integrity=episode.label.integrity, confidentiality=episode.label.confidentiality
                )
            )
        return Result(
            label=label,
            value=[
                {
                    "text": episode.text,
                    "role": episode.role,
                    "run": episode.run,
                    "at_us": episode.at_us,
                    "integrity": str(episode.label.integrity),
                }
                for episode in found
            ],
        )


def _with_notice(request: models.ModelRequest, notice: str) -> models.ModelRequest:
    """What goes to the provider: the kernel's word comes last, so that the model hears it now."""
    if not notice:
        return request
    word = models.Message(role="system", content=notice)
    return msgspec.structs.replace(request, messages=(*request.messages, word))


class Model(_Kind):
    """`model`: one answer of the model of that name. Its text is as untrusted as what it read."""

    manifest = ToolManifest(
        name="model",
        description="Ask a model.",
        effect=Effect.IDEMPOTENT,
        schema=_schema(
            {},
            {
                "messages": {"type": "array", "minItems": 1},
                "tools": {"type": "array"},
                "max_tokens": {"type": "integer", "minimum": 1},
                # As the door of another dialect gives it.
                "dialect": {"type": "string"},
                "body": {"type": "object"},
                "profile": {"type": "string"},
            },
        ),
    )

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    async def prepare(self, args: dict[str, Any], context: CallContext) -> Prepared:
        request = _with_notice(models.parse_request(args), context.notice)
        said = [args, context.notice] if context.notice else args
        encoded = msgspec.json.encode(said, order="sorted")
        config = self._ports.model_config(context.run, context.name)
        needs, bucket = self._ports.model_needs(config)
        # A byte is at least one token's worth, and no answer is longer than it may be.
        return Prepared(
            driver_bytes=encoded,
            state=request,
            reserve_microusd=_price(config).cost_microusd(len(encoded), request.max_tokens),
            reserve_tokens=len(encoded) + request.max_tokens,
            features=request.features,
            slots=needs,
            bucket=bucket,
            bucket_tokens=bucket_tokens(len(encoded), request.max_tokens),
        )

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        provider = self._ports.provider(context.run, context.name)

        async def again() -> None:
            await self._ports.reserve_again(context.run, context.call, prepared)

        sinks = (context.sink,) if context.sink is not None else ()
        answer = await provider.answer(prepared.state, context.call, again, *sinks)
        cost, tokens = prepared.reserve_microusd, prepared.reserve_tokens
        if not answer.estimated:
            price = _price(self._ports.model_config(context.run, context.name))
            read = answer.tokens_in + answer.tokens_extra
            cost = price.cost_microusd(read, answer.tokens_out, answer.tokens_cached)
            tokens = answer.tokens_in + answer.tokens_out
        label = Label(
            integrity=context.run.label.integrity,
            confidentiality=context.run.label.confidentiality,
            sources=(f"model {context.name}@{context.call}",),
        )
        return Result(
            value=msgspec.to_builtins(answer),
            label=label,
            cost_microusd=cost,
            tokens=tokens,
            remember=answer.text or "",
            remember_role="answer",
        )


def _price(config: ModelConfig) -> models.Price:
    price = models.price_of(config)
    if price is None:
        raise LimitReached(
            f"The price of the model {config.model!r} is not known.",
            why="Spending can't be bounded without a price, and a budget without money is for what"
            " costs nothing.",
            todo="Set price_in_microusd_per_mtok and price_out_microusd_per_mtok for the model:"
            " both 0 where it is free.",
        )
    return price


class Spawn(_Kind):
    """`spawn`: a child run; its budget is moved from its parent's."""

    manifest = ToolManifest(
        name="spawn",
        description="Start a child run.",
        effect=Effect.IDEMPOTENT,
        schema=_schema(
            {
                "task": {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": limits.TASK_SIZE_BYTES_MAX,
                }
            },
            {
                "only": {
                    "type": "array",
                    "items": {"type": "string", "maxLength": limits.GRANT_CHARS_MAX},
                    "maxItems": limits.GRANT_PATTERNS_MAX,
                },
            },
        ),
    )

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    async def prepare(self, args: dict[str, Any], context: CallContext) -> Prepared:
        if context.run.budget.depth < 1:
            raise LimitReached(
                f"The tree is {context.run.depth} deep already.",
                why="Children of children have an end.",
                todo="Do it in this run.",
            )
        narrowing.exactly(args.get("only", ()))  # What can't be read is refused, not left out.
        return Prepared(driver_bytes=msgspec.json.encode(args, order="sorted"))

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        child = await self._ports.spawn(
            context.run, context.name, args["task"], context.call, args.get("only")
        )
        return Result(value={"run": child}, label=_SYSTEM)


def kinds(store: Store, runtime: Runtime, ports: Ports) -> dict[CallKind, Tool]:
    """The table from kind to driver; `tool` is not in it: those are each run's own."""
    return {
        CallKind.NOW: Tool(Now(runtime)),
        CallKind.RANDOM: Tool(Random(runtime)),
        CallKind.SLEEP: Tool(Sleep(ports.sleep)),
        CallKind.MEMORY_APPEND: Tool(Append()),
        CallKind.MEMORY_RECALL: Tool(Recall(store)),
        CallKind.MODEL: Tool(Model(ports)),
        CallKind.PROPOSAL: Tool(Proposal()),
        CallKind.OBSERVED: Tool(Observed()),
        CallKind.SPAWN: Tool(Spawn(ports)),
        CallKind.WAIT: Tool(Wait(ports.wait, ports.receive)),
    }


__all__ = ["Ports", "kinds"]
