"""Arguments of an unattended call that no word of its manifest names: they are judged as critical.

Nobody is asked about such a call, so what nobody thought of must not choose anything. Not here:
whether the user chose them (flows.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from ring0 import limits
from ring0.guardrails.origins import named
from ring0.types import Integrity, Origin, ToolManifest

_Steps = tuple[str, ...]
_EMPTY: Final = "nothing in it"


def of(manifest: ToolManifest, args: Mapping[str, Any]) -> tuple[str, ...]:
    """What `named` finds them by, each: an argument, or a way into one of which the manifest names
    another part. Not what is null, and not what the tool would take by itself."""
    given = {name: args[name] for name in args if not is_default(manifest, name, args[name])}
    return _beyond({*_judged(manifest), *manifest.settings}, given)


def beside(manifest: ToolManifest, args: Mapping[str, Any]) -> tuple[str, ...]:
    """Likewise, all that no rule looks at: settings, too, and what the tool takes by itself."""
    return _beyond(_judged(manifest), args)


def _judged(manifest: ToolManifest) -> set[str]:
    return {*manifest.critical, *manifest.statements, *manifest.recipients, *manifest.content}


def _beyond(told: set[str], args: Mapping[str, Any]) -> tuple[str, ...]:
    ways = {tuple(name.split(".")) for name in told}
    found: dict[str, None] = {}
    for name, value in args.items():
        if value is None or name in told:
            continue
        if any(way[0] == name for way in ways):
            found |= dict.fromkeys(_within(name, value, ways))
        else:
            found[name] = None
    return tuple(found)


def is_default(manifest: ToolManifest, name: str, value: Any) -> bool:
    """What its schema says that the tool takes where nothing is given: it chooses as little."""
    properties = manifest.schema.get("properties")
    schema = properties.get(name) if isinstance(properties, Mapping) else None
    if not isinstance(schema, Mapping) or "default" not in schema:
        return False
    return _exact(schema["default"]) == _exact(value)


def without_origin(
    manifest: ToolManifest, args: Mapping[str, Any], names: Sequence[str]
) -> Iterator[Origin]:
    """Of these what no text can be the origin of: yes or no; and of those that nothing names, also
    what is empty. Nobody's words hold a `true`, and `delete_all` is one."""
    unnamed = of(manifest, args)
    for name in names:
        if name in args and is_default(manifest, name, args[name]):
            continue
        some = False
        for path, leaf in named(args, name):
            some = True
            if isinstance(leaf, bool):
                yield _nowhere(path, "true" if leaf else "false")
            elif leaf == "" and name in unnamed:
                yield _nowhere(path, _EMPTY)
        if not some and name in unnamed:
            yield _nowhere(name, _EMPTY)


def _within(name: str, value: Any, ways: set[_Steps]) -> list[str]:
    """The ways to what is within an argument and not named; the argument as a whole where there are
    too many, or where a key could be read as a way itself."""
    found: dict[str, None] = {}
    for count, steps in enumerate(_leaves(name, value)):
        if len(found) * count > limits.FLOW_UNNAMED_STEPS_MAX:
            return [name]
        if any(steps[: len(way)] == way for way in ways):
            continue
        found[".".join(steps)] = None
        is_plain = not any(sign in step for step in steps for sign in ".[]")
        if not is_plain or len(found) > limits.FLOW_UNNAMED_MAX:
            return [name]
    return list(found)


def _leaves(name: str, value: Any) -> Iterator[_Steps]:
    """The keys on the way to everything in it that holds nothing further."""
    stack: list[tuple[_Steps, Any]] = [((name,), value)]
    while stack:
        steps, item = stack.pop()
        if isinstance(item, Mapping) and item:
            stack.extend(((*steps, str(key)), inner) for key, inner in item.items())
        elif isinstance(item, list | tuple) and item:
            stack.extend((steps, inner) for inner in item)
        elif item is not None:
            yield steps


def _exact(value: Any) -> bytes:
    """`1` is not `true`, nor `1.0`."""
    return msgspec.json.encode(value, order="sorted")


def _nowhere(path: str, value: str) -> Origin:
    return Origin(argument=path, value=value, sources=(), integrity=Integrity.UNTRUSTED)
