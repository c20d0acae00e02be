"""What each argument of a tool is for: whom it goes to, what it chooses, what is sent.

By its name first, then by its schema. What is known by neither chooses a target.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from ring0 import limits
from ring0.tools.inferring import words
from ring0.tools.inferring.verbs import Kind, Verb, split
from ring0.types import Frozen

_PLACE_FORMATS: Final = frozenset({"uri", "url", "uri-reference", "hostname", "ipv4", "ipv6"})
_PEOPLE_FORMATS: Final = frozenset({"email", "idn-email"})
_TIME_FORMATS: Final = frozenset({"date", "date-time", "time", "duration"})


class Arguments(Frozen, frozen=True, kw_only=True):
    """Those arguments of a tool that matter to a decision, each list in the schema's order."""

    critical: tuple[str, ...] = ()
    recipients: tuple[str, ...] = ()
    content: tuple[str, ...] = ()
    statements: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    why: dict[str, str] = msgspec.field(default_factory=dict)
    """By argument: the word of it that decided."""


class Role(Frozen, frozen=True, kw_only=True):
    """What one argument is for."""

    critical: bool = False
    recipient: bool = False
    content: bool = False
    statement: bool = False
    why: str

    @property
    def setting(self) -> bool:
        """It says how, not what or whom."""
        return not (self.critical or self.recipient or self.content or self.statement)


class _Leaf(Frozen, frozen=True, kw_only=True):
    name: str
    schema: dict[str, Any]
    unread: bool = False
    """It holds arguments that were not looked at."""


def arguments_of(schema: Mapping[str, Any], verb: Verb, outgoing: bool) -> Arguments:
    """For a tool that changes something. One that only reads chooses nothing but where it looks:
    see `places_of`."""
    roles: dict[str, Role] = {}
    target = False
    for leaf in _leaves(schema):
        roles[leaf.name] = role = _role(leaf, verb, outgoing)
        target = target or (role.critical and not _is_yes_or_no(leaf))
    if verb.kind is Kind.REMOVES and not target:
        for name in roles:
            roles[name] = Role(critical=True, why="it may say what is removed")
    if not any(role.recipient for role in roles.values()):
        return _told(roles)
    # With a person named beside it, a right that is chosen from a list says how much, not whom.
    for leaf in _leaves(schema):
        if _is_choice(leaf.schema) and split(_last(leaf.name))[-1:] and _is_right(leaf.name):
            roles[leaf.name] = Role(why="one of a list, for whom another argument names")
    return _told(roles)


def places_of(schema: Mapping[str, Any]) -> Arguments:
    """Where a tool that reads reaches out to: what it asks for leaves with the request."""
    found = {
        leaf.name: Role(critical=True, recipient=True, why="it reaches out to this address")
        for leaf in _leaves(schema)
        if leaf.schema.get("format") in tuple(_PLACE_FORMATS)
        or set(split(_last(leaf.name))[-1:]) & words.PLACES
    }
    return _told(found)


def _told(roles: Mapping[str, Role]) -> Arguments:
    return Arguments(
        critical=tuple(name for name, role in roles.items() if role.critical),
        recipients=tuple(name for name, role in roles.items() if role.recipient),
        content=tuple(name for name, role in roles.items() if role.content),
        statements=tuple(name for name, role in roles.items() if role.statement),
        settings=tuple(name for name, role in roles.items() if role.setting),
        why={name: role.why for name, role in roles.items()},
    )


def _leaves(schema: Mapping[str, Any]) -> Iterator[_Leaf]:
    """Arguments, and what is inside objects and lists of them: `items.price`. Bounded: of what is
    beyond, the argument that it is in."""
    definitions = schema.get("$defs") or schema.get("definitions") or {}
    todo = [(name, inner, 1) for name, inner in _named(schema, definitions).items()]
    left = limits.INFER_ARGUMENTS_MAX
    while todo and left:
        name, given, depth = todo.pop(0)
        left -= 1
        inner = _resolved(given, definitions)
        within = properties_of(_resolved(inner.get("items"), definitions)) or properties_of(inner)
        if within and depth < limits.INFER_DEPTH_MAX:
            todo[:0] = [(f"{name}.{key}", each, depth + 1) for key, each in within.items()]
        else:
            yield _Leaf(name=name, schema=inner, unread=bool(within))
    for name in dict.fromkeys(name.partition(".")[0] for name, _, _ in todo):
        yield _Leaf(name=name, schema={}, unread=True)


def _named(schema: Mapping[str, Any], definitions: Any) -> dict[str, Any]:
    """All arguments that a schema names, also by a reference or in parts of which some count."""
    parts: list[Any] = [schema, {"$ref": schema.get("$ref")}]
    for word in ("allOf", "anyOf", "oneOf"):
        several = schema.get(word)
        parts += several[: limits.INFER_ARGUMENTS_MAX] if isinstance(several, list) else []
    found: dict[str, Any] = {}
    for part in parts:
        found = {**properties_of(_resolved(part, definitions)), **properties_of(part), **found}
    return found


def properties_of(schema: Any) -> dict[str, Any]:
    """Its arguments; none where it is no schema of an object."""
    found = schema.get("properties") if isinstance(schema, Mapping) else None
    return {str(key): value for key, value in found.items()} if isinstance(found, Mapping) else {}


def _resolved(given: Any, definitions: Any) -> dict[str, Any]:
    """Without references and `null` beside it."""
    for _ in range(limits.INFER_DEPTH_MAX):
        if not isinstance(given, Mapping):
            return {}
        reference = given.get("$ref")
        one_of = given.get("anyOf") or given.get("oneOf") or given.get("allOf")
        if isinstance(reference, str) and isinstance(definitions, Mapping):
            given = definitions.get(reference.rpartition("/")[2])
        elif isinstance(one_of, list) and one_of:
            real = [one for one in one_of if one != {"type": "null"}]
            if len(real) != 1:
                return {}  # This or that: nothing is known of it.
            given = real[0]
        else:
            return dict(given)
    return {}


def _role(leaf: _Leaf, verb: Verb, outgoing: bool) -> Role:
    named = split(_last(leaf.name)) or [""]
    last, kind = named[-1], leaf.schema.get("type")
    if leaf.unread:
        return Role(critical=True, why="it holds more than is looked at")
    if _is_yes_or_no(leaf):
        return _yes_or_no(named, verb)
    by_format = _by_format(leaf.schema.get("format"), outgoing)
    if by_format is not None:
        return by_format
    if set(named) & words.CREDENTIALS:
        return Role(critical=True, why=f"`{last}` is a credential")
    if _is_right(leaf.name):
        return Role(critical=True, why=f"`{last}` says who may do what")
    if _is_choice(leaf.schema) and verb.kind is not Kind.REMOVES:
        if wide := _widest(leaf.schema):
            return Role(critical=True, why=f"`{wide}` is one of its list")
        return Role(why="one of a list")
    if kind in ("integer", "number") and last.endswith("s") and last in words.RECIPIENTS:
        return Role(critical=True, why=f"how many `{last}`")
    if (role := _by_name(named, verb, outgoing)) is not None:
        return role
    return Role(critical=True, why="nothing that is known to choose no target")


def _is_yes_or_no(leaf: _Leaf) -> bool:
    return leaf.schema.get("type") == "boolean"


def _yes_or_no(named: list[str], verb: Verb) -> Role:
    """`recursive` and `delete_all` say how much, `public` says to whom."""
    if found := sorted(set(named) & words.WIDENING):
        return Role(critical=True, why=f"`{found[0]}` may say how much, or for whom")
    if verb.kind is Kind.REMOVES and named[-1] not in words.HARMLESS | words.TIMES:
        return Role(critical=True, why="it may say how much is removed")
    return Role(why="yes or no")


def _by_format(form: Any, outgoing: bool) -> Role | None:
    if not isinstance(form, str):
        return None  # A schema of strangers can say anything.
    if form in _PEOPLE_FORMATS:
        return Role(critical=True, recipient=outgoing, why="an e-mail address")
    if form in _PLACE_FORMATS:
        return Role(critical=True, recipient=outgoing, why="an address on the network")
    if form in _TIME_FORMATS:
        return Role(why="a time")
    return None


def _by_name(named: list[str], verb: Verb, outgoing: bool) -> Role | None:
    """The last word says what it is, those before it of what."""
    last, before = named[-1], set(named[:-1])
    if last in words.TIMES:
        return Role(why=f"`{last}` is a time")
    if last in words.CODE | words.STATEMENTS:
        return Role(critical=True, statement=last in words.STATEMENTS, why=f"`{last}` is code")
    if last in words.RECIPIENTS or ({"to"} == before and last in words.PEOPLE):
        return Role(critical=True, recipient=True, why=f"`{last}` is who or where it goes to")
    if last in words.IDS:
        goes = bool(before & words.RECIPIENTS) or (outgoing and bool(before & words.PEOPLE))
        return Role(critical=True, recipient=goes, why=f"`{last}` names one thing")
    if last in words.AMOUNTS:
        return Role(critical=True, why=f"`{last}` is an amount")
    if last in words.PEOPLE:
        why = f"`{last}` is who or where it goes to" if outgoing else f"`{last}` names one thing"
        return Role(critical=True, recipient=outgoing, why=why)
    if last in words.NAMES and verb.word in words.CREATES:
        return Role(content=True, why=f"`{last}` of what is made")
    if verb.kind is Kind.REMOVES:
        return None  # `delete_note(title)`: whatever it is called, it says what is removed.
    if last in words.CONTENT:
        return Role(content=True, why=f"`{last}` is text")
    if last in words.HARMLESS:
        return Role(why=f"`{last}` says how, not what")
    return None


def _last(path: str) -> str:
    return path.rpartition(".")[2]


def _is_choice(schema: Mapping[str, Any]) -> bool:
    items = schema.get("items")
    return (
        isinstance(schema.get("enum"), list)
        or "const" in schema
        or (isinstance(items, Mapping) and isinstance(items.get("enum"), list))
    )


def _widest(schema: Mapping[str, Any]) -> str:
    """A value of its list that takes in everything or everybody; empty: there is none."""
    items = schema.get("items")
    lists = [schema.get("enum"), [schema.get("const")]]
    lists.append(items.get("enum") if isinstance(items, Mapping) else None)
    for given in lists:
        for value in given if isinstance(given, list) else ():
            if isinstance(value, str) and (found := set(split(value)) & words.WIDEST):
                return min(found)
    return ""


def _is_right(path: str) -> bool:
    return bool(set(split(_last(path))[-1:]) & words.RIGHTS)
