"""What an argument of a call is, by its name and its value: an id, an amount, a time, a place.

Only for the rules on flows: nothing here says that a value is right, or whose it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ring0 import limits
from ring0.guardrails import tokens
from ring0.guardrails.echoes import key_of
from ring0.guardrails.origins import leaves, named
from ring0.guardrails.vocabulary import COMMON, DOING, GENERIC, IDS, MONEY, SIZES, SPARING
from ring0.guardrails.words import GAP, Words, leaf_words, one, parts, run_at

_PLACE: Final = re.compile(r"\[\d+\]")
_TIME: Final = re.compile(r"\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}.{0,24})?\Z")
_HOST: Final = re.compile(r"(?:[a-z0-9\-]{1,63}\.)+[a-z]{2,24}(?:/\S*)?\Z")
_ADDRESS: Final = re.compile(r"[^\s@]@[^\s@]|://")
_SHORT_CHARS_MAX: Final = 4
_NEAR_BEFORE: Final = 3
_NEAR_AFTER: Final = 2
_TITLE_CHARS_MAX: Final = 80
_ADDRESS_CHARS_MIN: Final = 6
_ADDRESS_DIGITS_MIN: Final = 7


def argument_of(path: str) -> str:
    """`to` of `to[0]`, `mail` of `mail.to`."""
    return re.split(r"[.\[]", path, maxsplit=1)[0]


def bare(path: str) -> str:
    """Without places in lists."""
    return _PLACE.sub("", path) if "[" in path else path


def is_listed(path: str, names: Sequence[str]) -> bool:
    """Whether it is one of these arguments, or within one."""
    stripped = bare(path)
    return any(stripped == name or stripped.startswith(f"{name}.") for name in names)


def last_words(path: str) -> tuple[str, ...]:
    return parts(bare(path).rpartition(".")[2])


def nouns(path: str, tool: str) -> frozenset[str]:
    """What an id is an id of: by its argument's name, else by the tool's."""
    said = frozenset(last_words(path)) - IDS
    return said or frozenset(parts(tool.rpartition(".")[2]))


def is_amount(path: str, value: Any) -> bool:
    """A number that is no id."""
    last = last_words(path)
    if isinstance(value, str):
        return is_number(value) and bool((MONEY | SIZES) & set(last[-1:]))
    is_id = bool(last) and last[-1] in ("id", "uuid", "key", "number", "no", "ref")
    return isinstance(value, int | float) and not isinstance(value, bool) and not is_id


def is_address(value: Any) -> bool:
    """An e-mail address or a URL, or a text with one in it (`Ann <ann@acme.com>`, `a@b.c, d@e.f`);
    or one word that is long like an account or a phone number."""
    if not isinstance(value, str) or len(value) < _ADDRESS_CHARS_MIN or is_time(value):
        return False
    if _ADDRESS.search(value):
        return True
    if len(value) > limits.FLOW_NAME_CHARS_MAX or len(value.split()) > 1:
        return False
    return sum(map(str.isdigit, value)) >= _ADDRESS_DIGITS_MIN


def is_number(text: str) -> bool:
    return tokens.as_number(tokens.folded(text)) is not None


def is_time(value: Any) -> bool:
    """A day, or a day with a time."""
    return isinstance(value, str) and _TIME.match(value.strip()) is not None


def is_host(text: str) -> bool:
    """`text`: folded."""
    return _HOST.match(text) is not None


def is_place(value: str) -> bool:
    """A site, a host or a channel: somewhere that anybody may read. Not a person's address."""
    text = tokens.folded(value)
    return text.startswith("#") or "://" in text or is_host(text)


def values(args: Mapping[str, Any], names: Sequence[str]) -> list[Any]:
    """All that these arguments hold."""
    return [leaf for name in names for _, leaf in named(args, name) if key_of(leaf)]


def all_values(args: Mapping[str, Any]) -> list[Any]:
    return [leaf for _, leaf in leaves(args) if key_of(leaf)]


def is_said(words: Words, leaf: Any) -> bool:
    """The user typed it, word by word, and it says something."""
    if not isinstance(leaf, str):
        return key_of(leaf) in words.numbers
    said = leaf_words(leaf) if len(leaf) <= _TITLE_CHARS_MAX else []
    telling = [word for word in said if word not in COMMON and one(word) not in GENERIC]
    return bool(telling) and any(
        run_at(words, place, said) == len(said) for place in words.places.get(said[0], ())
    )


def is_by_chance(path: str, value: str, tool: str, words: Words) -> bool:
    """A short id that the user typed, but not as one of these: the 13 of `June 13` is no file; or
    a word of their sentences: nobody is called `please`, unless they write it so."""
    word = tokens.folded(value)
    if word in COMMON or word in DOING:
        return not any(words.at(place).proper for place in words.places.get(word, ()))
    if len(value) > _SHORT_CHARS_MAX or not is_number(value):
        return False
    near = nouns(path, tool) | {"id", "no", "number", "ids", "key"}
    places = words.numbers.get(key_of(value), [])
    for place in places:
        before = [words.at(at).text for at in range(place - _NEAR_BEFORE, place)]
        after = [words.at(at).text for at in range(place + 1, place + 1 + _NEAR_AFTER)]
        if near & {one(word) for word in (*before, *after)}:
            return False
        if is_list_of(before) and near & words.stems:
            return False
    return True


def is_spared(words: Words, place: int) -> bool:
    """`Never delete X`, `all but keep X`: of what is named after such a word nothing is chosen."""
    while words.at(place).text != GAP:
        if words.at(place).text in SPARING:
            return True
        place -= 1
    return False


def is_list_of(before: list[str]) -> bool:
    """`orders 3, 4, 5 and 6`: the ones before are numbers, too."""
    return bool(before) and all(word.isdecimal() or word in ("and", "or") for word in before)
