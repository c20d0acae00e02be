"""L1, the working set: a plan, constraints and open questions that a model keeps of its run.

Every line has the label that its run had when it was written, and is one line: it can't pose as a
heading, and no block grows beyond its share. The goal and the ledgers are the kernel's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec.structs import replace

from ring0 import limits
from ring0.errors import CallInvalid, LimitReached
from ring0.types import INTEGRITY_RANK, Integrity, Item, Label, Step, WorkingSet

STATUSES: Final = ("todo", "doing", "done", "dropped")
_TEXT: Final = {"type": "string", "minLength": 1, "maxLength": limits.WORKING_LINE_CHARS_MAX}
_NUMBER: Final = {"type": "integer", "minimum": 1, "maximum": limits.PLAN_STEPS_MAX}
SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "plan": {
            "type": "array",
            "maxItems": limits.PLAN_STEPS_MAX,
            "items": {
                "type": "object",
                "properties": {"text": _TEXT, "status": {"enum": list(STATUSES)}},
                "required": ["text"],
                "additionalProperties": False,
            },
            "description": "The whole plan, in place of the one before.",
        },
        "step": {**_NUMBER, "description": "The number of the step whose status changes."},
        "status": {"enum": list(STATUSES), "description": "Of that step; `done` by default."},
        "constraint": {**_TEXT, "description": "Something to hold to, to be added."},
        "drop_constraint": {**_NUMBER, "description": "The number of one to take away."},
        "question": {**_TEXT, "description": "Something that is not known yet, to be added."},
        "answered": {**_NUMBER, "description": "The number of a question to take away."},
    },
    "additionalProperties": False,
}
"""Of the arguments of `memory.set`."""


def changed(
    working: WorkingSet, asked: Mapping[str, Any], label: Label, seq: int = 0
) -> WorkingSet:
    """The working set with what `asked` (by SCHEMA) says of it. `label`: of whoever asks; `seq`:
    how far its log has come.

    The same again changes nothing more, but for numbers. Raises CallInvalid, LimitReached.
    """
    if not asked or ("status" in asked and "step" not in asked):
        raise CallInvalid(
            "Nothing of the working set was to be changed.",
            why="A status is that of a step." if asked else "No argument was given.",
            todo="Give `plan`, `step` with `status`, `constraint` or `question`.",
        )
    label = label.bare
    plan, constraints, questions = working.plan, working.constraints, working.questions
    if "plan" in asked:
        plan = _planned(plan, asked["plan"], label, seq)
    if "step" in asked:
        plan = _stepped(plan, asked["step"], asked.get("status", "done"), label, seq)
    if "drop_constraint" in asked:
        constraints = _without(constraints, asked["drop_constraint"], "constraint")
    if "constraint" in asked:
        constraints = _added(constraints, asked["constraint"], label, seq, "constraints")
    if "answered" in asked:
        questions = _without(questions, asked["answered"], "question")
    if "question" in asked:
        questions = _added(questions, asked["question"], label, seq, "questions")
    return WorkingSet(plan=plan, constraints=constraints, questions=questions)


def before(working: WorkingSet, seq: int) -> WorkingSet:
    """Without the lines that were written, or moved on, from there on in the run's log."""
    return WorkingSet(
        plan=tuple(one for one in working.plan if one.seq < seq),
        constraints=tuple(one for one in working.constraints if one.seq < seq),
        questions=tuple(one for one in working.questions if one.seq < seq),
    )


def label_of(working: WorkingSet) -> Label:
    """The worst of its lines."""
    label = Label(integrity=Integrity.USER)
    labels = [step.label for step in working.plan]
    labels += [item.label for item in (*working.constraints, *working.questions)]
    for one in labels:
        label = label.join(one)
    return label


def as_value(working: WorkingSet) -> dict[str, Any]:
    """As a call returns it: numbers as they are asked with."""
    return {
        "plan": [
            {"step": number, "text": step.text, "status": step.status}
            for number, step in enumerate(working.plan, 1)
        ],
        "constraints": [item.text for item in working.constraints],
        "questions": [item.text for item in working.questions],
    }


def one_line(text: str) -> str:
    """What a line can hold: no break, no control character, nothing that turns text around."""
    kept = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(kept.split())


def _line(text: str) -> str:
    line = one_line(text)
    if not line:
        raise CallInvalid(
            "A line of the working set is empty.",
            why="It has no character that can be shown.",
            todo="Say it in words.",
        )
    return line


def _planned(
    before: tuple[Step, ...], asked: Sequence[Mapping[str, Any]], label: Label, seq: int
) -> tuple[Step, ...]:
    """A step that was there with the same words and status keeps the label that it had."""
    known = {(step.text, step.status): step for step in before}
    steps = []
    for one in asked:
        text, status = _line(one["text"]), one.get("status", "todo")
        new = Step(text=text, status=status, label=label, seq=seq)
        steps.append(known.get((text, status)) or new)
    return tuple(steps)


def _stepped(
    plan: tuple[Step, ...], number: int, status: Any, label: Label, seq: int
) -> tuple[Step, ...]:
    if number > len(plan):
        raise CallInvalid(
            f"The plan has no step {number}.",
            why=f"It has {len(plan)}, counted from 1.",
            todo="Set a plan first." if not plan else "Name one of its steps.",
        )
    step = plan[number - 1]
    if step.status == status:
        return plan
    step = replace(step, status=status, label=step.label.join(label), seq=seq)
    return (*plan[: number - 1], step, *plan[number:])


def _added(
    items: tuple[Item, ...], text: str, label: Label, seq: int, what: str
) -> tuple[Item, ...]:
    """What nobody vouches for has half of the places, so that it leaves no fewer to the rest."""
    line = _line(text)
    if any(item.text == line for item in items):
        return items
    is_low = INTEGRITY_RANK[label.integrity] >= INTEGRITY_RANK[Integrity.UNTRUSTED]
    alike = [one for one in items if (one.label.integrity is Integrity.UNTRUSTED) == is_low]
    most = limits.WORKING_ITEMS_MAX // 2
    if len(alike) >= most:
        raise LimitReached(
            f"The working set takes no more {what}.",
            why=f"There are {most} from runs that had read"
            + (" what nobody vouches for." if is_low else " nothing but what people vouch for."),
            todo="Take one away first, or put several into one.",
        )
    return (*items, Item(text=line, label=label, seq=seq))


def _without(items: tuple[Item, ...], number: int, what: str) -> tuple[Item, ...]:
    if number > len(items):
        raise CallInvalid(
            f"There is no {what} {number}.",
            why=f"There are {len(items)}, counted from 1.",
            todo="Look at what the last call of `memory.set` returned.",
        )
    return (*items[: number - 1], *items[number:])
