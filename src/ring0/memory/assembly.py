"""What goes into a model's window, under a budget: floors first, then the best for their tokens.

Goal, working set, ledgers and the last turns are floors; what changes rarely comes first, for the
caches of prompts. All but the goal stands between marks of the kernel's. Directives stand in every
question anyway (`orders`): here they only take of the budget.
Deterministic; what got in or was dropped is in the manifest, with why. Not here: recall.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ring0 import limits
from ring0.errors import LimitReached
from ring0.memory import ledgers, tokens
from ring0.memory.selecting import Candidate, Chosen, choose, shown
from ring0.memory.window import Assembled, Block, Directive, Entry, Frame, Quote, Turn
from ring0.memory.working import one_line
from ring0.types import INTEGRITY_RANK, Integrity, Label

_TITLES: Final = {
    Block.CONSTRAINTS: "Constraints:",
    Block.PLAN: "Plan:",
    Block.QUESTIONS: "Open questions:",
    Block.EFFECTS: "Done to the world so far (kept by the kernel):",
    Block.READS: "Read so far (kept by the kernel):",
}
_SHARES: Final = {
    Block.SUMMARY: 16,
    Block.CONSTRAINTS: 10,
    Block.PLAN: 20,
    Block.QUESTIONS: 6,
    Block.EFFECTS: 16,
    Block.READS: 12,
}
"""How blocks share what they have together: a block that needs less leaves it to the others."""
_SOFT_PERCENT: Final = 75
"""Of the budget, what they have together at the most: what models write can't crowd out the rest.
"""
_DIRECTIVES: Final = "# Directives (standing orders of those whom this run acts for)"
_GOAL: Final = "# Goal (the task of this run, as it was given)"
_SUMMARY: Final = "# Summary of earlier turns"
_WORKING: Final = "# Working set"
_RECALLED: Final = "# Remembered"
_OURS: Final = tuple(
    title.partition(" (")[0] for title in (_DIRECTIVES, _GOAL, _SUMMARY, _WORKING, _RECALLED)
)


def assemble(
    frame: Frame,
    candidates: Sequence[Candidate] = (),
    turns: Sequence[Turn] = (),
    *,
    budget_tokens: int,
    quote: Quote,
    note: str,
    min_integrity: Integrity | None = None,
    count: tokens.Counter = tokens.estimate,
) -> Assembled:
    """Never more than `budget_tokens`, by `count`. Raises LimitReached: the floors don't fit.

    `note` tells the model once what the marks of `quote` mean. Turns that aren't floors are taken
    from the newest backwards, without a gap.
    """
    window = _Window(frame, budget_tokens, quote, note, count)
    last = [turn for turn in turns if turn.floor]
    window.floors(last)
    found = choose(
        [one for one in candidates if window.may(one, min_integrity)],
        most_tokens=_room_to_recall(window.left, len(turns) > len(last)),
        count=count,
        overhead_tokens=count(f"\n{_RECALLED}\n") + count(quote("")),
    )
    window.recall(found)
    window.turns(turns)
    return window.finished()


def orders(directives: Sequence[Directive]) -> str:
    """What stands before all else in every question to a model; empty: nobody gave any."""
    if not directives:
        return ""
    return "\n".join([_DIRECTIVES, *(_order(one) for one in directives)]) + "\n"


def _order(one: Directive) -> str:
    return f"- {_indented(one.text)}"


def _room_to_recall(left: int, shared: bool) -> int:
    """Older turns of the conversation have half of what the floors leave."""
    return left // 2 if shared else left


class _Window:
    """One assembly on its way."""

    def __init__(
        self, frame: Frame, budget: int, quote: Quote, note: str, count: tokens.Counter
    ) -> None:
        self._frame, self._quote, self._note = frame, quote, note
        self._count = count
        self._ordered = count(orders(frame.directives))
        self._most = budget
        self._budget = budget - self._ordered
        self._manifest: list[Entry] = []
        self._head = ""
        self._chosen: list[Chosen] = []
        self._turns: list[Turn] = []
        self._label = Label(integrity=Integrity.USER)
        self.left = budget

    # --- floors -------------------------------------------------------------------------------

    def floors(self, last: Sequence[Turn]) -> None:
        """Directives, goal and the last turns whole; the rest of the head within its shares."""
        for one in self._frame.directives:
            self._enter("directives", one.record, self._count(_order(one)), "in every question")
        firm = self._firm()
        turned = sum(turn.tokens for turn in last)
        for turn in last:
            self._enter("turns", turn.key, turn.tokens, "floor")
        taken = self._count(firm) + turned
        self._head = firm + self._soft(self._budget - taken)
        self._turns = list(last)
        self.left = self._budget - self._count(self._head) - turned
        if self.left < 0:
            raise self._too_small(taken)

    def _firm(self) -> str:
        goal = _without_headings(self._frame.goal)
        self._enter("goal", "goal", self._count(goal), "floor")
        return f"{_GOAL}\n{goal}\n"

    def _soft(self, left: int) -> str:
        """Summary, working set and ledgers, each within its share of what is left."""
        frame = self._frame
        blocks = {block: lines for block, lines in self._lines().items() if lines}
        if not blocks and frame.summary is None:
            return ""
        around = self._note + "\n" + _WORKING + "\n" + _SUMMARY + "\n" + self._quote("") * 2
        titles = "\n".join(_TITLES[block] for block in blocks)
        left -= self._count(around) + self._count(titles) + len(blocks)
        needs = {
            block: sum(self._count(line) + 1 for line in lines) for block, lines in blocks.items()
        }
        if frame.summary is not None:
            needs[Block.SUMMARY] = self._count(frame.summary.text)
        rooms = _shared(needs, min(left, self._budget * _SOFT_PERCENT // 100))
        text = self._note + "\n"
        if frame.summary is not None:
            cut = tokens.cut(frame.summary.text, rooms[Block.SUMMARY], self._count)
            why = "floor" if cut == frame.summary.text else "floor, cut to its share"
            self._enter(Block.SUMMARY, frame.summary.record, self._count(cut), why)
            self._label = self._label.join(frame.summary.label.bare)
            text += f"{_SUMMARY}\n{self._quote(cut)}\n"
        bodies = []
        for block, lines in blocks.items():
            bodies.append("\n".join([_TITLES[block], *self._fitting(block, lines, rooms[block])]))
        if bodies:
            text += f"{_WORKING}\n{self._quote(chr(10).join(bodies))}\n"
        self._label = self._label.join(frame.label.bare)
        return text

    def _lines(self) -> dict[Block, list[str]]:
        """Each block's lines in the order in which they are shown."""
        frame = self._frame
        plan = [
            f"{number}. [{step.status}] {step.text}"
            for number, step in enumerate(frame.working.plan, 1)
        ]
        questions = [
            f"{number}. {item.text}" for number, item in enumerate(frame.working.questions, 1)
        ]
        constraints = [
            f"{number}. {item.text}" for number, item in enumerate(frame.working.constraints, 1)
        ]
        return {
            Block.CONSTRAINTS: constraints,
            Block.PLAN: plan,
            Block.QUESTIONS: questions,
            Block.EFFECTS: ledgers.told(frame.effects),
            Block.READS: ledgers.told(frame.reads, reads=True),
        }

    def _fitting(self, block: Block, lines: Sequence[str], most: int) -> list[str]:
        """As many lines as the share has room for, what matters most first, in their own order; how
        many are left out is said before them."""
        costs = [self._count(line) + 1 for line in lines]
        if sum(costs) <= most:
            for number, cost in enumerate(costs, 1):
                self._enter(block, f"{_NOUN[block]} {number}", cost, "floor")
            return list(lines)
        room = most - self._count(_left_out(block, len(lines)) + _OVER) - 1
        if room < 0:
            raise self._too_small(self._budget)
        kept = set()
        for number in self._order(block, len(lines)):
            if costs[number] <= room:
                room -= costs[number]
                kept.add(number)
        for number, cost in enumerate(costs):
            why = "floor" if number in kept else "over budget: beyond its block's share"
            taken = number in kept
            self._enter(block, f"{_NOUN[block]} {number + 1}", cost, why, taken=taken)
        left_out = _left_out(block, len(lines) - len(kept))
        if block is Block.PLAN:
            over = sum(
                step.status in ("done", "dropped") and number not in kept
                for number, step in enumerate(self._frame.working.plan)
            )
            left_out += _OVER.format(over)
        return [left_out, *(lines[number] for number in sorted(kept))]

    def _order(self, block: Block, size: int) -> list[int]:
        """Which line is dropped last comes first: what is under way and to be done, the newest of a
        ledger, what people vouch for."""
        working = self._frame.working
        if block is Block.PLAN:
            rank = {"doing": 0, "todo": 1, "done": 2, "dropped": 3}
            return sorted(range(size), key=lambda at: (rank[working.plan[at].status], at))
        if block in (Block.EFFECTS, Block.READS):
            return list(reversed(range(size)))
        items = working.constraints if block is Block.CONSTRAINTS else working.questions
        return sorted(range(size), key=lambda at: (INTEGRITY_RANK[items[at].label.integrity], at))

    def _too_small(self, taken: int) -> LimitReached:
        return LimitReached(
            f"What has to be in the window does not fit into {self._most:,} tokens.",
            why=f"Directives, goal and the last turns take {taken + self._ordered:,} of them, and"
            " the working set"
            " and the ledgers need some."
            if taken < self._budget
            else "Directives, goal, the last turns and one line for each block of the working set"
            " take more.",
            todo="Raise the budget, keep fewer of the last turns, or retire directives"
            " (`ring0 memory directive list`).",
        )

    # --- what competes for the rest -----------------------------------------------------------

    def may(self, one: Candidate, min_integrity: Integrity | None) -> bool:
        """Whether a record may be quoted at all."""
        why = ""
        if one.quarantined:
            why = "quarantined"
        elif min_integrity is not None and (
            INTEGRITY_RANK[one.label.integrity] > INTEGRITY_RANK[min_integrity]
        ):
            why = "below min integrity"
        if why:
            cost = self._count(shown(one))
            self._enter("recalled", one.record, cost, why, taken=False, score=one.score)
        return not why

    def recall(self, found: Sequence[Chosen]) -> None:
        self._chosen = [one for one in found if one.taken]
        for one in found:
            if not one.taken:
                self._enter(
                    "recalled",
                    one.candidate.record,
                    one.tokens,
                    one.why,
                    taken=False,
                    score=one.candidate.score,
                )
        self.left = self._budget - self._total()
        while self.left < 0 and self._chosen:  # Texts may take more together than one by one.
            self._drop_last()

    def turns(self, turns: Sequence[Turn]) -> None:
        """Older turns, from the newest backwards, without a gap."""
        older = [turn for turn in turns if not turn.floor]
        kept: list[Turn] = []
        gap = False
        for turn in reversed(older):
            gap = gap or turn.tokens > self.left
            if gap:
                self._enter("turns", turn.key, turn.tokens, "over budget", taken=False)
                continue
            self.left -= turn.tokens
            kept.append(turn)
            self._enter("turns", turn.key, turn.tokens, "recent")
        self._turns = [*reversed(kept), *self._turns]

    def finished(self) -> Assembled:
        label = self._label
        for one in self._chosen:
            label = label.join(one.candidate.label)
            self._enter(
                "recalled",
                one.candidate.record,
                one.tokens,
                one.why,
                score=one.candidate.score,
            )
        total = self._total()
        assert total <= self._budget, "over budget"
        summary = self._frame.summary
        records = [*([summary.record] if summary else ())]
        return Assembled(
            head=self._head,
            recalled=self._recalled(),
            turns=tuple(turn.key for turn in self._turns),
            tokens=total + self._ordered,
            label=label,
            records=(*records, *(one.candidate.record for one in self._chosen)),
            manifest=tuple(self._manifest),
        )

    def _recalled(self) -> str:
        if not self._chosen:
            return ""
        ordered = sorted(self._chosen, key=lambda one: one.place)
        told = "\n".join(shown(one.candidate) for one in ordered)
        note = "" if self._note in self._head else self._note + "\n"
        return f"{note}{_RECALLED}\n{self._quote(told)}\n"

    def _total(self) -> int:
        recalled = self._recalled()
        total = self._count(self._head) + sum(turn.tokens for turn in self._turns)
        return total + (self._count(recalled) if recalled else 0)

    def _drop_last(self) -> None:
        one = self._chosen.pop()
        self._enter(
            "recalled",
            one.candidate.record,
            one.tokens,
            "over budget",
            taken=False,
            score=one.candidate.score,
        )
        self.left = self._budget - self._total()

    def _enter(
        self, block: str, item: str, size: int, why: str, *, taken: bool = True, score: float = 0.0
    ) -> None:
        if len(self._manifest) < limits.MANIFEST_ENTRIES_MAX:
            entry = Entry(
                block=str(block), item=item, tokens=size, taken=taken, why=why, score=score
            )
            self._manifest.append(entry)


_NOUN: Final = {
    Block.CONSTRAINTS: "constraint",
    Block.PLAN: "step",
    Block.QUESTIONS: "question",
    Block.EFFECTS: "effect",
    Block.READS: "read",
}


def _shared(needs: dict[Block, int], room: int) -> dict[Block, int]:
    """Room for each: all that it needs, or its part of what those that need less leave."""
    rooms: dict[Block, int] = {}
    rest = dict(needs)
    while rest:
        whole = sum(_SHARES[block] for block in rest)
        parts = {block: max(0, room) * _SHARES[block] // whole for block in rest}
        small = [block for block, need in rest.items() if need <= parts[block]]
        if not small:
            return rooms | parts
        for block in small:
            rooms[block] = rest.pop(block)
            room -= rooms[block]
    return rooms


def _left_out(block: Block, count: int) -> str:
    return f"- not shown here: {count} more {_NOUN[block]}s"


_OVER: Final = ", {:3d} of them done or dropped"


def _without_headings(goal: str) -> str:
    """As it was given, but that no line of it is a heading of ours: a run that read a stranger's
    words may have given this task, and directives are not its to write."""
    lines = goal.splitlines(keepends=True)
    return "".join(f"  {one}" if one.startswith(_OURS) else one for one in lines)


def _indented(text: str) -> str:
    """A text of several lines as one item: none of them begins as another item does."""
    return "\n  ".join(text.splitlines()) if "\n" in text else one_line(text)
