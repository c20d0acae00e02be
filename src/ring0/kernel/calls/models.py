"""`model` calls: one question, asked of the model of that name, or of those that stand in for it.

A model that fails is followed by the next of its `fallback`, as long as nobody has heard a piece of
an answer. Which one answered, and why those before it did not, is in the outcome. Not here: what a
provider is asked and says (models/), which models there are (providers.py).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from ring0 import limits, models
from ring0.errors import CallInvalid, LimitReached, ManifestInvalid, ModelFailed, Ring0Error
from ring0.kernel.agent.agents import CONSOLIDATE
from ring0.kernel.calls.ports import Ports
from ring0.kernel.steps.slots import Needs, bucket_tokens
from ring0.memory import assembly
from ring0.memory.window import Directive
from ring0.models import ModelAnswer, ModelRequest, Unanswered, remembering
from ring0.tools.driver import CallContext, Prepared, Result
from ring0.types import Effect, Frozen, Label, ModelConfig, Run, ToolManifest

EMBEDDINGS: Final = "embeddings"
"""The dialect of questions that are answered with vectors."""
_CALLED: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]*")


class _Step(Frozen, frozen=True, kw_only=True):
    """One model of the chain."""

    name: str
    price: models.Price
    needs: Needs
    reserve_microusd: int


class _Question(Frozen, frozen=True, kw_only=True):
    """What `prepare` hands to `execute`."""

    request: ModelRequest
    steps: tuple[_Step, ...]
    orders: tuple[Directive, ...]


class Model:
    """`model`: one answer of the model of that name. Its text is as untrusted as what it read."""

    manifest = ToolManifest(
        name="model",
        description="Ask a model.",
        effect=Effect.IDEMPOTENT,
        schema={
            "type": "object",
            "properties": {
                "messages": {"type": "array", "minItems": 1},
                "tools": {"type": "array"},
                "max_tokens": {"type": "integer", "minimum": 1},
                # As the door of another dialect gives it.
                "dialect": {"type": "string"},
                "body": {"type": "object"},
                "profile": {"type": "string"},
                "model": {"type": "string", "maxLength": limits.CALL_NAME_CHARS_MAX},
                "memory": {"type": "object"},
            },
            "required": [],
            "additionalProperties": False,
        },
    )

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    async def prepare(self, args: dict[str, Any], context: CallContext) -> Prepared:
        orders = await self._orders(context.run, args)
        args = remembering.edited(args)
        if orders:
            args = remembering.ordered(args, assembly.orders(orders))
        request = _with_notice(models.parse_request(args), context.notice)
        said = [args, context.notice] if context.notice else args
        encoded = msgspec.json.encode(said, order="sorted")
        config = self._ports.model_config(context.run, context.name)
        chain = [(context.name, config)]
        if not request.vectors:  # Those of two models don't go together.
            chain += self._ports.model_fallbacks(context.run, context.name)
        elif config.provider not in models.WITH_VECTORS:
            raise _no_vectors(context.name, config)
        steps = tuple(self._step(name, one, request, len(encoded)) for name, one in chain)
        needs = steps[0].needs
        return Prepared(
            driver_bytes=encoded,
            state=_Question(request=request, steps=steps, orders=orders),
            reserve_microusd=max(step.reserve_microusd for step in steps),
            reserve_tokens=len(encoded) + request.max_tokens,
            features=request.features,
            lines=(*_beyond(request.features), *_unscanned(request)),
            slots=needs.slots,
            bucket=needs.bucket,
            bucket_tokens=needs.tokens,
        )

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        step, answer = await _Asking(self._ports, prepared, context).answer()
        cost, tokens = step.reserve_microusd, prepared.reserve_tokens
        if not answer.estimated:
            read = answer.tokens_in + answer.tokens_extra
            cost = step.price.cost_microusd(read, answer.tokens_out, answer.tokens_cached)
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
            # What a model says to the kernel's own agent is said once more, as facts.
            remember="" if context.run.agent_digest == CONSOLIDATE else answer.text or "",
            remember_role="answer",
            recalled=tuple(one.record for one in prepared.state.orders),
        )

    async def _orders(self, run: Run, args: dict[str, Any]) -> tuple[Directive, ...]:
        """What people say always holds: in every question that a model answers in words. They are
        read as they stand now, and are no part of what the run asked: a replay asks for the same
        whatever people have said since."""
        if args.get("dialect") == EMBEDDINGS or run.agent_digest == CONSOLIDATE:
            return ()
        return await self._ports.directives(run)

    def _step(
        self, name: str, config: ModelConfig, request: ModelRequest, size_bytes: int
    ) -> _Step:
        """Raises CallInvalid, LimitReached."""
        called = _called(name, config, request)
        price = _price(replace(config, model=called))
        slots, bucket = self._ports.model_needs(config, called)
        estimate = bucket_tokens(size_bytes, request.max_tokens)
        return _Step(
            name=name,
            price=price,
            needs=Needs(slots=slots, bucket=bucket, tokens=estimate),
            # A byte is at least one token's worth, and no answer is longer than it may be.
            reserve_microusd=price.cost_microusd(size_bytes, request.max_tokens),
        )


class _Asking:
    """One question on its way along the chain."""

    def __init__(self, ports: Ports, prepared: Prepared, context: CallContext) -> None:
        self._ports = ports
        self._prepared = prepared
        self._context = context
        self._question: _Question = prepared.state
        self._unanswered: list[Unanswered] = []
        self._heard = False
        """Somebody was told a piece of an answer: no other can be its beginning."""
        self._unspent = True
        """What is reserved now was not used by one that failed."""

    async def answer(self) -> tuple[_Step, ModelAnswer]:
        """The first that answers, and what it says. Raises ModelFailed where none does, and what
        speaks against asking."""
        first, *others = self._question.steps
        try:
            return first, await self._ask(first, 0)
        except ModelFailed as failed:
            self._failed(first, failed)
            if self._heard or not others:
                raise
        for place, step in enumerate(others, 1):
            await self._go_on(step)
            try:
                answer = await self._ask(step, place)
            except (ModelFailed, CallInvalid, ManifestInvalid) as failed:
                self._failed(step, failed)
                if self._heard:
                    raise
                continue
            told = tuple(self._unanswered)
            return step, replace(answer, answered_by=step.name, unanswered=told)
        raise self._none()

    async def _ask(self, step: _Step, place: int) -> ModelAnswer:
        context = self._context
        # Each provider knows its own question by this.
        key = f"{context.call}/f{place}" if place else context.call
        try:
            provider = self._ports.provider(context.run, step.name)
        except ManifestInvalid as no:
            no.unspent = True  # Nobody was asked.
            raise
        sinks = (self._heard_by(context.sink),) if context.sink is not None else ()
        request = replace(self._question.request, traceparent=context.traceparent)
        return await provider.answer(request, key, self._again, *sinks)

    async def _go_on(self, step: _Step) -> None:
        """The turn of the next one, and what it may cost where the one before may have spent what
        was reserved."""
        context, unspent = self._context, self._unspent
        try:
            await self._ports.pass_on(context.run, context.call, step.needs, unspent)
        except Ring0Error as error:
            error.unspent = unspent
            raise
        if not unspent:
            await self._again()
        self._unspent = True

    async def _again(self) -> None:
        await self._ports.reserve_again(self._context.run, self._context.call, self._prepared)

    def _heard_by(self, sink: Callable[[Any], Awaitable[None]]) -> models.Sink:
        async def take(delta: models.Delta) -> None:
            self._heard = True
            await sink(delta)

        return take

    def _failed(self, step: _Step, failed: Ring0Error) -> None:
        why = " ".join(text for text in (failed.what, failed.why) if text)
        self._unanswered.append(Unanswered(model=step.name, why=why[: limits.WHY_CHARS_MAX]))
        self._unspent = failed.unspent

    def _none(self) -> ModelFailed:
        told = ModelFailed(
            f"None of {len(self._unanswered)} models answered.",
            why=" ".join(f"{one.model}: {one.why}" for one in self._unanswered),
            todo="See the providers' status, the models' names, their addresses and keys.",
        )
        told.unspent = self._unspent
        return told


def _with_notice(request: ModelRequest, notice: str) -> ModelRequest:
    """What goes to the provider: the kernel's word comes last, so that the model hears it now."""
    if not notice:
        return request
    word = models.Message(role="system", content=notice)
    return replace(request, messages=(*request.messages, word))


def _called(name: str, config: ModelConfig, request: ModelRequest) -> str:
    """What the provider calls the model. Raises CallInvalid where that is the client's to say, and
    it says nothing that is a name."""
    called = models.called(config, request)
    if config.model == models.ANY_MODEL and not _CALLED.fullmatch(called):
        raise CallInvalid(
            f"The model {name} answers under the name that its client has for it, and"
            f" {called[:80]!r} is none.",
            why="Letters, digits and `._:/@+-` make a name; a call that goes to no model door has"
            " none.",
            todo="Ask at a model door, with the model's name; or configure one for such calls.",
        )
    return called


def _beyond(features: tuple[str, ...]) -> tuple[str, ...]:
    """What a person reads of them, and who asked for what is refused."""
    return (f"it asks the provider for {', '.join(features)}",) if features else ()


def _unscanned(request: ModelRequest) -> tuple[str, ...]:
    """What nobody here has looked into goes out as it is, and the record says so."""
    kinds = [
        part.kind for one in request.messages for part in one.parts if part.kind in models.MEDIA
    ]
    named = ", ".join(sorted(set(kinds)))
    return (f"unscanned: {len(kinds)} parts ({named})",) if kinds else ()


def _no_vectors(name: str, config: ModelConfig) -> CallInvalid:
    return CallInvalid(
        f"The model {name} makes no vectors.",
        why=f"Its provider is {config.provider}.",
        todo=f"Give {name} a provider that does: {', '.join(sorted(models.WITH_VECTORS))}.",
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
