"""Earlier answers of a run, by the ids that its clients know them by: out of the journal.

An id belongs to its run. Nobody but the journal keeps what was said: a restart loses nothing of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from ring0 import limits
from ring0.errors import CallInvalid, LimitReached, ModelFailed, NotFound
from ring0.gateway.models.answers import about, answer_id, read_answer
from ring0.kernel import values
from ring0.kernel.gate import Gate
from ring0.kernel.live import LiveRun
from ring0.kernel.steps import recording
from ring0.models import ModelAnswer
from ring0.models.dialects import About, Asked
from ring0.models.dialects.responses import Responses
from ring0.models.dialects.responses.answer import ID_PREFIX
from ring0.types import Call, CallKind, CallState

SPOKEN: Final = Responses()
"""The one dialect in which one can go on from an answer by its id."""

Decided = Callable[[ModelAnswer, str], Awaitable[ModelAnswer]]
"""(an answer, the id of its call) to what of it the agent heard."""


class _Spoken(msgspec.Struct):
    """Of a call's arguments, the dialect alone: nothing else of them is read."""

    dialect: str = ""


class Earlier:
    """Those of one run."""

    def __init__(self, gate: Gate, run: LiveRun, decided: Decided) -> None:
        self._gate = gate
        self._run = run
        self._decided = decided

    @asynccontextmanager
    async def gone_on(self, asked: Asked) -> AsyncIterator[Asked]:
        """The question with all that was said before it, which takes its room in the kernel until
        it is answered: an id of a few bytes names megabytes. Raises NotFound; LimitReached where
        there is no room for it; CallInvalid where that is too much."""
        record, answer = await self._find(asked.previous)
        said = await self._gate.store.blob(record.args)
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(limits.DOOR_BODY_S_MAX):
                    await stack.enter_async_context(self._run.weight.room(len(said)))
            except TimeoutError:
                raise _no_room() from None
            yield self._going_on(asked, msgspec.json.decode(said)["body"], record, answer)

    def _going_on(
        self, asked: Asked, before: dict[str, Any], record: Call, answer: ModelAnswer
    ) -> Asked:
        body = SPOKEN.going_on(asked.body, before, answer, _about(record, before))
        size = len(values.canonical(body))
        if size > limits.CALL_BODY_SIZE_BYTES_MAX:
            raise CallInvalid(
                f"The conversation is too large: {size:,} bytes.",
                why=f"At most {limits.CALL_BODY_SIZE_BYTES_MAX:,} are sent to a model at once, with"
                " all that was said before.",
                todo="Begin anew with what matters of it.",
            )
        return replace(asked, body=body)

    async def answer(self, id_: str) -> dict[str, Any]:
        """The answer as its client got it. Raises NotFound, RunDead."""
        self._gate.handles.check(self._run.handle)
        record, answer = await self._find(id_)
        said = msgspec.json.decode(await self._gate.store.blob(record.args))
        return SPOKEN.write_answer(answer, _about(record, said["body"]))

    async def _find(self, id_: str) -> tuple[Call, ModelAnswer]:
        """The call that it is of, and what of it the agent heard: that may wait for a person, and
        what was asked is not held meanwhile."""
        record = self._record(id_)
        outcome = await recording.load(self._gate.store, record) if record else None
        if record is None or outcome is None or outcome.state is not CallState.OK:
            raise _not_here(id_)
        said = msgspec.json.decode(await self._gate.store.blob(record.args), type=_Spoken)
        if said.dialect != SPOKEN.name:
            raise _not_here(id_)
        try:
            answer = read_answer(outcome.value)
        except ModelFailed:
            raise _not_here(id_) from None  # It was too large to be kept.
        return record, await self._decided(answer, record.id)

    def _record(self, id_: str) -> Call | None:
        """The call that the answer is of, if it has ended."""
        for record in self._run.records.values():
            if (
                record.kind is CallKind.MODEL
                and record.outcome
                and ID_PREFIX + answer_id(record.id) == id_
            ):
                return record
        return None


def _about(record: Call, body: dict[str, Any]) -> About:
    return about(Asked(model=record.name, body=body), record.id, record.begun_us)


def _no_room() -> LimitReached:
    return LimitReached(
        "There is no room for this conversation now.",
        why="What the run has under way takes as much as it may:"
        f" {limits.CALLS_SIZE_PER_RUN_BYTES_MAX:,} bytes.",
        todo="Await some of it first.",
    )


def _not_here(id_: str) -> NotFound:
    return NotFound(
        f"{id_[: limits.CALL_NAME_CHARS_MAX]!r} is no answer of this run.",
        why="Ids of answers belong to the run that was answered; no other run can go on from it.",
        todo="Send the conversation itself, or an id that this run was given.",
    )
