"""Earlier answers of a run, by the ids that its clients know them by: out of the journal.

An id belongs to its run. Nobody but the journal keeps what was said: a restart loses nothing of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from ring0 import limits
from ring0.errors import CallInvalid, NotFound
from ring0.gateway.models.naming import about, answer_id
from ring0.kernel import values
from ring0.kernel.gate import Gate
from ring0.kernel.live import LiveRun
from ring0.kernel.steps import recording
from ring0.models import ModelAnswer
from ring0.models.dialects import About, Asked
from ring0.models.dialects.responses import Responses
from ring0.types import Call, CallKind, CallState

SPOKEN: Final = Responses()
"""The one dialect in which one can go on from an answer by its id."""
_PREFIX: Final = "resp_"

Decided = Callable[[ModelAnswer, str], Awaitable[ModelAnswer]]
"""(an answer, the id of its call) to what of it the agent heard."""


class Earlier:
    """Those of one run."""

    def __init__(self, gate: Gate, run: LiveRun, decided: Decided) -> None:
        self._gate = gate
        self._run = run
        self._decided = decided

    async def going_on(self, asked: Asked) -> Asked:
        """The question with all that was said before it. Raises NotFound; CallInvalid where that is
        too much."""
        before, answer, known = await self._find(asked.previous)
        body = SPOKEN.going_on(asked.body, before, answer, known)
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
        """The answer as its client got it. Raises NotFound."""
        _, answer, known = await self._find(id_)
        return SPOKEN.write_answer(answer, known)

    async def _find(self, id_: str) -> tuple[dict[str, Any], ModelAnswer, About]:
        record = self._record(id_)
        outcome = await recording.load(self._gate.store, record) if record else None
        if record is None or outcome is None or outcome.state is not CallState.OK:
            raise _not_here(id_)
        args = msgspec.json.decode(await self._gate.store.blob(record.args))
        if args.get("dialect") != SPOKEN.name:
            raise _not_here(id_)
        try:
            answer = msgspec.convert(outcome.value, ModelAnswer)
        except msgspec.ValidationError:
            raise _not_here(id_) from None  # It was too large to be kept.
        heard = await self._decided(answer, record.id)
        asked = Asked(model=record.name, body=args["body"])
        return args["body"], heard, about(asked, record.id, record.begun_us)

    def _record(self, id_: str) -> Call | None:
        """The call that the answer is of, if it has ended."""
        for record in self._run.records.values():
            if (
                record.kind is CallKind.MODEL
                and record.outcome
                and _PREFIX + answer_id(record.id) == id_
            ):
                return record
        return None


def _not_here(id_: str) -> NotFound:
    return NotFound(
        f"{id_[: limits.CALL_NAME_CHARS_MAX]!r} is no answer of this run.",
        why="Ids of answers belong to the run that was answered; no other run can go on from it.",
        todo="Send the conversation itself, or an id that this run was given.",
    )
