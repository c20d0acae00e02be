"""`ctx.memory`: what the agent remembers, and what stands in its window. Each method is one call.

The scope is always the run's own: the agent's runs for the same principal. Nothing here decides.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal

from ring0 import errors
from ring0.types import CallKind

if TYPE_CHECKING:
    from ring0.sdk.context import Context

PLAN_TOOL: Final = "memory_plan"
"""As which a loop that keeps its window offers the model its plan."""
Status = Literal["todo", "doing", "done", "dropped"]


class Memory:
    """Of one run."""

    def __init__(self, context: Context) -> None:
        self._context = context

    # --- what lasts ---------------------------------------------------------------------------

    def append(
        self, text: str, *, key: str = "", procedure: bool = False
    ) -> Coroutine[Any, Any, None]:
        """Keeps a note. key: the same key again is the same note. procedure: how something is done;
        it is only proposed, until a person approves it."""
        args: dict[str, Any] = {"text": text} | _given(key=key)
        if procedure:
            args["kind"] = "procedure"
        return self._call(CallKind.MEMORY_APPEND, args)

    def recall(
        self,
        query: str,
        k: int = 5,
        *,
        kinds: Sequence[str] = (),
        as_of: datetime | str | None = None,
        min_integrity: str = "",
    ) -> Coroutine[Any, Any, list[dict[str, Any]]]:
        """The k nearest records, best first, each `{"id", "text", "role", "kind", "run", "at_us",
        "integrity", "confidentiality", "score"}`; facts have `subject`, `predicate`, `valid_from`,
        `valid_to` and `disputed` too, passages `document` and `place`.

        kinds: of `episode`, `fact`, `passage`, `summary`, `procedure`; as_of: what was known, and
        held, then; min_integrity: nothing that comes from somewhere worse.
        """
        args: dict[str, Any] = {"query": query, "k": k}
        args |= _given(kinds=list(kinds), as_of=_moment(as_of), min_integrity=min_integrity)
        return self._call(CallKind.MEMORY_RECALL, args)

    def remember(
        self,
        subject: str,
        predicate: str,
        value: str,
        *,
        valid_from: datetime | str | None = None,
        valid_to: datetime | str | None = None,
        many: bool = False,
        sources: Sequence[str] = (),
        key: str = "",
    ) -> Coroutine[Any, Any, None]:
        """States a fact. It takes the place of what stands for the same subject and predicate,
        which stays on record; many: it stands beside it. sources: ids of records that this run has
        recalled, or written."""
        args: dict[str, Any] = {"subject": subject, "predicate": predicate, "value": value}
        args |= _given(
            valid_from=_moment(valid_from),
            valid_to=_moment(valid_to),
            many=many,
            sources=list(sources),
            key=key,
        )
        return self._call(CallKind.MEMORY_REMEMBER, args)

    def supersede(self, record: str, text: str, *, why: str = "") -> Coroutine[Any, Any, None]:
        """Puts another text in the place of a note, or another value in that of a fact."""
        args = {"id": record, "text": text} | _given(why=why)
        return self._call(CallKind.MEMORY_SUPERSEDE, args)

    def forget(self, *records: str, why: str = "") -> Coroutine[Any, Any, dict[str, Any]]:
        """Forgets records for good, with all that was made of them: `{"receipt", "forgotten"}`. A
        person is asked, unless the policy says otherwise."""
        return self._call(CallKind.MEMORY_FORGET, {"ids": list(records)} | _given(why=why))

    def explain(self, record: str) -> Coroutine[Any, Any, dict[str, Any]]:
        """Where a record came from: who wrote it, in which call, and of what it was made."""
        return self._call(CallKind.MEMORY_EXPLAIN, {"id": record})

    # --- the working set ----------------------------------------------------------------------

    def plan(self, steps: Sequence[str | Mapping[str, Any]]) -> Coroutine[Any, Any, dict[str, Any]]:
        """Sets the whole plan: texts, or `{"text", "status"}`. As all of these it returns the
        working set: `{"plan", "constraints", "questions"}`."""
        told = [{"text": step} if isinstance(step, str) else dict(step) for step in steps]
        return self._set(plan=told)

    def step(self, number: int, status: Status = "done") -> Coroutine[Any, Any, dict[str, Any]]:
        """What has become of a step of the plan (counted from 1)."""
        return self._set(step=number, status=status)

    def constrain(self, text: str) -> Coroutine[Any, Any, dict[str, Any]]:
        """Adds something to hold to."""
        return self._set(constraint=text)

    def question(self, text: str) -> Coroutine[Any, Any, dict[str, Any]]:
        """Adds something that is not known yet."""
        return self._set(question=text)

    def answered(self, number: int) -> Coroutine[Any, Any, dict[str, Any]]:
        """Takes a question away (counted from 1)."""
        return self._set(answered=number)

    def _set(self, **asked: Any) -> Coroutine[Any, Any, dict[str, Any]]:
        return self._call(CallKind.MEMORY_SET, asked)

    # --- the window ---------------------------------------------------------------------------

    def compact(self, summary: str = "") -> Coroutine[Any, Any, dict[str, Any]]:
        """Sums up the turns since the last time, so that they can leave the window: `{"from",
        "upto", "summary"}`. summary: in the agent's own words; without one the kernel takes out the
        lines that tell most. Goal, plan and ledgers stay as they are.

        `LoopStopped` where nothing was done since the last time.
        """
        return self._call(CallKind.MEMORY_COMPACT, _given(summary=summary))

    def assemble(
        self,
        budget_tokens: int,
        *,
        query: str = "",
        recall: int | None = None,
        min_integrity: str = "",
        turns: Sequence[int] = (),
        last: int | None = None,
    ) -> Coroutine[Any, Any, dict[str, Any]]:
        """What belongs into a window of so many tokens, never more: `{"text", "head", "recalled",
        "tokens", "turns", "manifest"}`. `text` is what a model is shown before the newest turns.

        query: what is recalled for (the goal by default), at most `recall` records. turns: tokens
        of each turn of the agent's own conversation, the oldest first: so many of the newest fit
        as `turns` of the answer says, at least `last`. `LimitReached` where what has to be in it
        does not fit.
        """
        args: dict[str, Any] = {"budget_tokens": budget_tokens}
        args |= _given(query=query, min_integrity=min_integrity, turns=list(turns))
        args |= {} if recall is None else {"recall": recall}
        args |= {} if last is None else {"last": last}
        return self._call(CallKind.MEMORY_ASSEMBLE, args)

    def _call(self, kind: CallKind, args: dict[str, Any]) -> Coroutine[Any, Any, Any]:
        return self._context._call(kind, "", args)


def _given(**args: Any) -> dict[str, Any]:
    """Those that say something: what is left out asks as it always did."""
    return {name: value for name, value in args.items() if value}


def _moment(when: datetime | str | None) -> str:
    if not isinstance(when, datetime):
        return when or ""
    if when.tzinfo is None:
        raise errors.CallInvalid(
            f"{when} is a moment in no timezone.",
            why="It would be another one on another machine.",
            todo="Give it one: `datetime(…, tzinfo=UTC)`.",
        )
    return when.isoformat()
