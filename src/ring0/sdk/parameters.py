"""The arguments of a function as a JSON schema, made from its type hints, and their conversion.

Used for `@tool` functions and for the local functions of `Context.loop`.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from ring0 import errors

CONTEXT_NAMES: Final = ("Context", "ToolContext")
_REFUSED: Final = {
    inspect.Parameter.VAR_POSITIONAL: "*{} takes any number of arguments",
    inspect.Parameter.VAR_KEYWORD: "**{} takes any argument",
    inspect.Parameter.POSITIONAL_ONLY: "{} has no name for a caller (it stands before '/')",
}


@dataclass(frozen=True)
class Parameters:
    """What a function takes, apart from its context."""

    schema: dict[str, Any]
    """JSON Schema of an object; unknown fields are refused at every level."""
    struct: type[msgspec.Struct]
    takes_context: bool
    """Whether its first parameter is `ctx`."""

    def convert(self, args: object, name: str) -> dict[str, Any]:
        """Plain JSON arguments as the types that the hints name; only those that were given."""
        try:
            converted = msgspec.convert(args, self.struct)
        except msgspec.ValidationError as error:
            raise errors.CallInvalid(
                f"The arguments of {name} don't fit.", why=str(error), todo="see its schema"
            ) from None
        assert isinstance(args, dict)
        return {field: getattr(converted, field) for field in args}


def parameters_of(function: Callable[..., Any]) -> Parameters:
    """The parameters of `function`. Raises `ManifestInvalid` for what has no schema."""
    name = getattr(function, "__name__", repr(function))
    found = list(inspect.signature(function).parameters.values())
    takes_context = bool(found) and _is_context(found[0])
    wanted = found[1:] if takes_context else found
    for parameter in wanted:
        _refuse_unnamed(parameter, name)
    hints = _hints(function, wanted, name)
    fields = [_field(parameter, hints[parameter.name]) for parameter in wanted]
    try:
        struct = msgspec.defstruct(
            f"{name}_arguments", fields, kw_only=True, forbid_unknown_fields=True
        )
        schema = _schema(struct)
    except (TypeError, ValueError, NameError) as error:
        raise errors.ManifestInvalid(
            f"The arguments of {name} have no JSON schema.",
            why=str(error),
            todo="use str, int, float, bool, list, dict, Literal, dataclasses or msgspec structs",
        ) from None
    return Parameters(schema, struct, takes_context)


def _is_context(parameter: inspect.Parameter) -> bool:
    """Whether it is the context: by its hint, or, without one, by the name `ctx`."""
    hint = parameter.annotation
    if hint is inspect.Parameter.empty:
        return parameter.name == "ctx"
    text = hint if isinstance(hint, str) else getattr(hint, "__name__", "")
    return text.strip("'\"").rpartition(".")[2] in CONTEXT_NAMES


def _refuse_unnamed(parameter: inspect.Parameter, name: str) -> None:
    why = ""
    if parameter.kind in _REFUSED:
        why = _REFUSED[parameter.kind].format(parameter.name)
    elif parameter.annotation is inspect.Parameter.empty:
        why = f"{parameter.name} has no type hint"
    if why:
        raise errors.ManifestInvalid(
            f"{name} can't be a tool.",
            why=why,
            todo="name each parameter and give it a type hint, as in `amount: int`",
        )


def _hints(
    function: Callable[..., Any], wanted: list[inspect.Parameter], name: str
) -> dict[str, Any]:
    """The evaluated hints. Those of `ctx` and of the result stay unread: they may not be there."""
    bare = types.SimpleNamespace(
        __annotations__={parameter.name: parameter.annotation for parameter in wanted}
    )
    scope = getattr(inspect.unwrap(function), "__globals__", {})
    try:
        return typing.get_type_hints(bare, globalns=scope, include_extras=True)
    except Exception as error:
        raise errors.ManifestInvalid(
            f"The type hints of {name} can't be read.",
            why=f"{type(error).__name__}: {error}",
            todo="define or import the types above the function, outside of any other function",
        ) from None


def _field(parameter: inspect.Parameter, hint: Any) -> tuple[str, Any] | tuple[str, Any, Any]:
    default = parameter.default
    if default is inspect.Parameter.empty:
        return (parameter.name, hint)
    if default is None or isinstance(default, str | int | float | bool):
        return (parameter.name, hint, default)
    # Only says that it may be left out: the function then takes its own default.
    return (parameter.name, hint, msgspec.field(default_factory=lambda: default))


def _schema(struct: type[msgspec.Struct]) -> dict[str, Any]:
    """The schema of `struct` itself, not of a reference to it; others' under `$defs`."""
    (reference,), definitions = msgspec.json.schema_components(
        [struct], ref_template="#/$defs/{name}"
    )
    schema: dict[str, Any] = definitions.pop(reference["$ref"].rpartition("/")[2])
    schema.pop("title", None)
    if definitions:
        schema["$defs"] = definitions
    _close(schema)
    return schema


def _close(schema: Any) -> None:
    """Refuses unknown fields in each object that names its fields (a `dict[str, …]` names none)."""
    if isinstance(schema, list):
        for item in schema:
            _close(item)
    elif isinstance(schema, dict):
        if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
            schema.setdefault("additionalProperties", False)
        for item in schema.values():
            _close(item)
