"""Compaction: what of a run's turns stays when they leave the window, and when it is in vain.

The working set and the ledgers are carried over as they are; only the talk between is summed up.
Deterministic without a model. Not here: what is written, and when (kernel/memory/windows.py).
"""

from __future__ import annotations

import hmac
import re
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Final

from ring0 import limits
from ring0.errors import CallInvalid, LoopStopped
from ring0.memory.working import one_line
from ring0.types import Frozen, Window, WorkingSet

_WORD: Final = re.compile(r"\w{3,}")
_PURPOSE: Final = b"ring0 progress\0"
_NEW: Final = 0.3
"""How much it counts that a line is the newest."""


class Turn(Frozen, frozen=True, kw_only=True):
    """One thing that was said or returned, as a summary tells it."""

    who: str
    """`model`, or the tool's name."""
    text: str


def progress(key: bytes, effects: Collection[tuple[str, str, str]], working: WorkingSet) -> str:
    """What has come of a run so far, as a digest under its key: each different effect with what
    became of it, and each step that is over. New words for the same steps are no progress."""
    over = sorted({(step.text, step.status) for step in working.plan if step.status in _OVER})
    told = [f"{kind}\0{chr(1).join(one)}" for kind, some in (("effect", sorted(effects)),
            ("step", over)) for one in some]  # fmt: skip
    said = b"".join(b"%d:" % len(raw) + raw for raw in (one.encode() for one in told))
    return hmac.digest(key, _PURPOSE + said, "sha256").hex()


_OVER: Final = ("done", "dropped")


def check(window: Window | None, now: str, *, is_news: bool) -> None:
    """Whether the window may be compacted once more. `is_news`: since the last time the run read
    something that it had never read. Raises LoopStopped.

    A second compaction with nothing done between is the end of it: such a run only reads itself
    (claude-code#24179: 211 compactions in a row). One that reads on is given some more.
    """
    if window is None or not window.compactions or window.progress != now:
        return
    if is_news and window.fruitless + 1 < limits.COMPACTIONS_READING_MAX:
        return
    read = " It only read." if is_news else " Nothing new was read either."
    raise LoopStopped(
        "The window is not compacted again: since the last time nothing was done.",
        why=f"No new effect, and no step of the plan that is over.{read} A run that compacts, reads"
        " and compacts again comes no nearer to its end.",
        todo="Do something, mark what is done (`ctx.memory.step`), raise `window_tokens` so that"
        " a step fits into it, or end the run.",
    )


def given(text: str) -> str:
    """A summary that a model wrote, bounded. Raises CallInvalid."""
    if not text.strip() or len(text) > limits.SUMMARY_CHARS_MAX:
        raise CallInvalid(
            f"A summary of {len(text):,} characters can't stand for the turns.",
            why=f"1 to {limits.SUMMARY_CHARS_MAX:,} are taken.",
            todo="Sum up what matters, or give none: then the kernel makes one.",
        )
    return text.strip()


def extract(before: str, turns: Sequence[Turn], most_chars: int = limits.EXTRACT_CHARS_MAX) -> str:
    """A summary without a model: the lines that say most of what others don't, in their order.

    `before`: the summary before this one. Its lines compete with the new ones, and the newer of two
    equal ones stays. Source: SumBasic's word probabilities (Nenkova & Vanderwende, 2005), turned
    round: a word that is everywhere tells nothing.
    """
    lines = _lines(before, turns)
    if not lines:
        return "Nothing was said."
    words = [frozenset(_WORD.findall(line.lower())) for line in lines]
    known = Counter(word for some in words for word in some)
    left, kept = most_chars, set()
    ranked = sorted(
        range(len(lines)), key=lambda at: (-_worth(words[at], known, at, len(lines)), -at)
    )
    for at in ranked:
        if len(lines[at]) + 1 <= left:
            left -= len(lines[at]) + 1
            kept.add(at)
    return "\n".join(lines[at] for at in sorted(kept))


def _lines(before: str, turns: Sequence[Turn]) -> list[str]:
    told = [line for line in before.splitlines() if line.strip()]
    for turn in turns:
        text = one_line(turn.text)
        if not text:
            continue
        if len(text) > limits.EXTRACT_LINE_CHARS_MAX:
            text = text[: limits.EXTRACT_LINE_CHARS_MAX - 1] + "…"
        told.append(f"{one_line(turn.who)}: {text}")
    # Of what was said twice the newer one.
    return list(reversed(list(dict.fromkeys(reversed(told)))))


def _worth(words: frozenset[str], known: Counter[str], at: int, size: int) -> float:
    """Rare words, and that it is new."""
    rare = sum(1 / known[word] for word in words) / (len(words) + 4)
    return rare + _NEW * at / size
