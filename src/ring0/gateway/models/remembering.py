"""Memory at the model doors, for agents that know nothing of it (`[memory]` of agent.toml).

With `recall`, records that fit what was said last are quoted into the question; with
`window_tokens`, older turns make room for goal, plan, ledgers and a summary. What is recalled and
put together comes of calls of their own, on record as any: a replay gives the same. Not here: what
is done to a body (models/remembering.py), what is remembered (kernel/memory).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from msgspec.structs import replace

from ring0 import limits
from ring0.errors import InvalidInput
from ring0.guardrails.scanners.spotlight import spotlight
from ring0.kernel import values
from ring0.kernel.gate import Gate
from ring0.kernel.live import LiveRun
from ring0.kernel.steps import marking
from ring0.kernel.steps.looping import DOOR_RECALL
from ring0.memory import compaction, selecting
from ring0.models import remembering
from ring0.models.base import CHARS_PER_TOKEN
from ring0.models.dialects import Asked, Dialect
from ring0.models.remembering import Edit, Left
from ring0.models.wire import one_line
from ring0.tools.driver import Said
from ring0.types import CallKind, CallState, MemorySettings, Outcome, Request

_FROM_MEMORY: Final = (
    "[ring0] From the agent's memory, found by what was said last: it may help, or be out of date."
)
_IN_PLACE: Final = (
    "[ring0] Here stood {turns} earlier turns of this conversation; they made room. What is known"
    " of the task and of what was done stands below."
)


_OF_THOSE: Final = "Of what was said in them, in the words of the conversation:"


class Remembering:
    """Of one run."""

    def __init__(self, gate: Gate, run: LiveRun) -> None:
        self._gate = gate
        self._run = run
        self._last = ("", "")
        """The cut that was summed up last, and to what: until it moves it is not done anew."""

    @property
    def _said(self) -> MemorySettings:
        return self._run.agent.manifest.memory

    async def edit(self, dialect: Dialect, asked: Asked, known_by: Any) -> Edit | None:
        """What is done to the question; None: it goes out as it is. `known_by`: what names it on
        every start of its client. Raises RunDead and what else ends a run."""
        if not self._said.recall and not self._said.window_tokens:
            return None
        items = remembering.conversation(dialect.name, asked.body)
        if not items:
            return None
        edit = Edit()
        if self._said.window_tokens:
            edit = await self._window(dialect.name, asked.body, items)
        if self._said.recall:
            edit = await self._recalled(dialect.name, items, edit, known_by)
        if edit == Edit() or remembering.fits(dialect.name, asked.body, edit) is None:
            return None
        return edit

    # --- what is recalled ---------------------------------------------------------------------

    async def _recalled(
        self, name: str, items: Sequence[dict[str, Any]], edit: Edit, known_by: Any
    ) -> Edit:
        query = remembering.newest(name, items)[: limits.RECALL_QUERY_CHARS_MAX]
        if not query.strip():
            return edit
        # The same question recalls the same: a retry and a replay find it on record.
        call = self._id(["recall", name, known_by], DOOR_RECALL)
        k = min(2 * self._said.recall, limits.RECALL_K_MAX)
        outcome = await self._call(CallKind.MEMORY_RECALL, {"query": query, "k": k}, call)
        if outcome.state is not CallState.OK or not isinstance(outcome.value, list):
            return _without(edit, "what is remembered", outcome)
        found = [one for one in outcome.value if edit.left_out or one.get("run") != self._run.id]
        text, records = _listed(found[: self._said.recall])
        if not text:
            return edit
        quoted = self._quoted(_FROM_MEMORY, text, call)
        return replace(edit, recalled=quoted, records=records) if quoted else edit

    # --- what makes room ----------------------------------------------------------------------

    async def _window(
        self, name: str, body: dict[str, Any], items: Sequence[dict[str, Any]]
    ) -> Edit:
        begins, most = remembering.turns(name, items), self._said.window_tokens
        ends = [*begins[1:], len(items)]
        sizes = [
            remembering.tokens(items[begin:end]) for begin, end in zip(begins, ends, strict=True)
        ]
        turns = remembering.cut(sizes, most)
        lead = remembering.leading(name, items)
        while 0 < turns < len(begins):
            if remembering.fits(name, body, Edit(left_out=begins[turns] - lead)) is not None:
                break
            turns += 1  # A result further on belongs to what is left out: that goes too.
        if not 0 < turns < len(begins):
            return Edit()
        left = Left(
            turns=turns,
            tokens=sum(sizes[:turns]),
            kept_tokens=sum(sizes[turns:]),
            most_tokens=most,
            why="" if sum(sizes[turns:]) <= most else "the newest turn alone is larger",
        )
        return await self._in_place(name, items[lead : begins[turns]], left)

    async def _in_place(self, name: str, gone: Sequence[dict[str, Any]], left: Left) -> Edit:
        """With goal, plan and ledgers, and what mattered of those turns. It is put together once
        for each cut: what stands before the newest turns stays the same until it moves."""
        edit, most = Edit(left_out=len(gone), left=left), left.most_tokens
        most //= limits.WINDOW_BLOCK_SHARE
        call = self._id(["window", name, list(gone)], "a")
        args = {"budget_tokens": most, "recall": 0}
        outcome = await self._call(CallKind.MEMORY_ASSEMBLE, args, call)
        value = outcome.value if outcome.state is CallState.OK else None
        if isinstance(value, dict) and isinstance(value.get("head"), str):
            head = value["head"]
        else:
            edit = _without(edit, "plan and ledgers", outcome)
            task = (await self._gate.store.blob(self._run.row.task)).decode("utf-8", "replace")
            head = f"# Goal\n{task}"[: most * CHARS_PER_TOKEN // 2]
        text = f"{_IN_PLACE.format(turns=left.turns)}\n{head}"
        room = most * CHARS_PER_TOKEN - len(text)
        summed = self._summed(name, gone, room, call)
        return replace(edit, window=f"{text}\n{summed}".rstrip())

    def _summed(self, name: str, gone: Sequence[dict[str, Any]], room: int, call: str) -> str:
        """The lines of them that say most, quoted; empty where there is no room."""
        room -= len(_OF_THOSE) + limits.WINDOW_QUOTING_CHARS
        if room <= 0:
            return ""
        known, text = self._last
        if known != call:
            turns = [
                compaction.Turn(who=remembering.side(name, one), text=remembering.text_of(one))
                for one in gone
            ]
            text = compaction.extract("", turns, min(room, limits.EXTRACT_CHARS_MAX))
            self._last = (call, text)
        return self._quoted(_OF_THOSE, text, call)

    # --- through the gate ---------------------------------------------------------------------

    async def _call(self, kind: CallKind, args: dict[str, Any], call: str) -> Outcome:
        request = Request(kind=kind, name="", args=args)
        return await self._gate.call(self._run.handle, request, said=Said(id=call))

    def _id(self, known_by: Any, end: str) -> str:
        digest = self._run.digest_of(values.canonical(known_by))
        return f"{self._run.id}/~{digest[:24]}/{end}"

    def _quoted(self, intro: str, text: str, call: str) -> str:
        """Between marks that the text can't hold; empty where it can't be marked."""
        try:
            marked = spotlight(text, marking.marker(self._run, call))
        except InvalidInput:
            return ""
        return f"{intro} {marked.note}\n{marked.text}"


def _listed(found: Sequence[dict[str, Any]]) -> tuple[str, tuple[str, ...]]:
    """Records as lines for a model, and their ids: as many as there is room for."""
    lines: list[str] = []
    ids: list[str] = []
    room = limits.RECALLED_CHARS_MAX
    for one in found:
        day = datetime.fromtimestamp(int(one.get("at_us", 0)) // 1_000_000, UTC).date()
        role = selecting.role_line(str(one.get("role", "")))
        head = f"- {role}, {day}, {one.get('integrity', '')}, {one.get('id', '')}"
        # Set in, so that no line of one record begins as another record does.
        said = "\n  ".join(str(one.get("text", "")).splitlines())
        text = f"{one_line(head)}:\n  {said}"
        if len(text) > room:
            continue  # A long one keeps none of the others out.
        room -= len(text)
        lines.append(text)
        ids.append(str(one.get("id", one.get("run", ""))))
    return "\n".join(lines), tuple(ids)


def _without(edit: Edit, what: str, outcome: Outcome) -> Edit:
    error = outcome.error or {}
    why = error.get("what", "it is not of the form that is known here")
    return replace(edit, without=(*edit.without, values.why(f"{what}: {why}")))
