"""What a model door itself turns away (a field that no table lists, JSON that can't be read) goes
on record as a refused call: whoever runs the agent sees it, and a replay hears the same no.

It only refuses: nothing that comes by here is asked of a model.
"""

from __future__ import annotations

from typing import Any, Final

from ring0 import limits
from ring0.errors import CallDenied, CallInvalid, NotFound, Ring0Error
from ring0.gateway.bodies import BodyRefused
from ring0.gateway.models.answers import DEFAULT
from ring0.gateway.told import Told
from ring0.kernel import values
from ring0.kernel.gate import Gate
from ring0.kernel.live import Held, LiveRun
from ring0.tools.driver import Said
from ring0.types import CallKind, Outcome, Request

_TOO_LARGE: Final = 413


class Refusing:
    """Of one run."""

    def __init__(self, gate: Gate, run: LiveRun) -> None:
        self._gate = gate
        self._run = run

    async def told(self, error: Ring0Error, dialect: str, said: dict[str, Any]) -> Ring0Error:
        """What the client is told, once it is on record: the error itself, or that this is a loop
        by now. `said`: of the question, as `part_of` has it. Raises RunDead.

        It waits for its turn as every refusal does: whoever calls keeps nothing large meanwhile.
        """
        if not is_of_the_question(error):
            return error
        run, args = self._run, {"dialect": dialect, **said}
        self._gate.authenticate(run.handle)
        # By its words: a client that says other ids on each start is refused in the same ones.
        known_by = Said(normal={"dialect": dialect, "refused": error.as_line()})
        request = Request(kind=CallKind.MODEL, name=DEFAULT, args=args)
        held = self._gate.resolve(run, request, said=known_by)
        held.args, held.invalid = args, error
        if held.id not in run.records and (run.strict or run.unmet):
            return error  # A journal of before has none; and a no that is not on record harms none.
        outcome = await run.once(held, self._gate.runtime, lambda: self._refused(held, error))
        assert outcome.error is not None
        return error if outcome.error["code"] == error.code else Told(outcome.error)

    async def _refused(self, held: Held, error: Ring0Error) -> Outcome:
        recalled = await self._gate.recall(self._run, held)
        return recalled or await self._gate.refuse(self._run, held, error)


def part_of(body: Any) -> dict[str, Any]:
    """Of a question that is refused, what goes on record: all of a small one."""
    if not isinstance(body, dict):
        return {}
    size_bytes = len(values.canonical(body))
    small = size_bytes <= limits.REFUSED_ARGS_SIZE_BYTES_MAX
    model = body.get("model")
    named = {"model": model[: limits.CALL_NAME_CHARS_MAX]} if isinstance(model, str) else {}
    return {**named, "body": body} if small else {**named, "size_bytes": size_bytes}


def is_of_the_question(error: Ring0Error) -> bool:
    """Would it be refused again, whenever it comes? What has no room now, or came broken over a
    connection, says nothing of it; and what the gate refused is on record."""
    if isinstance(error, BodyRefused):
        return error.status == _TOO_LARGE
    return isinstance(error, CallInvalid | NotFound) or type(error) is CallDenied
