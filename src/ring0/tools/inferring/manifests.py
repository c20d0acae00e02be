"""An inferred manifest: what is worked out of a tool as a whole, with the reason for each word."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ring0.tools.inferring import words
from ring0.tools.inferring.arguments import Arguments, arguments_of, places_of, properties_of
from ring0.tools.inferring.verbs import Kind, is_outgoing, split, verb_of
from ring0.types import (
    CONFIDENTIALITY_RANK,
    Confidentiality,
    Effect,
    FieldRule,
    Frozen,
    Integrity,
    ToolManifest,
)


class Inferred(Frozen, frozen=True, kw_only=True):
    """What a manifest would say of a tool, and why."""

    effect: Effect
    reads: bool
    removes: bool = False
    critical: tuple[str, ...] = ()
    recipients: tuple[str, ...] = ()
    content: tuple[str, ...] = ()
    statements: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    """All other arguments: an unattended call is judged by each that is in no list."""
    output: Integrity = Integrity.UNTRUSTED
    confidentiality: Confidentiality = Confidentiality.PRIVATE
    fields: tuple[FieldRule, ...] = ()
    """For results that our own driver produced: nobody else's are read by field."""
    why: dict[str, str] = msgspec.field(default_factory=dict)
    """By the word of the manifest, or by the argument."""


_NOTHING: Final = Arguments()


def infer(
    name: str,
    description: str = "",
    schema: Mapping[str, Any] | None = None,
    hints: Mapping[str, Any] | None = None,
) -> Inferred:
    """Never raises; hostile words make it stricter or change nothing. `hints`: MCP's annotations,
    which may only tighten."""
    given = schema if isinstance(schema, Mapping) else {}
    hints = hints if isinstance(hints, Mapping) else {}
    verb = verb_of(name, description, hints)
    arguments, why = _NOTHING, {"effect": verb.why}
    reads = verb.kind is Kind.READS
    if reads:
        arguments = places_of(given)
        code = arguments_of(given, verb, outgoing=False)
        if code.statements or any(" is code" in reason for reason in code.why.values()):
            reads, arguments = False, code  # `run_query(sql)` reads what the statement reads.
            why["effect"] = "it carries out what it is given as code"
        elif arguments.critical:
            why["effect"] += ", at an address that an argument names"
    else:
        arguments = arguments_of(given, verb, is_outgoing(name, description, verb))
    effect = Effect.ONCE
    if reads:
        effect = Effect.IDEMPOTENT if arguments.critical else Effect.PURE
    output, why["output"] = _output(name, given, reads)
    confidentiality, why["confidentiality"] = _confidentiality(name, given, output)
    fields, why["fields"] = _fields(name, given, arguments, output)
    return Inferred(
        effect=effect,
        reads=reads and not arguments.critical,
        removes=verb.kind is Kind.REMOVES,
        critical=arguments.critical,
        recipients=arguments.recipients,
        content=arguments.content,
        statements=arguments.statements,
        settings=arguments.settings,
        output=output,
        confidentiality=confidentiality,
        fields=fields,
        why={**arguments.why, **why},
    )


def manifest_of(
    name: str,
    description: str,
    schema: dict[str, Any],
    hints: Mapping[str, Any] | None = None,
    *,
    own_driver: bool = False,
    own: Mapping[str, Any] | None = None,
) -> ToolManifest:
    """A whole manifest. `own_driver`: we produce its results, so that their fields count. `own`:
    words that somebody wrote; they win."""
    found = infer(name, description, schema, hints)
    told: dict[str, Any] = {
        "effect": found.effect,
        "critical": found.critical,
        "statements": found.statements,
        "recipients": found.recipients,
        "content": found.content,
        "settings": found.settings,
        "removes": found.removes,
        "confidentiality": found.confidentiality,
        "unattended": not found.reads,
    }
    if own_driver:
        told |= {"output": found.output, "fields": found.fields}
    told |= own or {}
    return ToolManifest(name=name, description=description, schema=schema, **told)


def tightened(
    manifest: ToolManifest, name: str, description: str, hints: Mapping[str, Any] | None = None
) -> ToolManifest:
    """A manifest that nobody wrote, of a tool whose maker nobody vouches for: with all of what is
    inferred that makes it stricter, and nothing of what would make it milder."""
    found = infer(name, description, manifest.schema, hints)
    hidden = max(
        manifest.confidentiality, found.confidentiality, key=CONFIDENTIALITY_RANK.__getitem__
    )
    return msgspec.structs.replace(
        manifest,
        critical=tuple(dict.fromkeys((*manifest.critical, *found.critical))),
        recipients=tuple(dict.fromkeys((*manifest.recipients, *found.recipients))),
        content=tuple(dict.fromkeys((*manifest.content, *found.content))),
        removes=manifest.removes or found.removes,
        confidentiality=hidden,
    )


def _output(name: str, schema: Mapping[str, Any], reads: bool) -> tuple[Integrity, str]:
    named = split(name)
    is_clock = (
        reads
        and bool(set(named) & words.CLOCK)
        and set(named) <= words.CLOCK | words.CLOCK_BESIDE
        and not (properties_of(schema).keys() - {"timezone", "tz", "format"})
    )
    if is_clock:
        return Integrity.TRUSTED_FIELD, "a clock: nobody writes what it says"
    return Integrity.UNTRUSTED, "others may have written what it returns"


def _confidentiality(
    name: str, schema: Mapping[str, Any], output: Integrity
) -> tuple[Confidentiality, str]:
    named = set(split(name))
    given = {word for argument in properties_of(schema) for word in split(argument)}
    if found := sorted((named & words.SECRET) - given):  # What it is told, it need not tell.
        return Confidentiality.SECRET, f"`{found[0]}`"
    if output is Integrity.TRUSTED_FIELD:
        return Confidentiality.PUBLIC, "a clock"
    private, public = sorted(named & words.PRIVATE), sorted(named & words.PUBLIC)
    if public and not private:
        return Confidentiality.PUBLIC, f"`{public[0]}` is for everybody"
    if private:
        return Confidentiality.PRIVATE, f"`{private[0]}` is somebody's"
    return Confidentiality.PRIVATE, "nothing says that it is for everybody"


def _fields(
    name: str, schema: Mapping[str, Any], arguments: Arguments, output: Integrity
) -> tuple[tuple[FieldRule, ...], str]:
    """Of records that a system keeps. Not where somebody else made the shape of what comes back."""
    named = set(split(name))
    if output is Integrity.TRUSTED_FIELD:
        return (), "all of it is"
    if named & (words.OPEN_WORLD | words.PARSED) or arguments.statements:
        return (), "whoever wrote what it returns chose its fields, too"
    if any(" is code" in why or "reaches out" in why for why in arguments.why.values()):
        return (), "whoever wrote what it returns chose its fields, too"
    rules = tuple(
        FieldRule(path=f"{where}{field}", integrity=Integrity.TRUSTED_FIELD)
        for field in (*words.OWN_FIELDS, *_own_ids(name))
        for where in ("", "[].", "*[].")
    )
    return rules, "the system behind it gives these, and no third party chooses them"


def _own_ids(name: str) -> list[str]:
    """`event_id` and `eventId` of `get_event`, `file_id` of `list_files`."""
    found: dict[str, None] = {}
    for word in split(name):
        noun = word[:-1] if word.endswith("s") and len(word) > 3 else word
        if noun in words.PRIVATE or word in words.PRIVATE:
            found |= {f"{noun}_id": None, f"{noun}Id": None}
    return list(found)
