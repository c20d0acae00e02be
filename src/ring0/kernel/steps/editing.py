"""What people change of a held call's arguments: put in place of the agent's, field by field.

The call keeps its id and the digest of what the agent asked for, so a replay finds it. Not here:
that it is judged and asked about anew (gate.py), and who may change what (answering.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from ring0 import limits
from ring0.errors import CallDenied, CallInvalid
from ring0.governance import approvals
from ring0.guardrails import Secrets
from ring0.guardrails.origins import LONG_TEXT_CHARS
from ring0.kernel import values
from ring0.kernel.live import Held, LiveRun
from ring0.store import Store
from ring0.tools.registry import Tool
from ring0.types import CallKind, Edit, Integrity, Origin

KINDS: Final = frozenset({CallKind.TOOL, CallKind.PROPOSAL, CallKind.ASK})
"""Whose arguments say all that is done."""


async def apply(run: LiveRun, held: Held, store: Store, secrets: Secrets) -> None:
    """The call as people left it. Raises CallInvalid where what they wrote does not fit, CallDenied
    where they changed another one: a process that was started again may ask otherwise."""
    approval = run.approvals.get(held.id)
    if approval is None or approval.edits in ("", held.edits):
        return
    if approval.request_digest not in ("", held.digest):
        raise CallDenied(
            f"People changed arguments of {held.id}, and it asks for something else now.",
            why="What they changed was the call that they were shown.",
            todo="Ask for it in a call of its own.",
        )
    edits = approvals.edits_of(await store.blob(approval.edits))
    assert held.kind in KINDS, "nothing else is changed (answering.py)"
    assert held.tool is not None, "what has no tool is not asked about"
    if held.asked_args is None:
        held.asked_args = held.args
    args, _ = secrets.redact({**held.asked_args, **typed(held.tool, edits)})
    held.args = held.tool.validate(args)
    held.edited = {edit.argument: edit.by for edit in edits}
    held.edits = approval.edits


def typed(tool: Tool, edits: Iterable[Edit]) -> dict[str, Any]:
    """The values that were meant, by the tool's schema. Raises CallInvalid."""
    return {edit.argument: _value(tool, edit) for edit in edits}


def _value(tool: Tool, edit: Edit) -> Any:
    of = tool.manifest.schema.get("properties", {}).get(edit.argument)
    kind = of.get("type") if isinstance(of, dict) else None
    if kind == "string":
        values.check(edit.text, what=edit.argument)
        return edit.text
    try:
        return values.parse(edit.text.encode("utf-8", "replace"), what=edit.argument)
    except CallInvalid:
        is_text = kind is None or (isinstance(kind, list) and "string" in kind)
        if not is_text:
            raise
        values.check(edit.text, what=edit.argument)
        return edit.text


def merged(before: Iterable[Edit], changes: Mapping[str, str], by: str, login: str) -> list[Edit]:
    """All that was changed so far: who changed an argument last is its author. Raises
    CallInvalid."""
    found = {edit.argument: edit for edit in before}
    for argument, text in changes.items():
        found[argument] = Edit(argument=argument, text=text, by=by, login=login)
    too_long = any(len(edit.text) > limits.EDIT_CHARS_MAX for edit in found.values())
    if len(found) > limits.EDITS_MAX or too_long:
        raise CallInvalid(
            "That is too much to change.",
            why=f"At most {limits.EDITS_MAX} arguments, each of {limits.EDIT_CHARS_MAX:,} letters.",
            todo="Deny it, and say in --note what is to be asked for instead.",
        )
    return list(found.values())


def authored(origins: tuple[Origin, ...], held: Held, names: Iterable[str]) -> tuple[Origin, ...]:
    """Where each of these arguments came from: what a person changed, from that person; all else as
    it was."""
    kept = [origin for origin in origins if not held.edited.keys() >= _of(origin.argument, held)]
    for name in names:
        if name in held.edited:
            value = held.args[name]
            text = value if isinstance(value, str) else values.canonical(value).decode()
            if len(text) > LONG_TEXT_CHARS:
                text = text[: LONG_TEXT_CHARS - 1] + "…"
            kept.append(
                Origin(
                    argument=name,
                    value=text,
                    sources=(held.edited[name],),
                    integrity=Integrity.USER,
                    exact=True,
                )
            )
    return tuple(kept)


def before(held: Held) -> dict[str, Any]:
    """What people changed, as the agent had it."""
    asked = held.asked_args or {}
    return {name: asked[name] for name in held.edited if name in asked}


def notice(held: Held) -> str:
    """What the agent is told with the result: it must not take its own arguments for those."""
    if not held.edited:
        return ""
    what = ", ".join(f"{name} (by {who})" for name, who in held.edited.items())
    return f"People changed arguments of this call before it ran: {what}."


def with_notice(held: Held, said: str) -> str:
    return " ".join(filter(None, (said, notice(held))))


def unfit(kind: str) -> CallInvalid:
    return CallInvalid(
        f"What is asked of a call of kind `{kind}` can't be changed.",
        why="Only the arguments of a tool's call, and of a run that asks for more budget, can.",
        todo="Deny it, and say in --note what is to be asked for instead.",
    )


def _of(argument: str, held: Held) -> set[str]:
    """The arguments that an origin's path may begin in: `parameters` of `parameters[0].id`. A name
    may hold dots and brackets itself: then one path can be of several."""
    return {
        name
        for name in held.args
        if argument == name or argument.startswith((f"{name}[", f"{name}."))
    } or {argument}


__all__ = ["KINDS", "apply", "authored", "before", "merged", "notice", "typed", "unfit"]
