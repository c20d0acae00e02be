"""Whether the user's words give any hint of what a tool does, by the verb in its name.

Verbs of English in classes of like meaning, of whatever domain. A hint chooses nothing: it only
says that a call of such a tool is not out of the blue.
"""

from __future__ import annotations

import functools

from ring0 import limits
from ring0.guardrails.vocabulary import CREDENTIALS, GENERIC, LIGHT, LOOKING, SAME, SENSITIVE, VERBS
from ring0.guardrails.words import Words, one, parts


def is_hinted(tool: str, words: Words) -> bool:
    """Whether the user's words speak of what this tool, by its name, does."""
    known: dict[str, bool] = words.memo.setdefault("hinted", {})
    if tool not in known:
        if len(known) >= limits.INFERRED_KEPT_MAX:
            known.clear()
        known[tool] = _is_hinted(tool, words)
    return known[tool]


def _is_hinted(tool: str, words: Words) -> bool:
    verbs, kept, rest = _of(tool)
    stems = words.stems
    if only_looks(tool):
        return bool(words)  # What is looked at, the address says.
    if kept and not kept & stems:
        return False
    if verbs:
        return any(stem in verbs or _root(stem) in verbs for stem in stems)
    return bool(rest & stems)


@functools.lru_cache(maxsize=4_096)
def only_looks(tool: str) -> bool:
    """By the first word of its name. A lie of it changes only what it takes to be reached."""
    named = parts(tool.rpartition(".")[2])
    return bool(named) and named[0] in LOOKING


@functools.lru_cache(maxsize=4_096)
def is_credential(argument: str) -> bool:
    """Whether an argument, by its name, is what somebody gets in with."""
    named = {SAME.get(word, word) for word in parts(argument)}
    return bool(named & CREDENTIALS)


@functools.lru_cache(maxsize=4_096)
def _of(tool: str) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """Of a tool's name: words like its verb, what of it must be spoken of, and its other words."""
    named = [SAME.get(word, word) for word in parts(tool.rpartition(".")[2])]
    kept = frozenset(named) & SENSITIVE
    like: frozenset[str] = frozenset()
    for word in named:
        more = frozenset[str]().union(*(verbs for verbs in VERBS if word in verbs))
        like |= more
        if more and word not in LIGHT:
            break
    if like:
        return like, kept, frozenset()
    rest = frozenset(word for word in named if word not in GENERIC)
    return frozenset(), kept, rest or frozenset(named)


@functools.lru_cache(maxsize=4_096)
def _root(word: str) -> str:
    """`adding` → `add`, `refunded` → `refund`, `cancelled` → `cancel`: roughly."""
    for ending in ("ing", "ed"):
        if word.endswith(ending) and len(word) > len(ending) + 2:
            bare = word[: -len(ending)]
            doubled = len(bare) > 3 and bare[-1] == bare[-2] and bare[-1] not in "s"
            return bare[:-1] if doubled else bare
    return one(word)
