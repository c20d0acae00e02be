"""What an operator says of where a tool's values come from and go to, in any `[tools.NAME]`:
`critical`, `recipients`, `content`, `settings`, `removes`, `unattended`, `confidentiality`,
`fields`; read strictly, put into manifests.

Not here: what a label is worth (types.py), how a rule is applied (guardrails/fields.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec.structs import replace

from ring0 import limits
from ring0.errors import ManifestInvalid
from ring0.types import (
    CONFIDENTIALITY_RANK,
    FIELD_PATH,
    Confidentiality,
    Effect,
    FieldRule,
    Integrity,
    ToolManifest,
)

if TYPE_CHECKING:
    from ring0.tools.driver import Driver  # An agent's process declares tools, and drives none.

_PATH: Final = re.compile(FIELD_PATH)
_INTEGRITY: Final = {one.value: one for one in (Integrity.TRUSTED_FIELD, Integrity.UNTRUSTED)}
"""What a manifest can say: the user's own word is only what the user typed."""
_CONFIDENTIALITY: Final = {one.value: one for one in Confidentiality}
_IF: Final = " if "
_OPERATIONS: Final = "operations"


_CHOSEN_BY_AGENTS: Final = {
    "agent": "what it returns comes through the agent, as text",
    "files": "its files hold what the agent wrote into them",
    "sql": "the agent's statement chooses what stands in which column (`output` speaks of all)",
    "python": "the agent writes what it prints",
    "shell": "the agent writes what it prints",
    "derive": "its results have the labels of what they are made of",
}
"""By what a tool uses."""


class Words(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys, as they stand in a table."""

    critical: tuple[str, ...] = ()
    recipients: tuple[str, ...] = ()
    content: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    removes: bool = False
    unattended: bool = False
    confidentiality: Confidentiality = Confidentiality.PUBLIC
    fields: dict[str, str] = {}


KEYS: Final = frozenset(Words.__struct_fields__)
_OF_ARGUMENTS: Final = ("critical", "recipients", "content", "settings")
WITH_OPERATIONS: Final = frozenset({"files", "sql", "http"})
"""Whose single operations may have words of their own: `[tools.NAME.operations.OPERATION]`."""


def split(instance: str, config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Words]]:
    """The table without these keys, and what they say: by operation, "" for all of them. Raises
    ManifestInvalid."""
    rest = {key: value for key, value in config.items() if key not in KEYS}
    said = {"": _words(f"[tools.{instance}]", {k: config[k] for k in KEYS & config.keys()})}
    if config.get("use") in WITH_OPERATIONS and _OPERATIONS in rest:
        tables = rest.pop(_OPERATIONS)
        for name, table in tables.items() if isinstance(tables, Mapping) else ():
            place = f"[tools.{instance}.operations.{str(name)[:80]}]"
            if not isinstance(table, Mapping):
                raise _invalid(place, "it is no table")
            said[str(name)] = _words(place, table)
    return rest, said


def _words(place: str, table: Mapping[str, Any]) -> Words:
    try:
        return msgspec.convert(dict(table), Words)
    except msgspec.ValidationError as error:
        raise _invalid(place, str(error)) from None


def apply(
    instance: str, use: object, said: Mapping[str, Words], drivers: Iterable[Driver]
) -> list[Driver]:
    """Puts the words into the drivers' manifests. `use`: what kind of tool it is. Raises
    ManifestInvalid, also for an argument that no operation has, and for an operation that there is
    not."""
    found = list(drivers)
    for name, words in said.items():
        operation = f".operations.{name[:80]}" if name else ""
        _check_praise(f"[tools.{instance}{operation}]", str(use), words)
    everywhere = said.get("", Words())
    place = f"[tools.{instance}]"
    rules = rules_of(place, everywhere.fields)
    for key in _OF_ARGUMENTS:
        for argument in getattr(everywhere, key):
            if not any(_takes(driver.manifest, argument) for driver in found):
                raise _no_argument(place, key, argument, found)
    _check_unattended(place, everywhere, [driver.manifest for driver in found])
    names = {driver.manifest.name.partition(".")[2]: driver for driver in found}
    for driver in found:
        _set(driver, _with(driver.manifest, everywhere, rules))
    for name, own in said.items():
        if not name:
            continue
        place = f"[tools.{instance}.operations.{name[:80]}]"
        if name not in names:
            raise _invalid(place, f"there is no such operation; there are: {', '.join(names)}")
        _set(names[name], with_words(place, names[name].manifest, own))
    return found


def _check_praise(place: str, use: str, words: Words) -> None:
    """Nobody can vouch for a field where the agent chooses what stands in it. Raises
    ManifestInvalid."""
    why = _CHOSEN_BY_AGENTS.get(use, "")
    rules = rules_of(place, words.fields)
    if why and any(rule.integrity is Integrity.TRUSTED_FIELD for rule in rules):
        raise _invalid(place, f"{why}, so nobody can vouch for `fields` of it")
    if rules and use == "agent":
        raise _invalid(place, f"{why}, which has no fields then")


def _check_unattended(place: str, said: Words, manifests: list[ToolManifest]) -> None:
    """Who says it of what is never asked about believes something else of it. Raises
    ManifestInvalid."""
    if said.unattended and all(one.effect is Effect.PURE for one in manifests):
        names = ", ".join(one.name for one in manifests)
        raise _invalid(place, f"`unattended` says nothing of what is pure ({names}): nobody is ever"
                       " asked about that; take it out, or correct the effect")  # fmt: skip


def _set(driver: Driver, manifest: ToolManifest) -> None:
    if manifest is not driver.manifest:
        driver.manifest = manifest


def with_words(place: str, manifest: ToolManifest, said: Words) -> ToolManifest:
    """One tool's manifest with the words about that tool alone. Raises ManifestInvalid."""
    _check_unattended(place, said, [manifest])
    for key in _OF_ARGUMENTS:
        check_arguments(place, key, getattr(said, key), manifest)
    return _with(manifest, said, rules_of(place, said.fields))


def check_arguments(place: str, key: str, names: Iterable[str], manifest: ToolManifest) -> None:
    """A name that is mistyped would leave the argument unjudged. Raises ManifestInvalid."""
    for argument in names:
        if not _takes(manifest, argument):
            raise _invalid(
                place, f"`{key}` names {argument[:80]!r}, and {manifest.name} has no such argument"
            )


def _with(manifest: ToolManifest, said: Words, rules: tuple[FieldRule, ...]) -> ToolManifest:
    """What is said adds to what the driver says itself; of two rules the operator's comes first."""
    own = {key: _added(manifest, key, said) for key in _OF_ARGUMENTS}
    hidden = (manifest.confidentiality, said.confidentiality)
    changed = replace(
        manifest,
        **own,
        removes=manifest.removes or said.removes,
        unattended=manifest.unattended or said.unattended,
        confidentiality=max(hidden, key=CONFIDENTIALITY_RANK.__getitem__),
        fields=tuple(dict.fromkeys((*rules, *manifest.fields))),
    )
    return manifest if changed == manifest else changed


def _added(manifest: ToolManifest, key: str, said: Words) -> tuple[str, ...]:
    wanted = [name for name in getattr(said, key) if _takes(manifest, name)]
    return tuple(dict.fromkeys((*getattr(manifest, key), *wanted)))


def _takes(manifest: ToolManifest, argument: str) -> bool:
    """It has the argument, or the first step of a way into it. What is in the agent's process may
    have a schema that only the agent knows."""
    known = manifest.schema.get("properties")
    if not isinstance(known, dict):
        return manifest.where == "agent"
    return argument in known or argument.partition(".")[0] in known


def rules_of(place: str, fields: Mapping[str, str]) -> tuple[FieldRule, ...]:
    """`fields = {"[].sender" = "trusted-field", "**.note" = "untrusted private"}` as rules; their
    order is the table's. Raises ManifestInvalid."""
    if len(fields) > limits.FIELD_RULES_MAX:
        raise _invalid(place, f"`fields` has more than {limits.FIELD_RULES_MAX} rules")
    return tuple(_rule(place, path, said) for path, said in fields.items())


def _rule(place: str, path: str, said: str) -> FieldRule:
    where = f"{place} fields.{path[:80]!r}"
    if len(path) > limits.FIELD_PATH_CHARS_MAX or _PATH.fullmatch(path) is None:
        raise _invalid(
            where,
            "that is no path of a field; write it as `sender`, `[].sender`, `a.b[0]`, `**.id`",
        )
    label, _, sanitiser = said.partition(_IF)
    words = label.split()
    integrity = [_INTEGRITY[word] for word in words if word in _INTEGRITY]
    hidden = [_CONFIDENTIALITY[word] for word in words if word in _CONFIDENTIALITY]
    unknown = len(integrity) + len(hidden) != len(words)
    if not words or unknown or len(integrity) > 1 or len(hidden) > 1:
        raise _invalid(
            where,
            f"{said[:80]!r} is no label; write one of {', '.join(_INTEGRITY)}, or one of"
            f" {', '.join(_CONFIDENTIALITY)}, or one of each",
        )
    if _IF in said and (Integrity.TRUSTED_FIELD not in integrity or not sanitiser.strip()):
        raise _invalid(where, "`if` goes with `trusted-field`, and names what lets a value through")
    return FieldRule(
        path=path,
        integrity=next(iter(integrity), None),
        confidentiality=next(iter(hidden), None),
        sanitiser=sanitiser.strip(),
    )


def without_praise(rules: Iterable[FieldRule]) -> tuple[FieldRule, ...]:
    """What code says of its own results: that something is worse than it seems, never better."""
    kept = []
    for rule in rules:
        worse = rule.integrity if rule.integrity is Integrity.UNTRUSTED else None
        hidden = None if rule.confidentiality is Confidentiality.PUBLIC else rule.confidentiality
        if worse is not None or hidden is not None:
            kept.append(FieldRule(path=rule.path, integrity=worse, confidentiality=hidden))
    return tuple(kept)


def _no_argument(place: str, key: str, argument: str, drivers: Iterable[Driver]) -> ManifestInvalid:
    names = ", ".join(driver.manifest.name for driver in drivers)
    return _invalid(place, f"`{key}` names {argument[:80]!r}, which none of {names} takes")


def _invalid(place: str, why: str) -> ManifestInvalid:
    return ManifestInvalid(
        f"{place} can't be used.",
        why=f"{why[:1].upper()}{why[1:]}.",
        todo=f"docs/guardrails.md lists {', '.join(Words.__struct_fields__)}.",
    )


__all__ = [
    "KEYS",
    "Words",
    "apply",
    "check_arguments",
    "rules_of",
    "split",
    "with_words",
    "without_praise",
]
