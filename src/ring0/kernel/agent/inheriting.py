"""What a child has of a built-in tool that its own manifest and its parent's both configure: of
each field the narrower, so never more than either of them says.

Where neither of two values is the narrower, the child is not spawned: to choose would be to guess.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from ring0.errors import ManifestInvalid
from ring0.tools.egress.hosts import is_beneath
from ring0.tools.egress.rules import Rule, parse_rules
from ring0.tools.labelling import Words
from ring0.tools.mcp import settings as mcp
from ring0.tools.programs import settings as programs
from ring0.tools.sandbox.tiers import ORDER
from ring0.tools.sql.databases import SqlConfig
from ring0.types import CONFIDENTIALITY_RANK, INTEGRITY_RANK, Confidentiality, Integrity

Config = Mapping[str, Any]


class _Unordered(Exception):
    """Neither of two values is the narrower."""


_UNSAID: Final[Mapping[str, Config]] = {
    "files": {},
    "derive": {},
    "http": {"egress": [], "secrets": [], "idempotency_header": ""},
    "sql": msgspec.to_builtins(SqlConfig(use="sql")),
    "python": msgspec.to_builtins(programs.Settings(use="python")),
    "shell": msgspec.to_builtins(programs.Settings(use="shell")),
    "mcp": msgspec.to_builtins(mcp.Settings()),
}
"""By what a tool uses: what holds of a field that its table does not say."""
_UNSAID_LABELS: Final[Config] = msgspec.to_builtins(Words())
"""Of any tool."""


def inherited(
    instance: str, own: Config, parents: Config, *, own_folder: Path, parents_folder: Path
) -> dict[str, Any]:
    """The table of one tool of a child. The folders are those that paths begin at: `own` is the
    code's word, which tells them from its own file. Raises ManifestInvalid."""
    if own.get("use") != parents.get("use"):
        raise _refused(instance, "use", own.get("use"), parents.get("use"))
    unsaid = _UNSAID.get(str(parents.get("use")), {})
    found = dict(parents)
    if found.get("secrets") and "secrets" not in own:
        found["secrets"] = []  # A credential is never inherited: who wants one names it.
    for key, wanted in own.items():
        has = parents.get(key, unsaid.get(key, _UNSAID_LABELS.get(key)))
        if key == "database" and _same_file(wanted, own_folder, has, parents_folder):
            continue
        if key != "database" and _plain(wanted) == _plain(has):
            continue
        try:
            found[key] = _narrower(key, wanted, has, unsaid)
        except _Unordered:
            raise _refused(instance, key, wanted, has) from None
    return found


def _narrower(key: str, wanted: Any, has: Any, unsaid: Config) -> Any:
    """Raises _Unordered, and ManifestInvalid for an egress rule that is none."""
    if key == "limits":
        table = unsaid.get(key)
        if not isinstance(wanted, Mapping) or not isinstance(has, Mapping) or table is None:
            raise _Unordered
        found = dict(has)
        for name, value in wanted.items():
            found[name] = _fewer(name, value, has.get(name, table.get(name)))
        return found
    order = _ORDERS.get(key)
    if order is None:
        raise _Unordered
    return order(wanted, has)


def _fewer(name: str, wanted: Any, has: Any) -> int:
    numbers = _number(wanted), _number(has)
    if name == "cpu_s" and 0 in numbers:  # None is set.
        return max(numbers)
    return min(numbers)


def _least(wanted: Any, has: Any) -> int:
    return min(_number(wanted), _number(has))


def _common(wanted: Any, has: Any) -> list[str]:
    """Of two lists of names; an empty one has none."""
    there = set(_names(has))
    return [name for name in _names(wanted) if name in there]


def _offered(wanted: Any, has: Any) -> list[str]:
    """Of two lists of names; an empty one leaves none out, so nothing in common has no list."""
    if not _names(has) or not _names(wanted):
        return _names(wanted) or _names(has)
    common = _common(wanted, has)
    if not common:
        raise _Unordered
    return common


def _stronger(wanted: Any, has: Any) -> str:
    """Of two tiers; the empty one is the operator's minimum."""
    ranks = ("", *ORDER)
    if wanted not in ranks or has not in ranks:
        raise _Unordered
    return max(str(wanted), str(has), key=ranks.index)


def _pinned(wanted: Any, has: Any) -> str:
    """One that is pinned is narrower than one that is not; two digests have no order."""
    if (wanted and has) or not isinstance(wanted, str):
        raise _Unordered
    return wanted or str(has)


def _both(wanted: Any, has: Any) -> bool:
    if not isinstance(wanted, bool) or not isinstance(has, bool):
        raise _Unordered
    return wanted and has


def _less_trusted(wanted: Any, has: Any) -> str:
    try:
        return str(max(Integrity(wanted), Integrity(has), key=INTEGRITY_RANK.__getitem__))
    except ValueError:
        raise _Unordered from None


def _either(wanted: Any, has: Any) -> bool:
    """Where one of the two says so, more is asked of the tool's calls."""
    if not isinstance(wanted, bool) or not isinstance(has, bool):
        raise _Unordered
    return wanted or has


def _all(wanted: Any, has: Any) -> list[str]:
    """Of two lists of arguments that are looked at."""
    return list(dict.fromkeys((*_names(has), *_names(wanted))))


def _more_hidden(wanted: Any, has: Any) -> str:
    try:
        both = (Confidentiality(wanted), Confidentiality(has))
    except ValueError:
        raise _Unordered from None
    return str(max(both, key=CONFIDENTIALITY_RANK.__getitem__))


def _reach(wanted: Any, has: Any) -> list[str]:
    """Of two lists of egress rules: each rule of the child's that lies within one of its parent's,
    and each of the parent's that lies within one of the child's."""
    own = parse_rules(_names(wanted), "egress").rules
    above = parse_rules(_names(has), "egress").rules
    found: list[str] = []
    for rule in own if above else ():
        if any(within(rule, wider) for wider in above):
            found.append(rule.text)
            continue
        narrower = [one.text for one in above if within(one, rule)]
        if not narrower:
            raise _Unordered
        found += narrower
    return list(dict.fromkeys(found))


def within(rule: Rule, wider: Rule) -> bool:
    """Whether `wider` allows all that `rule` does. Not where it is several rules that do."""
    if (rule.scheme, rule.port, rule.tunnel) != (wider.scheme, wider.port, wider.tunnel):
        return False
    if not set(rule.methods) <= set(wider.methods) or (rule.own_auth and not wider.own_auth):
        return False
    if not wider.wildcard:
        if rule.wildcard or rule.host != wider.host:
            return False
    elif not is_beneath(rule.host, wider.host) or (
        rule.host == wider.host and not rule.wildcard  # `*.a.org` is not `a.org` itself.
    ):
        return False
    if not wider.beneath:
        return not rule.beneath and rule.path == wider.path
    return rule.path.startswith(wider.path)


_ORDERS: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "egress": _reach,
    "secrets": _common,
    "functions": _common,
    "image": _common,
    "only": _offered,
    "timeout_s": _least,
    "wall_s": _least,
    "tier": _stronger,
    "pin": _pinned,
    "workspace": _both,
    "output": _less_trusted,
    "recipients": _all,
    "content": _all,
    "removes": _either,
    "unattended": _both,
    "confidentiality": _more_hidden,
}
"""Fields of which one value can be narrower than another. `limits` has a rule of its own."""


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _Unordered
    return value


def _names(value: Any) -> list[str]:
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
        raise _Unordered
    return list(value)


def _plain(value: Any) -> Any:
    return msgspec.to_builtins(value, builtin_types=(), order="sorted")


def _same_file(wanted: Any, own_folder: Path, has: Any, parents_folder: Path) -> bool:
    if not isinstance(wanted, str) or not isinstance(has, str) or not wanted or not has:
        return bool(wanted == has)
    return (own_folder / wanted).resolve() == (parents_folder / has).resolve()


def _refused(instance: str, key: str, wanted: Any, has: Any) -> ManifestInvalid:
    return ManifestInvalid(
        f"it has {key[:80]} = {_told(wanted)} of the tool {instance}, and its parent {_told(has)}.",
        why="Neither of the two is the narrower, so nobody could tell what a child may do.",
        todo=f"Say the same for both, or leave {key[:80]!r} out of the child's: then it is as its"
        " parent's.",
    )


def _told(value: Any) -> str:
    return "none" if value in (None, "", [], ()) else repr(value)[:200]
