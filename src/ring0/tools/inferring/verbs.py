"""Whether a tool reads, changes or removes: by the verbs of its name, then of its description."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from typing import Any, Final

from ring0 import limits
from ring0.tools.inferring import words
from ring0.types import Frozen

_PARTS: Final = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")
_SENTENCE: Final = re.compile(r"[.!?\n;]+\s*")
_SUBJECT: Final = re.compile(
    r"(?:(?:it|this|this (?:tool|function|method|operation|call|endpoint))\s+)"
    r"(?:(?:also|then|will|automatically|first|can|may|and)\s+)*(?P<verb>[a-z]+)"
)
_ALSO: Final = re.compile(r"\b(?:also|and then|then)\s+(?P<verb>[a-z]+)")


class Kind(enum.StrEnum):
    """From the mildest to the gravest."""

    READS = "reads"
    CHANGES = "changes"
    REMOVES = "removes"


_RANK: Final = {kind: rank for rank, kind in enumerate(Kind)}


class Verb(Frozen, frozen=True):
    """What a tool does, and by what word that is known."""

    kind: Kind
    why: str
    word: str = ""
    """The verb itself; empty: none was known."""


def split(name: str) -> list[str]:
    """The words of a name: `sendEmail`, `send_email` and `GMAIL.SEND-EMAIL` alike."""
    return [part.lower() for part in _PARTS.findall(name[: limits.CALL_NAME_CHARS_MAX])]


def base(word: str) -> str:
    """`sends`, `replies` and `pushes` as the verb itself; any other word as it is."""
    forms = (word, word[:-1], word[:-2], word[:-3] + "y")
    for form, ending in zip(forms, ("", "s", "es", "ies"), strict=True):
        if word.endswith(ending) and (form in _KNOWN):
            return form
    return word


_KNOWN: Final = words.READS | words.CHANGES | words.REMOVES


def verb_of(name: str, description: str = "", hints: Mapping[str, Any] | None = None) -> Verb:
    """The gravest of what name, description and hints say. No verb that is known: it changes."""
    found = _by_name(split(name))
    told = description[: limits.INFER_DESCRIPTION_CHARS_MAX].casefold()
    by_words = _by_first_sentence(told)
    if found is None:
        found = by_words or Verb(Kind.CHANGES, "no verb that is known to read")
    if by_words is not None and _RANK[by_words.kind] > _RANK[found.kind]:
        found = by_words
    if found.kind is Kind.READS and (beside := _beside(told)):
        found = beside
    return _tightened(found, hints or {})


def _by_name(named: list[str]) -> Verb | None:
    """None: it has no verb."""
    found: Verb | None = None
    for part in _joined(named):
        one = _of_part(part)
        if one is None and found is not None and part and part[-1].endswith("s"):
            continue  # Nouns: `get_terms_and_conditions`.
        if one is None:
            if found is None:
                continue
            one = Verb(Kind.CHANGES, f"`{' '.join(part)}` is no verb that is known to read")
        if found is None or _RANK[one.kind] > _RANK[found.kind]:
            found = one
    return found


def _joined(named: list[str]) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    for word in named:
        if word in words.JOINING:
            parts.append([])
        else:
            parts[-1].append(word)
    return parts


def _of_part(part: list[str]) -> Verb | None:
    for place, word in enumerate(part):
        if word in words.REMOVES:
            return Verb(Kind.REMOVES, f"`{word}` takes something away", word)
        if word in words.READS:
            if place == len(part) - 1 and any(not _is_noun(one) for one in part[:-1]):
                return None  # `nuke_list`: who knows what is done to the list?
            for later in part[place + 1 :]:
                if later in words.PLAIN_CHANGES:
                    return Verb(Kind.CHANGES, f"`{later}` changes something", later)
            return Verb(Kind.READS, f"`{word}` reads", word)
        if word in words.CHANGES:
            return Verb(Kind.CHANGES, f"`{word}` changes something", word)
    return None


def _is_noun(word: str) -> bool:
    return word.endswith("s") or word in words.PRIVATE or word in words.PUBLIC


def _by_first_sentence(told: str) -> Verb | None:
    """The verb that a description begins with; None: it begins with none that is known."""
    first = re.findall(r"[a-z]+", _SENTENCE.split(told.strip(), maxsplit=1)[0])[:4]
    for word in first:
        verb = base(word)
        if verb in words.READS:
            return Verb(Kind.READS, f"its description begins with `{word}`", verb)
        if verb in words.REMOVES:
            return Verb(Kind.REMOVES, f"its description begins with `{word}`", verb)
        if verb in words.CHANGES:
            return Verb(Kind.CHANGES, f"its description begins with `{word}`", verb)
        if word not in words.BEFORE_VERBS:
            return None
    return None


def _beside(told: str) -> Verb | None:
    """What a tool that reads does beside that, as its description says: `It also sends …`."""
    for sentence in _SENTENCE.split(told):
        found = [_SUBJECT.match(sentence), *_ALSO.finditer(sentence)]
        for match in found:
            verb = base(match["verb"]) if match else ""
            if verb in words.REMOVES or verb in words.CHANGES:
                kind = Kind.REMOVES if verb in words.REMOVES else Kind.CHANGES
                return Verb(kind, f"its description says that it also does `{verb}`", verb)
    return None


def _tightened(found: Verb, hints: Mapping[str, Any]) -> Verb:
    """Hints are a server's claim about itself: one that loosens counts nothing."""
    if hints.get("destructiveHint") is True and found.kind is not Kind.REMOVES:
        return Verb(Kind.REMOVES, "its server calls it destructive", found.word)
    if hints.get("readOnlyHint") is False and found.kind is Kind.READS:
        return Verb(Kind.CHANGES, "its server says that it does not only read", found.word)
    return found


def is_outgoing(name: str, description: str, verb: Verb) -> bool:
    """Whether it takes something to somebody, by its verbs or by what else it is said to do."""
    told = description[: limits.INFER_DESCRIPTION_CHARS_MAX].casefold()
    found = {verb.word, *(one.word for part in _joined(split(name)) if (one := _of_part(part)))}
    found |= {base(match["verb"]) for match in _ALSO.finditer(told)}
    return bool(found & words.OUTGOING)
