"""A question to a model through the gate: what the agent's own tools returned is taken in first,
and what the model proposes is judged before the agent hears of it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from ring0 import limits
from ring0.errors import CallInvalid, Ring0Error
from ring0.gateway.memory_tools import MemoryTools
from ring0.gateway.models.answers import DEFAULT, about, read_answer
from ring0.gateway.models.earlier import Earlier
from ring0.gateway.models.given import Given
from ring0.gateway.models.profiles import Profile
from ring0.gateway.models.refusing import Refusing, is_of_the_question, part_of
from ring0.gateway.models.remembering import Remembering
from ring0.gateway.told import Told
from ring0.kernel import values
from ring0.kernel.gate import Gate
from ring0.kernel.live import LiveRun
from ring0.models import ModelAnswer, ModelRequest, ToolCall
from ring0.models.base import Message, Part, ToolOffer, checked, estimate_tokens
from ring0.models.dialects import About, Asked, Dialect
from ring0.models.names import NameMap
from ring0.models.wire import one_line
from ring0.tools.driver import Offer, Said
from ring0.tools.mcp import bare_name
from ring0.types import CallKind, CallState, Outcome, Request

EMBEDDINGS: Final = "embeddings"
"""The model that is asked for vectors, whatever a client calls it."""
_AT_DOOR: Final = "mcp__ring0__"
"""How clients that mark a tool with its server call those of the MCP door, by the name that it has
in the run's MCP configuration (`mcp.json`). Another server's tool may be called as ours is."""


class Asking:
    """What one run asks of models, at any of its doors."""

    def __init__(self, gate: Gate, run: LiveRun) -> None:
        self._gate = gate
        self._run = run
        self._observed: set[str] = set()
        """What its own tools returned, as far as it was taken in: a conversation tells it again and
        again."""
        self._proposed: set[str] = set()
        """What models of the run proposed, as the agent heard it."""
        self._given = Given(run)
        self.earlier = Earlier(gate, run, self._decided)
        self.refusing = Refusing(gate, run)
        self._remembering = Remembering(gate, run)
        self.memory_tools = MemoryTools(gate, run)

    def model_of(self, name: str, otherwise: str = DEFAULT) -> str:
        """The model of its manifest that answers for what a client calls `name`: the one that is
        called so, else the other. The answer says which it was."""
        return name if name in self._run.models else otherwise

    async def answer(
        self, dialect: Dialect, asked: Asked, said: Said, profile: Profile | None = None
    ) -> ModelAnswer:
        """The model's answer, with what of its proposals may go to the agent.

        `said.call` is set as soon as the call has its id. Raises Ring0Error.
        """
        try:
            return await self._checked(dialect, asked, said, profile)
        except Ring0Error as failure:
            if not is_of_the_question(failure):
                raise
            part = part_of({"model": asked.model, **asked.body})
            raise await self.refusing.told(failure, dialect.name, part) from None

    async def _checked(
        self, dialect: Dialect, asked: Asked, said: Said, profile: Profile | None
    ) -> ModelAnswer:
        _check_name(asked.model)
        question = dialect.request(asked.body)
        self._given.check(question)
        if not asked.previous:
            return await self._answer(dialect, asked, question, said, profile)
        async with self.earlier.gone_on(asked) as whole:
            question = dialect.request(whole.body)
            self._given.learn_again(question.messages)
            return await self._answer(dialect, whole, question, said, profile)

    async def _answer(
        self,
        dialect: Dialect,
        asked: Asked,
        question: ModelRequest,
        said: Said,
        profile: Profile | None,
    ) -> ModelAnswer:
        await self._take_in(question)
        args: dict[str, Any] = {"dialect": dialect.name, "body": asked.body}
        if asked.model:  # On record, and what the provider hears where the operator wrote `*`.
            args["model"] = asked.model
        if profile is not None:
            args["profile"] = profile.name
            said.normal = {**args, "body": profile.normal(asked.body)}
        known_by = args if said.normal is None else said.normal
        edit = await self._remembering.edit(dialect, asked, known_by)
        if edit is not None:  # It is known by what its client asks, as ever.
            said.normal, args = known_by, {**args, "memory": msgspec.to_builtins(edit)}
        name = self.model_of(asked.model, EMBEDDINGS if question.vectors else DEFAULT)
        request = Request(kind=CallKind.MODEL, name=name, args=args, traceparent=said.traceparent)
        outcome = await self._gate.call(self._run.handle, request, said=said)
        answer = read_answer(_value(outcome))
        self._given.learn(answer.parts)
        try:
            return await self._decided(answer, said.call, question.tools)
        except Ring0Error:
            # It is paid for, and nobody heard it: whoever asks again asks for the same.
            self._run.unheard(said.call)
            raise

    def estimate(self, dialect: Dialect, asked: Asked) -> int:
        """About how many tokens the question has: nobody is asked, and it costs nothing. Raises
        CallInvalid, RunDead."""
        self._gate.handles.check(self._run.handle)
        dialect.request(asked.body)
        return estimate_tokens(len(values.canonical(asked.body)))

    def about(self, asked: Asked, said: Said) -> About:
        """What is told of an answer beside it: the same on every replay."""
        record = self._run.records.get(said.call)
        begun_us = record.begun_us if record is not None else self._gate.runtime.now_us()
        return about(asked, said.call, begun_us)

    # --- what its tools returned --------------------------------------------------------------

    async def _take_in(self, request: ModelRequest) -> None:
        """Takes in what is new of it: the run's label rises before a model reads it."""
        calls: dict[str, ToolCall] = {}
        results: list[tuple[ToolCall, Message]] = []
        for message in request.messages:
            calls.update((call.id, call) for call in message.tool_calls)
            if message.role == "tool":
                call = calls.get(message.tool_call_id)
                if call is None:
                    raise CallInvalid(
                        f"A result answers the call {message.tool_call_id[:80]!r}, which nobody"
                        " made.",
                        todo="Send the message that proposed it before.",
                    )
                results.append((call, message))
        checked(request)  # What no model is asked leaves nothing behind.
        for call, message in results:
            await self._observe(call, message.content, message.is_error)

    async def _observe(self, call: ToolCall, result: str, failed: bool) -> None:
        args: dict[str, Any] = {"call": call.id, "args": call.args, "result": result}
        args["failed"] = failed
        # Agents shorten and rewrite what was said: that is no offence, but it can be seen.
        args["proposed"] = self._digest(call) in self._proposed
        key = self._run.digest_of(values.canonical([call.name, args]))
        if key in self._observed:
            return
        request = Request(kind=CallKind.OBSERVED, name=call.name, args=args)
        said = Said(id=f"{self._run.id}/~{key[:24]}/r")
        _value(await self._gate.call(self._run.handle, request, said=said))
        self._observed.add(key)

    def _digest(self, call: ToolCall) -> str:
        return self._run.digest_of(values.canonical([call.id, call.name, call.args]))

    # --- what the model proposes --------------------------------------------------------------

    async def _decided(
        self, answer: ModelAnswer, model_call: str, offered: tuple[ToolOffer, ...] = ()
    ) -> ModelAnswer:
        """The answer with the calls that may go to the agent, as they may; and with a word on the
        others. `offered`: the tools that the question told the model of."""
        if not answer.tool_calls:
            return answer
        offers = {
            tool.name: Offer(description=tool.description, schema=tool.schema) for tool in offered
        }
        judged = await asyncio.gather(
            *(
                self._judge(call, f"{model_call}/p{number}", offers.get(call.name))
                for number, call in enumerate(answer.tool_calls)
            )
        )
        kept = tuple(one for one in judged if isinstance(one, ToolCall))
        self._proposed.update(map(self._digest, kept))
        words = "".join(one for one in judged if isinstance(one, str))
        ids = {call.id for call in kept}
        parts = tuple(one for one in answer.parts if one.kind != "call" or one.text in ids)
        if parts and words:
            parts = (*parts, Part(kind="text", text=words))
        return replace(
            answer,
            tool_calls=kept,
            text=answer.text + words,
            parts=parts,
            stop=answer.stop if kept or answer.stop != "tools" else "end",
        )

    async def _judge(self, call: ToolCall, id_: str, offer: Offer | None) -> ToolCall | str:
        """The call as it may go to the agent; or what the agent is told in its place."""
        if self._is_kernels(call.name):
            return call  # It comes back as a call of its own, and is judged then.
        request = Request(kind=CallKind.PROPOSAL, name=call.name, args=call.args)
        try:
            said = Said(id=id_, offer=offer)
            outcome = await self._gate.call(self._run.handle, request, said=said)
            return replace(call, args=_value(outcome)["args"])
        except Told as no:
            why = " ".join(text for text in (no.what, no.why) if text)
            return f"\n[ring0: {one_line(call.name)} was not allowed. {why}]"

    def _is_kernels(self, name: str) -> bool:
        """A tool of the kernel's, as the MCP door told the agent of it: the agent reaches it by
        that alone. One that the door never told of, or that the manifest says is the agent's own,
        is a tool of the agent's that is called alike."""
        bare = name.removeprefix(_AT_DOOR)
        if any(self._is_agents(one) for one in (name, bare)) or bare not in self._run.listed:
            return False
        return bare in self.door_names() or self.memory_tools.find(bare) is not None

    def _is_agents(self, name: str) -> bool:
        tool = self._run.tools.get(name)
        return tool is not None and tool.manifest.where == "agent"

    def door_names(self) -> dict[str, str]:
        """What the run's tools are called at its MCP door, to their own names: `crm__query` to
        `crm.query`. One that lives in the agent has none, and keeps its own to itself: models know
        it by that."""
        wanted = {
            name: bare_name(tool.driver) or name
            for name, tool in self._run.tools.items()
            if tool.manifest.where == "kernel"
        }
        # None takes another's name: where two want the same, each keeps its own.
        agents = [name for name, tool in self._run.tools.items() if tool.manifest.where == "agent"]
        bares = (bare for name, bare in wanted.items() if bare != name)
        times = Counter([*agents, *wanted, *bares, *self.memory_tools.names()])
        wanted = {name: bare if times[bare] == 1 else name for name, bare in wanted.items()}
        there = NameMap([*wanted.values(), *agents])
        return {there.there(bare): name for name, bare in wanted.items()}


def _check_name(model: str) -> None:
    """It is told with each piece of an answer. Raises CallInvalid."""
    if len(model) > limits.CALL_NAME_CHARS_MAX or not model.isprintable():
        raise CallInvalid(
            "The model's name can't be taken.",
            why=f"It has at most {limits.CALL_NAME_CHARS_MAX} characters, and each can be seen.",
            todo="Ask for `default`, or a model that the manifest names.",
        )


def _value(outcome: Outcome) -> Any:
    """What came of it. Raises Told."""
    if outcome.state is CallState.OK and outcome.error is None:
        return outcome.value
    assert outcome.error is not None
    raise Told(outcome.error, outcome.notice)
