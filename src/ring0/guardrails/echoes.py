"""What a call asked for, beside what came back: echoes of it, and whether it listed all there is.

What a stranger's text puts into a lookup must not come back as if the lookup knew it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from ring0.guardrails import tokens
from ring0.guardrails.fields import Scalar, leaves
from ring0.guardrails.vocabulary import COMMON, COUNTS, DOING, GENERIC, SELECTING
from ring0.guardrails.words import leaf_words, one, parts

_SAYS_NOTHING: Final = COMMON | SELECTING | DOING
"""Words of the user's that narrow a list to no thing that they name."""


def key_of(value: Scalar) -> str:
    """One key for each way to write a value; empty: nothing to look up."""
    if value is None or isinstance(value, bool):
        return ""
    if isinstance(value, str):
        text = tokens.folded(value)
        return tokens.as_number(text) or text
    return tokens.number_key(value) or ""


class Asked:
    """The arguments of one call."""

    __slots__ = ("_echoes", "_most", "_narrowed")

    def __init__(
        self,
        args: Mapping[str, Any],
        is_typed: Callable[[Scalar], bool],
        is_all: Callable[[frozenset[str]], bool],
    ) -> None:
        """`is_typed`: whether the user typed a value. `is_all`: whether some values are all that a
        list held which nobody narrowed: to look each of them up narrows nothing either."""
        self._echoes: set[str] = set()
        self._narrowed = False
        self._most: list[int] = []
        whole = {name for name, value in args.items() if _is_all(value, is_all)}
        for steps, leaf in leaves(args):
            if leaf is None or leaf is False or leaf == "" or steps[0] in whole:
                continue
            if leaf is not True and is_typed(leaf):
                self._narrowed = self._narrowed or not _tells(leaf)
                continue
            name = str(steps[0]) if steps else ""
            if isinstance(leaf, int) and leaf is not True and set(parts(name)) <= COUNTS:
                self._most.append(leaf)
            else:
                self._echoes.add(key_of(leaf))
                self._narrowed = True
        self._echoes.discard("")

    def is_echo(self, leaf: Scalar) -> bool:
        """It was asked with, and not in words that the user typed."""
        return bool(self._echoes) and key_of(leaf) in self._echoes

    def is_whole(self, count: int) -> bool:
        """Whether an answer of so many is all that there is of what the user named."""
        return not self._narrowed and all(count < most for most in self._most)


def _is_all(value: Any, is_all: Callable[[frozenset[str]], bool]) -> bool:
    return isinstance(value, list | tuple) and is_all(
        frozenset(key_of(leaf) for _, leaf in leaves(value))
    )


def _tells(leaf: Scalar) -> bool:
    """Any word of the user's could narrow a list to what suits a stranger: a name is needed."""
    return not isinstance(leaf, str) or any(
        word not in _SAYS_NOTHING and one(word) not in GENERIC for word in leaf_words(leaf)
    )
