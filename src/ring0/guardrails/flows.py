"""What flows into one call, and whether the user chose it: facts for the policy, no decision.

From the user's words, what the run has seen, the tool's manifest and the arguments. Whatever can't
be told for sure is told as the worse: untrusted, unchosen, from nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import msgspec

from ring0 import limits
from ring0.guardrails import computing, hints, outgoing, roles, selecting, unnamed
from ring0.guardrails.echoes import key_of
from ring0.guardrails.naming import PARTLY, WHOLLY
from ring0.guardrails.origins import Seen
from ring0.guardrails.origins import named as named_leaves
from ring0.guardrails.records import Records
from ring0.guardrails.vocabulary import SPARING
from ring0.types import Integrity, Origin, ToolManifest

COMPUTED: Final = "computed from the task"
_RECIPIENTS: Final = "recipients"
_REMOVALS: Final = "removals"


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """What was found out about one call. Arguments are named by their paths."""

    untrusted: tuple[str, ...] = ()
    """What chooses a target, only from untrusted data."""
    unfounded: tuple[str, ...] = ()
    """Likewise, from nowhere."""
    unchosen: tuple[str, ...] = ()
    """Likewise, of something that is there, but that the user's words do not choose, where they
    have to: recipients, what is removed, credentials."""
    untrusted_urls: tuple[str, ...] = ()
    """With a URL in what goes out that is not the user's."""
    private: tuple[str, ...] = ()
    """With private data that the user did not name, for a place."""
    unnamed: tuple[str, ...] = ()
    """Of the arguments with which something is the matter, those that no manifest names."""
    recipients: int = 0
    """Of this run with this call: those that the user did not type."""
    removals: int = 0
    """Likewise: what is removed."""
    hinted: bool = True
    """The user's words speak of what the tool does."""
    chosen: bool = False
    """All that chooses its target is the user's choice, and nothing else is the matter."""


def is_told(manifest: ToolManifest) -> bool:
    """Whether its manifest says what of its arguments is what."""
    return bool(manifest.critical or manifest.recipients or manifest.content or manifest.removes)


def choosing(manifest: ToolManifest, args: Mapping[str, Any]) -> tuple[str, ...]:
    """The arguments that choose what a call does, to what and for whom. Where nobody is asked, that
    is whatever the manifest does not name."""
    named = (*manifest.critical, *manifest.recipients)
    if manifest.unattended:
        named = (*named, *unnamed.of(manifest, args))
    if not is_told(manifest):
        return tuple(dict.fromkeys(named))
    beside = unnamed.beside(manifest, args)
    kept = (name for name in beside if hints.is_credential(name) or _holds_address(args, name))
    return tuple(dict.fromkeys((*named, *kept)))


def _holds_address(args: Mapping[str, Any], name: str) -> bool:
    """Whatever the manifest says of an argument: an address in it is where something goes."""
    value = args.get(name, ())
    if "." not in name and (value is None or isinstance(value, str | int | float)):
        return roles.is_address(value)
    return any(roles.is_address(leaf) for leaf in roles.values(args, (name,)))


def origins(
    seen: Seen, manifest: ToolManifest, args: Mapping[str, Any], begun_us: int
) -> tuple[Origin, ...]:
    """Where each part of what chooses the target came from, and how the user chose it. `begun_us`:
    when the run began; `tomorrow` counts from there."""
    names = choosing(manifest, args)
    if not names:
        return ()
    seen.begin(begun_us)
    found = seen.origins(args, names, _Chooser(seen.records, manifest).how)
    return (
        (*found, *unnamed.without_origin(manifest, args, names)) if manifest.unattended else found
    )


def origins_beside(
    seen: Seen, manifest: ToolManifest, args: Mapping[str, Any]
) -> tuple[Origin, ...]:
    """Where all other arguments came from: to be shown, never judged."""
    chosen = choosing(manifest, args)
    names = [name for name in args if name not in chosen]
    judged = {path for name in chosen for path, _ in named_leaves(args, name)}
    found = [one for one in seen.origins(args, names) if one.argument not in judged]
    kept, left = found[: limits.ORIGINS_BESIDE_MAX], len(found) - limits.ORIGINS_BESIDE_MAX
    if left > 0:
        kept[-1] = msgspec.structs.replace(kept[-1], value=f"and {left + 1} more", sources=())
    return tuple(kept)


class _Chooser:
    """How the user's words choose values that they do not hold, for one call."""

    def __init__(self, records: Records, manifest: ToolManifest) -> None:
        self._records = records
        self._manifest = manifest
        self._known: dict[tuple[str, str], str] = {}
        self._amounts: computing.Amounts | None = None

    def how(self, path: str, value: Any) -> str:
        key, where = key_of(value), roles.bare(path)
        if not self._records.words or not key or hints.is_credential(roles.argument_of(path)):
            return ""
        if (where, key) not in self._known:
            self._known[where, key] = self._found(where, value, key)
        return self._known[where, key]

    def _found(self, path: str, value: Any, key: str) -> str:
        records = self._records
        strict = self._manifest.removes or roles.is_listed(path, self._manifest.recipients)
        is_time = roles.is_time(value)
        plain = not strict and (is_time or roles.is_amount(path, value))
        removes, words = self._manifest.removes, records.words
        for record in records.holding(key, roles.nouns(path, self._manifest.name)):
            if removes and any(roles.is_spared(words, place) for place in record.covers):
                continue
            level = records.level(record, key, several=plain, anywhere=strict)
            if level >= (WHOLLY if strict else PARTLY):
                return f"of what the task calls “{records.name_of(record)}”"
            if removes and words.stems & SPARING:
                continue  # What of it is to stay, a selector does not tell.
            if said := selecting.selected(records, record):
                return said
        if not plain:
            reads = not strict or hints.only_looks(self._manifest.name)
            name = outgoing.where_named(records, key) if reads else ""
            return f"a link in what the task calls “{name}”" if name else ""
        if is_time:
            return COMPUTED if computing.is_said_time(str(value), records.words) else ""
        if self._amounts is None:
            self._amounts = computing.Amounts(records.words, records.numbers())
        return COMPUTED if self._amounts.hold(Decimal(key[1:])) else ""


def facts(
    seen: Seen,
    manifest: ToolManifest,
    args: Mapping[str, Any],
    found: Sequence[Origin],
    *,
    mutates: bool,
    host: str = "",
) -> Flow:
    """What `found` (of `origins`, with what people changed) and the arguments mean for a call."""
    words = seen.records.words
    untrusted = [o for o in found if o.sources and not _is_good(o)]
    unfounded = [o for o in found if not o.sources and not _is_good(o)]
    unchosen = [o for o in found if _is_good(o) and _lacks_choice(o, manifest, seen)]
    urls = outgoing.untrusted_urls(seen, manifest, args, found, mutates=mutates)
    if not mutates:
        return Flow(untrusted=_of(untrusted), unfounded=_of(unfounded), untrusted_urls=urls)
    private = outgoing.private(seen, manifest, args, host)
    hinted = hints.is_hinted(manifest.name, words)
    bad = bool(untrusted or unfounded or unchosen or urls or private)
    reaches = _reaches(manifest, found)
    beyond = unnamed.of(manifest, args) if manifest.unattended and bad else ()
    doubtful = (*_of(untrusted), *_of(unfounded), *_of(unchosen))
    may = hinted and not bad and not words.too_long and not manifest.statements
    return Flow(
        untrusted=_of(untrusted),
        unfounded=_of(unfounded),
        unchosen=_of(unchosen),
        untrusted_urls=urls,
        private=private,
        unnamed=tuple(path for path in doubtful if roles.is_listed(path, beyond)),
        recipients=_beyond(seen, _RECIPIENTS, reaches.get(_RECIPIENTS, set())),
        removals=_beyond(seen, _REMOVALS, reaches.get(_REMOVALS, set())),
        hinted=hinted,
        chosen=may and all(map(_is_choice, found)) and _is_anchored(seen, manifest, found, args),
    )


def told(flow: Flow) -> tuple[str, ...]:
    """What was found, for the person who is asked: a line for each thing and its arguments."""
    lines = (
        (flow.untrusted, "only from untrusted data"),
        (flow.unfounded, "from nowhere that the kernel has seen"),
        (flow.unchosen, "there is such a one, but nothing that the user said chooses it"),
        (flow.untrusted_urls, "holds a URL that is not the user's, or is too long to look for one"),
        (flow.private, "holds private data that the user did not name, for a place"),
        (flow.unnamed, "no manifest says what this is for, so it is judged as critical"),
    )
    found = [f"{', '.join(names)}: {what}" for names, what in lines if names]
    if not flow.hinted:
        found.append("nothing that the user said speaks of what this tool does")
    return tuple(found)


def carried_out(seen: Seen, manifest: ToolManifest, args: Mapping[str, Any]) -> None:
    """A call was done: what it reached counts from here on."""
    if not (manifest.recipients or manifest.removes):
        return
    found = seen.origins(args, choosing(manifest, args))
    for kind, values in _reaches(manifest, found).items():
        reached = seen.reached.setdefault(kind, set())
        if len(reached) < limits.FLOW_REACHED_MAX:
            reached.update(values)


def _is_good(origin: Origin) -> bool:
    return origin.integrity is not Integrity.UNTRUSTED or bool(origin.chosen)


def _lacks_choice(origin: Origin, manifest: ToolManifest, seen: Seen) -> bool:
    """Something that is there, where it takes that the user chose it. `origin`: a good one."""
    if origin.chosen or origin.exact:
        return False
    path, is_users = origin.argument, origin.integrity is Integrity.USER
    if hints.is_credential(roles.argument_of(path)):
        return not is_users
    named = manifest.removes or roles.is_listed(path, manifest.recipients)
    if not is_users:
        return named and origin.integrity is Integrity.TRUSTED_FIELD
    by_name = named or not roles.is_amount(path, 0)
    return by_name and roles.is_by_chance(path, origin.value, manifest.name, seen.records.words)


def _is_choice(origin: Origin) -> bool:
    """The user's; or an amount or a time that is vouched for, which by itself chooses nothing."""
    if origin.integrity is Integrity.USER or origin.chosen:
        return True
    value = origin.value
    is_amount = roles.is_number(value) and roles.is_amount(origin.argument, 0)
    return is_amount or roles.is_time(value)


def _is_anchored(
    seen: Seen, manifest: ToolManifest, found: Sequence[Origin], args: Mapping[str, Any]
) -> bool:
    """Something of the call is the user's own: what chooses its target; where nothing does, its
    name; and where nobody says what of its arguments is what, all of it."""
    if any(o.integrity is Integrity.USER or o.chosen for o in found):
        return True
    words = seen.records.words
    own = roles.all_values(args)
    if all(roles.is_said(words, leaf) for leaf in own):
        return bool(own)
    return is_told(manifest) and any(
        isinstance(leaf, str) and not roles.is_time(leaf) and roles.is_said(words, leaf)
        for leaf in own
    )


def _reaches(manifest: ToolManifest, found: Sequence[Origin]) -> dict[str, set[str]]:
    """The recipients of a call, and what it removes: those that the user did not type."""
    kinds: dict[str, set[str]] = {}
    for origin in found:
        if origin.integrity is not Integrity.USER:
            if roles.is_listed(origin.argument, manifest.recipients):
                kinds.setdefault(_RECIPIENTS, set()).add(key_of(origin.value))
            elif manifest.removes:
                kinds.setdefault(_REMOVALS, set()).add(key_of(origin.value))
    return kinds


def _beyond(seen: Seen, kind: str, now: set[str]) -> int:
    """How many of them the run will have reached; 0 where this call reaches none."""
    return len(now | seen.reached.get(kind, set())) if now else 0


def _of(found: Sequence[Origin]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(origin.argument for origin in found))
