"""Looks through all that a server says of itself for what is not meant for the person who reads.

A finding is evidence for whoever approves; it never makes anything safe. The list is public, so a
careful attacker passes it: what holds is that descriptions are pinned, spotlit and without power.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from ring0 import limits
from ring0.tools.mcp.pins import Offer, PinnedTool
from ring0.tools.mcp.wording import clean, hidden
from ring0.types import Frozen

_EXCERPT_CHARS: Final = 80
_ORDERS: Final = tuple(
    re.compile(pattern, re.IGNORECASE | re.DOTALL)
    for pattern in (
        r"\b(ignore|disregard|forget|override)\b.{0,40}"
        r"\b(instruction|prompt|rule|previous|prior|above|polic)",
        r"<\s*/?\s*(important|system|assistant|instructions?|secret|admin|critical|user)\s*/?\s*>",
        r"\b(do not|don'?t|never|without)\b.{0,30}\b(tell|mention|inform|reveal|show|notify|warn)"
        r"\w*\b.{0,30}\b(user|human|person|anyone|them)\b",
        r"\b(before|after|whenever|prior to)\b.{0,30}\b(us(e|ing)|call(ing)?|invok(e|ing))\b.{0,30}"
        r"\b(tool|function|server)",
        r"\byou (must|have to|should|need to)\b.{0,30}"
        r"\b(always|first|also|never|call|read|send|include|pass)\b",
        r"\balways (call|use|run|read|send|include|pass|prefer)\b",
        r"\binstead of\b.{0,30}\b(tool|using|calling)\b",
        r"\b(system prompt|(conversation|chat) history|previous messages|your instructions)\b",
        r"\b(secretly|silently|quietly)\s+(send|call|read|run|copy|cop|includ|add|upload|forward|append)",
        r"\[(system|inst|important)\]|<\|[a-z_]+\|>|###\s*(system|instruction)",
        r"<!--",
    )
)
_PATHS: Final = re.compile(
    r"~/\.|\bid_(rsa|ed25519|ecdsa)\b|\.ssh\b|\.aws\b|\.netrc\b|\.env\b|/etc/(passwd|shadow)|mcp\.json",
    re.IGNORECASE,
)
_URL: Final = re.compile(
    r"\b(https?|ftp|wss?|data|javascript|file):[^\s\"'<>)\]]{2,}", re.IGNORECASE
)
_BLOB: Final = re.compile(r"(?<![A-Za-z0-9+/])[A-Za-z0-9+/_-]{64,}={0,2}")
_SECRET: Final = re.compile(
    r"(?i)(api_?key|access_?token|auth_?token|passw(or)?d|secret|credential|private_?key|ssh_?key)"
)
_CONFIDING: Final = re.compile(
    r"(?i)^(side_?notes?|reason(ing)?|thoughts?|context|history|conversation|system_?prompt|notes?|"
    r"feedback|explanation|summary_of_conversation|user_?prompt)$"
)
_FAR: Final = re.compile(r"[ \t\u00a0\u2000-\u200a\u3000]{40,}|(\n\s*){12,}")
_WRITES: Final = re.compile(
    r"(?i)(^|_)(delete|remove|drop|write|create|update|send|push|commit|merge|move|edit|set|reset|post|"
    r"pay|transfer|execute|run)(_|$)"
)
_FOREIGN: Final = re.compile(r"[a-z0-9]+(?:_[a-z0-9]+)+|[a-z]+\.[a-z_]+", re.IGNORECASE)


class Finding(Frozen, frozen=True, kw_only=True):
    """One thing that a person should look at before approving."""

    where: str
    what: str
    excerpt: str = ""
    grave: bool = True
    """False: common in honest servers too."""


Look = Callable[[str], Iterable[tuple[str, str, bool]]]
"""What else is found in a text: what, an excerpt, whether it is grave."""


def scan(offer: Offer, others: Iterable[str] = (), look: Look | None = None) -> list[Finding]:
    """All that is found in what a server offers. `others`: names of tools that are not its own;
    `look`: who else looks at each text, and at what is encoded in it."""
    foreign = {name.casefold() for name in others}
    found: list[Finding] = []
    for where, text in _texts(offer):
        found += _in_text(where, text)
        if look is not None:
            found += [
                Finding(where=where, what=what, excerpt=clean(excerpt, _EXCERPT_CHARS), grave=grave)
                for what, excerpt, grave in look(text)
            ]
        found += _of_others(where, text, foreign)
    for tool in offer.tools:
        found += _in_arguments(tool)
        found += _claims(tool)
    unique = list(dict.fromkeys(found))
    unique.sort(key=lambda finding: not finding.grave)
    return unique[: limits.MCP_FINDINGS_MAX]


def _texts(offer: Offer) -> Iterator[tuple[str, str]]:
    yield "the server's name", offer.server_name
    yield "the server's version", offer.server_version
    yield "the server's instructions", offer.instructions
    for tool in offer.tools:
        where = f"the tool {clean(tool.name, 60)}"
        yield f"{where}: name", tool.name
        yield f"{where}: title", tool.title
        yield f"{where}: description", tool.description
        for part, value in (("schema", tool.schema), ("output schema", tool.output_schema),
                            ("annotations", tool.annotations)):  # fmt: skip
            for text in _strings(value):
                yield f"{where}: {part}", text


def _strings(value: Any, depth: int = 0) -> Iterator[str]:
    if depth > 2 * limits.MCP_SCHEMA_DEPTH_MAX:
        yield "<important> nested too deep to be looked through"
    elif isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item, depth + 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            if not (key == "$schema" and isinstance(item, str)):
                yield from _strings(item, depth + 1)


def _in_text(where: str, text: str) -> Iterator[Finding]:
    unseen = sorted({letter for letter in text if hidden(letter)})
    if unseen:
        codes = ", ".join(f"U+{ord(letter):04X}" for letter in unseen[:8])
        said = _smuggled(text)
        yield Finding(where=where, what=f"characters that nobody sees ({codes})", excerpt=said)
    if _FAR.search(text):
        yield Finding(where=where, what="a gap that hides what comes after it")
    # What a reader makes of it: full-width letters, hidden ones between, are the same words.
    plain = unicodedata.normalize("NFKC", "".join(c for c in text if not hidden(c)))
    for order in _ORDERS:
        if (match := order.search(plain)) is not None:
            yield Finding(where=where, what="reads like an order", excerpt=_excerpt(plain, match))
    if (match := _PATHS.search(plain)) is not None:
        yield Finding(where=where, what="names where secrets lie", excerpt=_excerpt(plain, match))
    if (match := _URL.search(plain)) is not None:
        yield Finding(
            where=where, what="names an address", excerpt=_excerpt(plain, match), grave=False
        )
    if (match := _BLOB.search(plain)) is not None:
        yield Finding(where=where, what="holds encoded data", excerpt=_excerpt(plain, match))
    if _mixed(plain):
        yield Finding(where=where, what="mixes alphabets within a word", grave=True)
    if len(text) > limits.MCP_DESCRIPTION_CHARS_MAX:
        yield Finding(where=where, what=f"is long: {len(text)} characters", grave=False)


def _of_others(where: str, text: str, foreign: set[str]) -> Iterator[Finding]:
    for word in dict.fromkeys(match.casefold() for match in _FOREIGN.findall(text)):
        if word in foreign:
            yield Finding(where=where, what="speaks of a tool that is not its own", excerpt=word)


def _in_arguments(tool: PinnedTool) -> Iterator[Finding]:
    properties = tool.schema.get("properties") if isinstance(tool.schema, dict) else None
    for name in properties if isinstance(properties, dict) else ():
        where = f"the tool {clean(tool.name, 60)}: argument {clean(name, 60)}"
        if _SECRET.search(name):
            yield Finding(where=where, what="asks for a secret")
        if _CONFIDING.match(name):
            yield Finding(where=where, what="invites the agent to tell what it knows", grave=False)


def _claims(tool: PinnedTool) -> Iterator[Finding]:
    if tool.annotations.get("readOnlyHint") is True and _WRITES.search(tool.name):
        yield Finding(
            where=f"the tool {clean(tool.name, 60)}",
            what="says that it only reads, and its name says otherwise",
        )


def _smuggled(text: str) -> str:
    """What is written in tag characters, which are ASCII that nobody sees."""
    said = "".join(chr(ord(c) - 0xE0000) for c in text if 0xE0020 <= ord(c) <= 0xE007E)
    return f"says: {said[:_EXCERPT_CHARS]}" if said else ""


def _mixed(text: str) -> bool:
    """Latin and look-alike letters of another alphabet in one word."""
    for word in re.findall(r"[^\W\d_]{2,}", text):
        if word.isascii():
            continue
        scripts = {unicodedata.name(letter, "?").split()[0] for letter in word}
        if "LATIN" in scripts and scripts & {"CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE"}:
            return True
    return False


def _excerpt(text: str, match: re.Match[str]) -> str:
    start = max(0, match.start() - 15)
    return clean(" ".join(text[start : match.end() + 25].split()), _EXCERPT_CHARS)
